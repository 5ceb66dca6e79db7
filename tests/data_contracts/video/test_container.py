"""Error messages for files that are not videos, and decoding of single packets."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_contracts.errors import InputError
from data_contracts.video.container import decode_packets, open_video
from tests.video_factory import write_video


def write_sound(path: Path, *, cover: bool) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000)
        if cover:
            picture = io.BytesIO()
            Image.new("RGB", (320, 240)).save(picture, "JPEG")
            container.add_attachment("cover.jpg", "image/jpeg", picture.getvalue())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        frame.rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return path


def message_for(path: Path) -> str:
    with pytest.raises(InputError) as caught, open_video(path):
        pass
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and "expected" in text and "got" in text
    return text


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in message_for(tmp_path / "nowhere.mp4")


def test_folder_is_refused(tmp_path: Path) -> None:
    assert "directory" in message_for(tmp_path).lower()


@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 40])
def test_bytes_that_are_not_a_video_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    assert "copy is complete" in message_for(path)


def test_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("frame,valence\n" * 50)
    assert "got text" in message_for(path)


@pytest.mark.parametrize(("cover", "found"), [(False, "got audio"), (True, "a cover image")])
def test_audio_without_video_is_refused(cover: bool, found: str, tmp_path: Path) -> None:
    assert found in message_for(write_sound(tmp_path / "sound.mkv", cover=cover))


def test_failing_disk_raises_oserror(tmp_path: Path) -> None:
    class FailingDisk(io.BytesIO):
        name = "remote.mp4"

        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"), open_video(FailingDisk(b"x" * 1000)):
        pass


def test_empty_chunks_do_not_end_decoding(tmp_path: Path) -> None:
    with open_video(write_video(tmp_path / "clip.mp4")) as (container, stream):
        packets = list(container.demux(stream))
        empty = av.Packet()
        empty.stream, empty.pts, empty.dts = stream, 5, 5
        packets.insert(10, empty)
        assert len(list(decode_packets(packets))) == 40


def test_file_object_is_read_from_its_start(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    with path.open("rb") as file:
        file.seek(100)
        with open_video(file) as (container, stream):
            assert len(list(decode_packets(container.demux(stream)))) == 40
