"""Times, rotation, unreliable time stamps and damage in the index of a video."""

from pathlib import Path

import numpy as np
import pytest

from data_contracts.errors import InputError
from data_contracts.settings import read_settings
from data_contracts.video import limits
from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from tests.video_factory import VideoSpec, cut_file, decode_all, read_number, write_video
from tests.video_kinds import write_kind


def test_index_of_a_typical_file(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "clip.mp4"))
    np.testing.assert_array_equal(index.pts, np.arange(40) * 512)
    np.testing.assert_allclose(index.pts_seconds, np.arange(40) / 25, atol=1e-12)
    assert (np.flatnonzero(index.keyframe) + 1).tolist() == [1, 13, 25, 37]
    assert (index.width_px, index.height_px, index.rotation_degrees) == (96, 64, 0)
    assert index.average_fps == pytest.approx(25)
    assert index.duration_seconds == pytest.approx(39 / 25)
    assert (index.codec, index.claimed_frame_count, index.has_pts, index.problem) == ("h264", 40, True, None)


def test_settings_are_not_read_for_every_packet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes longer than reading a packet."""
    calls: list[int] = []
    monkeypatch.setattr(limits, "read_settings", lambda: calls.append(1) or read_settings())
    index_video(write_video(tmp_path / "clip.mp4", VideoSpec(frame_count=100)))
    assert 0 < len(calls) < 50


def test_times_may_be_uneven(tmp_path: Path) -> None:
    ticks = [0, 100, 1000, 1512, 9000, 9100, 20_000]
    index = index_video(write_video(tmp_path / "uneven.mp4", VideoSpec(frame_count=7, tick=ticks)))
    np.testing.assert_allclose(index.pts_seconds, np.array(ticks) / 12_800, atol=1e-9)
    assert index.average_fps == pytest.approx(6 * 12_800 / 20_000)


def test_times_start_at_zero_after_frames_hidden_by_an_edit_list(tmp_path: Path) -> None:
    index = index_video(write_video(tmp_path / "hidden.mp4", VideoSpec(shift_ticks=-5 * 512)))
    assert (index.frame_count, index.claimed_frame_count, index.problem) == (35, 40, None)
    assert index.pts_seconds[0] == 0


@pytest.mark.parametrize(("counter_clockwise", "clockwise", "size"), [(90, 270, (64, 96)), (180, 180, (96, 64))])
def test_width_and_height_are_those_of_the_upright_frame(
    counter_clockwise: int, clockwise: int, size: tuple[int, int], tmp_path: Path
) -> None:
    spec = VideoSpec(frame_count=3, rotation_degrees_ccw=counter_clockwise)
    index = index_video(write_video(tmp_path / "turned.mp4", spec))
    assert (index.rotation_degrees, (index.width_px, index.height_px)) == (clockwise, size)


def test_guessed_time_stamps_are_not_trusted(tmp_path: Path) -> None:
    """AVI stores H.264 in decoding order without presentation times, so decoded time stamps are out of order."""
    path = write_video(tmp_path / "jumbled.avi")
    stamps = [pts for pts, _ in decode_all(path)]
    index = index_video(path)
    assert stamps != sorted(stamps, key=lambda pts: pts or 0)
    assert (index.has_pts, index.frame_count) == (False, 40)
    np.testing.assert_allclose(index.pts_seconds, np.arange(40) / 25, atol=1e-9)


@pytest.mark.parametrize(
    "second_spec",
    [VideoSpec(frame_count=50), VideoSpec(frame_count=50, b_frames=0, tick=[0, *range(612, 49 * 512 + 101, 512)])],
    ids=["same times", "times in between"],
)
def test_concatenated_recordings_get_increasing_times(second_spec: VideoSpec, tmp_path: Path) -> None:
    """The times of the second recording restart, and are equal to those of the first or lie between them."""
    first = write_video(tmp_path / "first.ts", VideoSpec(frame_count=50))
    second = write_video(tmp_path / "second.ts", second_spec, first_number=51)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    index = index_video(joined)
    assert (index.frame_count, index.has_pts) == (len(decode_all(joined)), False)
    assert np.all(np.diff(index.pts_seconds) > 0)
    assert index.duration_seconds == pytest.approx(99 / 25, abs=0.01)


def test_frames_before_the_first_keyframe_are_not_counted(tmp_path: Path) -> None:
    """The decoder invents frames with random time stamps before the first keyframe; the index omits them."""
    path = write_video(tmp_path / "amid.mkv", VideoSpec(codec="mpeg4", drop_packets=frozenset(range(5))))
    stamps = [pts for pts, _ in decode_all(path)]
    assert len(set(stamps)) < len(stamps) == 34
    index = index_video(path)
    assert index.frame_count == 28
    (chunk,) = read_segment(path, index, first_frame=1, frame_count=28, chunk_frames=28)
    assert [read_number(picture) for picture in chunk[1]] == list(range(13, 41))


def test_empty_chunks_are_no_lost_frames(tmp_path: Path) -> None:
    """AVI fills times without a frame with empty chunks, and counts them."""
    ticks = [512 * (place + 30 * (place >= 10)) for place in range(40)]
    index = index_video(write_video(tmp_path / "gap.avi", VideoSpec(codec="mpeg4", b_frames=0, tick=ticks)))
    assert index.claimed_frame_count > 100
    assert (index.frame_count, index.problem) == (40, None)
    np.testing.assert_allclose(index.pts_seconds, np.array(ticks) / 12_800, atol=2e-3)


def test_damaged_packet_is_reported(tmp_path: Path) -> None:
    spec = VideoSpec(frame_count=200, container_options={"movflags": "faststart"})
    whole = write_video(tmp_path / "whole.mp4", spec)
    index = index_video(cut_file(whole, tmp_path / "cut.mp4", fraction=0.8))
    assert index.problem is not None
    assert index.problem.startswith("1 damaged packets; cut off? 200 packets promised by the container, ")


def test_a_video_without_decodable_frames_is_refused(tmp_path: Path) -> None:
    """The file's index is complete, but its frames are missing."""
    spec = VideoSpec(container_options={"movflags": "faststart"})
    whole = write_video(tmp_path / "whole.mp4", spec)
    head_bytes = whole.read_bytes().index(b"mdat") + 8
    cut = cut_file(whole, tmp_path / "cut.mp4", fraction=(head_bytes + 20) / whole.stat().st_size)
    with pytest.raises(InputError, match=r"cut\.mp4: expected a video with frames, got none \(.*cut off\?"):
        index_video(cut)


def test_file_object_gives_an_equal_index(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv")
    with path.open("rb") as file:
        np.testing.assert_array_equal(index_video(file).pts, index_video(path).pts)


def test_titles_may_have_any_encoding(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")
    data = path.read_bytes()
    assert b"Lavf" in data
    path.write_bytes(data.replace(b"Lavf", b"Caf\xe9"))
    assert index_video(path).frame_count == 40


def test_reading_may_stop_before_the_first_frame(tmp_path: Path) -> None:
    """FFmpeg merges the parts of an AV1 stream, which fails where one is damaged."""
    path = write_kind("elementary.obu", tmp_path)
    data = bytearray(path.read_bytes())
    data[5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError):
        index_video(path)
