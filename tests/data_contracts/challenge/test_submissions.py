import io
import zipfile

import numpy as np
import pytest

from data_contracts.challenge.submissions import (
    format_frames_file,
    format_rows,
    format_subject_file,
    verify_submission,
    zip_bytes,
)
from data_contracts.errors import InputError
from data_contracts.vocabulary import BRANCHES_OF_TASK

ROWS = {"s1": 3, "s2": 2}
COLUMNS = {"expr": (), "va": (2,), "au": (12,)}
FRAMES = ["s1/00001.jpg", "s2/00002.jpg", "s1/00003.jpg"]
SORTED = ["s2/00001.jpg", "s2/00002.jpg", "s1/00001.jpg", "s1/00002.jpg", "s1/00003.jpg"]


def zeros(task, count):
    return {b: np.zeros((count, *COLUMNS[b]), np.float32 if b == "va" else int) for b in BRANCHES_OF_TASK[task]}


def texts(task):
    """A submission of ABAW3."""
    if task == "mtl":
        return frames_file(task, FRAMES)
    return {f"{name}.txt": format_subject_file(task, zeros(task, count)) for name, count in ROWS.items()}


def frames_file(task, images):
    name = f"{task.upper()}_predictions.txt"
    return {name: format_frames_file(task, images, format_rows(task, zeros(task, len(images))))}


def verify(tmp_path, files, task, *, raw=None, wanted=None):
    (tmp_path / "s.zip").write_bytes(raw or zip_bytes(files))
    (tmp_path / "list").write_text("\n".join(wanted or (FRAMES if "MTL_predictions.txt" in files else ROWS)))
    return verify_submission(tmp_path / "s.zip", task=task, test_list=tmp_path / "list", expected_rows=ROWS)


@pytest.mark.parametrize("task", ["expr", "va", "au", "mtl"])
@pytest.mark.parametrize("named", [True, False])
def test_written_submission_is_accepted(tmp_path, task, named):
    assert verify(tmp_path, texts(task), task if named else None) == []
    (tmp_path / "folder").mkdir()
    for name, data in texts(task).items():
        (tmp_path / "folder" / name).write_bytes(data)
    assert verify_submission(tmp_path / "folder") == []


def changed(task, name, old, new, count=1):
    files = texts(task)
    assert old in files[name]
    return files | {name: files[name].replace(old, new, count)}


