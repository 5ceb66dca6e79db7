"""Index and segments of every kind of file, compared with decoding the whole file."""

from pathlib import Path

import pytest

from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from tests.compare_with_ffmpeg import compare
from tests.video_factory import VideoSpec, cut_file, decode_all, read_number, write_video
from tests.video_kinds import KINDS, write_kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@pytest.mark.parametrize("name", KINDS)
def test_frames_and_segments_agree_with_a_full_decode(name: str, folder: Path) -> None:
    """A segment has the pixels of a decode from the start; the ffmpeg program gives the number and times of frames."""
    result = compare(write_kind(name, folder))
    assert result.agrees, result
    is_truncated = name.startswith("truncated")
    assert is_truncated or not any("cut off" in note for note in result.notes)


@pytest.mark.parametrize(("name", "hidden"), [("closed.mp4", 0), ("edit_list.mp4", 5), ("h264.avi", 0)])
def test_frame_n_shows_number_n(name: str, hidden: int, tmp_path: Path) -> None:
    path = write_kind(name, tmp_path)
    for numbers, rgb in read_segment(path, index_video(path), first_frame=11, frame_count=20):
        assert [read_number(picture) for picture in rgb] == (numbers + hidden).tolist()


@pytest.mark.parametrize("name", ["long.mkv", "long.avi", "long.mp4"])
def test_truncated_file_is_read_up_to_its_end(name: str, tmp_path: Path) -> None:
    spec = VideoSpec(frame_count=200, container_options={"movflags": "faststart"} if name.endswith("mp4") else {})
    path = cut_file(write_video(tmp_path / name, spec), tmp_path / f"cut_{name}", fraction=0.75)
    frames = decode_all(path)
    index = index_video(path)

    assert index.problem is not None and "cut off?" in index.problem
    assert 20 < len(frames) < 200
    assert 0 <= index.frame_count - len(frames) <= 1  # the packet that was cut in two may not decode
    chunks = read_segment(path, index, first_frame=1, frame_count=index.frame_count)
    pictures = {int(n): picture for numbers, rgb in chunks for n, picture in zip(numbers, rgb, strict=True)}
    assert len(pictures) == len(frames)
    # The last picture may have lost the ones before it that come later in the file.
    assert all(read_number(pictures[number]) == number for number in range(1, len(frames) - 3))
