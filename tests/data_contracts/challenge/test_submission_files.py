import io
import zipfile

import numpy as np

from data_contracts.challenge.submission_files import format_frames_file, format_rows, format_subject_file, zip_bytes


def test_files_of_abaw3(tmp_path):
    assert format_subject_file("expr", {"expr": np.array([0, 7])}) == (
        b"Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n0\n7\n"
    )
    values = {"va": np.array([[0.5, -1]], np.float32)}
    assert format_subject_file("va", values) == b"valence,arousal\n0.500000,-1.000000\n"
    units = np.zeros((1, 12), np.uint8)
    units[0, 11] = 1
    assert format_subject_file("au", {"au": units}) == (
        b"AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26\n0,0,0,0,0,0,0,0,0,0,0,1\n"
    )
    rows = format_rows("mtl", {"va": np.array([[0.25, 0]]), "expr": np.array([4]), "au": units})
    text = format_frames_file("mtl", ["v/00002.jpg"], rows)
    assert text == b"image,valence,arousal,expression,aus\nv/00002.jpg,0.250000,0.000000,4,0,0,0,0,0,0,0,0,0,0,0,1\n"


def test_file_since_abaw5():
    """A single class index, although the header names eight columns."""
    rows = format_rows("expr", {"expr": np.array([3, 0])})
    assert format_frames_file("expr", ["b/00002.jpg", "a/00001.jpg"], rows) == (
        b"image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\nb/00002.jpg,3\na/00001.jpg,0\n"
    )
    rows = format_rows("va", {"va": np.array([[-0.5, 0.125]])})
    assert format_frames_file("va", ["a/00001.jpg"], rows) == (
        b"image_location,valence,arousal\na/00001.jpg,-0.500000,0.125000\n"
    )


def test_zip_depends_only_on_its_files():
    first, second = zip_bytes({"a.txt": b"1", "b.txt": b"2"}), zip_bytes({"b.txt": b"2", "a.txt": b"1"})
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == ["a.txt", "b.txt"] and archive.testzip() is None