BROKEN = {
    "missing subject": ("expr", {"s1.txt": texts("expr")["s1.txt"]}, "not in the submission"),
    "extra subject": ("expr", texts("expr") | {"s3.txt": texts("expr")["s1.txt"]}, "not in the test list"),
    "too few rows": ("expr", changed("expr", "s1.txt", b"0\n", b""), "expected 3 rows"),
    "too many rows": ("expr", changed("expr", "s1.txt", b"0\n", b"0\n0\n"), "expected 3 rows"),
    "wrong header": ("expr", changed("expr", "s1.txt", b"Neutral", b"neutral"), "expected the header"),
    "class out of range": ("expr", changed("expr", "s1.txt", b"\n0\n", b"\n8\n"), "class in 0..7, got '8'"),
    "class is text": ("expr", changed("expr", "s1.txt", b"\n0\n", b"\nFear\n"), "class in 0..7"),
    "value out of range": ("va", changed("va", "s1.txt", b"0.000000", b"1.2"), "value in -1..1, got '1.2'"),
    "nan": ("va", changed("va", "s1.txt", b"0.000000", b"nan"), "value in -1..1, got 'nan'"),
    "unit is two": ("au", changed("au", "s1.txt", b"0,0", b"2,0"), "0 or 1"),
    "wrong delimiter": ("va", changed("va", "s1.txt", b"0,0", b"0;0"), "2 values separated by commas, got 1"),
    "CRLF": ("va", changed("va", "s1.txt", b"\n", b"\r\n", 9), "got CRLF"),
    "byte order mark": ("va", changed("va", "s1.txt", b"valence", b"\xef\xbb\xbfvalence"), "byte order mark"),
    "empty file": ("va", texts("va") | {"s1.txt": b""}, "got an empty file"),
    "header only": ("va", texts("va") | {"s1.txt": b"valence,arousal\n"}, "expected rows, got none"),
    "wrong suffix": ("va", {"s1.csv": texts("va")["s1.txt"]}, "ends with .txt"),
    "missing frame": (
        "mtl",
        changed("mtl", "MTL_predictions.txt", b"s2/00002", b"s2/00009"),
        "s2/00002.jpg of the list is missing",
    ),
    "reordered": (
        "mtl",
        {
            "MTL_predictions.txt": b"\n".join(texts("mtl")["MTL_predictions.txt"].split(b"\n")[i] for i in (0, 2, 1, 3))
            + b"\n"
        },
        "order of the list",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_invalid_submissions_are_rejected_with_the_cause(tmp_path, name):
    task, files, cause = BROKEN[name]
    faults = verify(tmp_path, files, task)
    assert any(cause in str(fault) for fault in faults), [str(fault) for fault in faults]


@pytest.mark.parametrize(
    ("name", "cause"),
    [("deeper/", "folder inside the zip"), ("../s1.txt", "a path inside the zip"), ("/s1.txt", "path")],
)
def test_invalid_entries_of_a_zip_are_faults(tmp_path, name, cause):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file, data in texts("expr").items():
            archive.writestr(file, data)
        archive.writestr(name, b"")
    faults = verify(tmp_path, {}, "expr", raw=buffer.getvalue())
    assert [cause in fault.cause for fault in faults] == [True]


def test_zip_with_too_many_files_is_refused_before_its_list_is_read(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number:0200}", b"")
    (fault,) = verify(tmp_path, {}, "expr", raw=buffer.getvalue())
    assert "expected a submission, got a zip with a list of files of 4,9" in fault.cause


def test_subject_twice_in_the_zip_is_a_fault(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for file in ("s1.txt", "s1.txt", "s2.txt"):
            archive.writestr(file, texts("expr")[file])
    assert "twice in the zip" in str(verify(tmp_path, {}, "expr", raw=buffer.getvalue())[0])


def test_line_numbers_are_those_of_the_file(tmp_path):
    (fault,) = verify(tmp_path, changed("au", "s2.txt", b"0\n0,", b"0\n5,"), "au")
    assert (fault.file, fault.line) == ("s2.txt", 3) and str(fault).startswith("s2.txt: line 3: ")


def test_missing_submission_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a submission"):
        verify_submission(tmp_path / "typo.zip")
    (tmp_path / "x.txt").write_text("hello\n")
    with pytest.raises(InputError, match=r"got .hello.; pass another file, or --task"):
        verify_submission(tmp_path / "x.txt")
    (tmp_path / "empty").mkdir()
    assert verify_submission(tmp_path / "empty")[0].cause.startswith("expected text files")


@pytest.mark.parametrize("task", ["expr", "va", "au"])
def test_single_file_since_abaw5_is_accepted(tmp_path, task):
    assert verify(tmp_path, frames_file(task, SORTED), None, wanted=SORTED) == []
    assert verify_submission(tmp_path / "s.zip", expected_rows=ROWS) == []


def sorted_without(*places):
    return [image for place, image in enumerate(SORTED) if place not in places]


BROKEN_FRAMES = {
    "missing row": (sorted_without(1), SORTED, "row s2/00002.jpg of the list is missing"),
    "extra row": (SORTED, sorted_without(4), "line 6: row s1/00003.jpg is not in the list"),
    "row twice": ([*SORTED, SORTED[4]], SORTED, "line 7: row s1/00003.jpg is more often than in the list"),
    "reordered": ([*SORTED[:3], SORTED[4], SORTED[3]], SORTED, "line 5: expected the order of the list (s1/00002.jpg)"),
    "shifted by one": ([*SORTED[1:], "s1/00004.jpg"], SORTED, "row s2/00001.jpg of the list is missing"),
    "list of subjects": (SORTED, list(ROWS), "the test list names subjects"),
}


@pytest.mark.parametrize("name", list(BROKEN_FRAMES))
def test_rows_that_differ_from_the_sample_file_are_faults(tmp_path, name):
    images, wanted, cause = BROKEN_FRAMES[name]
    faults = verify(tmp_path, frames_file("va", images), None, wanted=wanted)
    assert any(cause in str(fault) for fault in faults), [str(fault) for fault in faults]


def test_without_a_list_rows_are_compared_with_the_videos(tmp_path):
    (tmp_path / "s.txt").write_bytes(*frames_file("va", [*sorted_without(1), "s1/00001.jpg"]).values())
    faults = [str(fault) for fault in verify_submission(tmp_path / "s.txt", expected_rows=ROWS)]
    assert faults == [
        "s.txt: line 2: expected 2 rows of s2, one per frame of the video, got 1",
        "s.txt: line 6: expected frames of s1 to ascend, got 1 after 3",
        "s.txt: line 3: expected 3 rows of s1, one per frame of the video, got 4",
    ]


def test_rows_of_mtl_without_a_list_may_be_some_frames_of_the_videos(tmp_path):
    def faults_of(*images):
        (tmp_path / "s.txt").write_bytes(*frames_file("mtl", images).values())
        return [str(fault) for fault in verify_submission(tmp_path / "s.txt", expected_rows=ROWS)]

    assert faults_of("s1/00001.jpg", "s1/00003.jpg", "s2/00002.jpg") == []
    assert faults_of("s1/00001.jpg", "s1/00001.jpg", "s2/00002.jpg", "s2/00009.jpg") == [
        "s.txt: line 3: expected frames of s1 to ascend, got 1 after 1",
        "s.txt: line 5: expected frames 1 to 2 of s2, as in the video, got s2/00009.jpg",
    ]


def test_million_rows_with_a_fault_each_are_summarized(tmp_path):
    images = [f"s/{n:05d}.jpg" for n in range(1, 20_001)]
    (data,) = frames_file("va", images).values()
    (tmp_path / "s.txt").write_bytes(data.replace(b"0.000000", b"9"))
    faults = verify_submission(tmp_path / "s.txt")
    assert len(faults) == 6 and "more faults like these" in faults[-1].cause


@pytest.mark.parametrize("damage", ["cut", "flip", "huge"])
def test_unreadable_zip_is_a_fault(tmp_path, damage):
    data = bytearray(zip_bytes(texts("expr")))
    if damage == "cut":
        del data[40:60]
    elif damage == "flip":
        data[45] ^= 0xFF
    else:
        at = data.rindex(b"PK\x01\x02")
        data[at + 24 : at + 28] = (0x7FFFFFFF).to_bytes(4, "little")
    assert verify(tmp_path, {}, "expr", raw=bytes(data))


@pytest.mark.parametrize("size", [3, 40, -30, -1])
def test_truncated_zip_is_called_truncated(tmp_path, size):
    (fault,) = verify(tmp_path, {}, "expr", raw=zip_bytes(texts("expr"))[:size])
    assert (fault.file, fault.line) == ("s.zip", 0) and "got a truncated zip" in fault.cause


@pytest.mark.parametrize(
    ("raw", "cause"), [(b"hello\n" * 9, "another file (it begins with b'hell')"), (b"", "an empty file")]
)
def test_other_files_named_zip_are_not_called_truncated(tmp_path, raw, cause):
    (tmp_path / "s.zip").write_bytes(raw)
    assert [str(fault) for fault in verify_submission(tmp_path / "s.zip")] == [f"s.zip: expected a zip, got {cause}"]


def bundle_folder(folder):
    """A copy of what ``submit`` writes, without its manifest."""
    (folder / "predictions").mkdir(parents=True)
    for name, data in texts("va").items():
        (folder / "predictions" / name).write_bytes(data)
    (folder / "abaw3_va.zip").write_bytes(zip_bytes(texts("va")))
    (folder / "coverage.csv").write_text("subject,rows\n")


def test_folder_with_a_zip_beside_its_files_is_checked_as_that_zip(tmp_path):
    bundle_folder(tmp_path / "copy")
    for folder in ("copy", "copy/predictions"):
        (tmp_path / folder / ".DS_Store").write_bytes(b"\0")
    assert verify_submission(tmp_path / "copy", task="va", expected_rows=ROWS) == []
    assert verify_submission(tmp_path / "copy" / "predictions", expected_rows=ROWS) == []
    (tmp_path / "copy" / "predictions" / "s1.txt").write_bytes(texts("va")["s2.txt"])
    (tmp_path / "copy" / "predictions" / "s3.txt").write_bytes(b"")
    assert [str(fault) for fault in verify_submission(tmp_path / "copy")] == [
        "predictions/s1.txt: expected the file that abaw3_va.zip contains, got another",
        "predictions/s3.txt: not in abaw3_va.zip",
    ]


def test_folder_of_several_submissions_is_refused(tmp_path):
    bundle_folder(tmp_path / "submissions" / "a")
    bundle_folder(tmp_path / "submissions" / "b")
    with pytest.raises(InputError, match=r"got a folder that contains only folders \(a, b\); pass one of them"):
        verify_submission(tmp_path / "submissions")
    (tmp_path / "submissions" / "a" / "second.zip").write_bytes(zip_bytes(texts("va")))
    with pytest.raises(InputError, match=r"got 2 zips \(abaw3_va.zip, second.zip\); pass one"):
        verify_submission(tmp_path / "submissions" / "a")


def test_a_folder_of_videos_is_refused_before_it_is_read(tmp_path):
    for number in range(6):
        with open(tmp_path / f"{number}.mp4", "wb") as file:
            file.truncate(200 << 20)
    with pytest.raises(InputError, match="got a folder of 6 files of 1,258,291,200 bytes; pass another folder"):
        verify_submission(tmp_path)


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
