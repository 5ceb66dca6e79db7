"""Index and segments of many kinds of files, compared with decoding the whole file."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_contracts.video.frames import read_segment
from data_contracts.video.packets import index_video
from tests.video_factory import VideoSpec, cut_file, decode_all, read_number, write_video

UNEVEN_TICKS = np.cumsum(np.tile([0, 256, 512, 1024, 3000], 8)).tolist()
UNEVEN_TICKS = [tick + place for place, tick in enumerate(UNEVEN_TICKS)]
OPEN_GOP = {"x264-params": "open-gop=1"}

KINDS = {
    "closed.mp4": VideoSpec(),
    "open.mp4": VideoSpec(b_frames=3, codec_options=OPEN_GOP),
    "one_gop.mp4": VideoSpec(gop_frames=250),
    "every_frame_a_keyframe.mp4": VideoSpec(gop_frames=1, b_frames=0),
    "intra_refresh.mp4": VideoSpec(b_frames=0, codec_options={"x264-params": "intra-refresh=1"}),
    "uneven.mp4": VideoSpec(tick=UNEVEN_TICKS),
    "edit_list.mp4": VideoSpec(shift_ticks=-5 * 512),
    "edit_list_open.mp4": VideoSpec(b_frames=3, codec_options=OPEN_GOP, shift_ticks=-14 * 512),
    "fragments.mp4": VideoSpec(container_options={"movflags": "frag_keyframe+empty_moov"}),
    "rotated.mp4": VideoSpec(rotation_degrees_ccw=90),
    "one_frame.mp4": VideoSpec(frame_count=1),
    "odd_sides.mp4": VideoSpec(width_px=99, height_px=67, pixel_format="yuv444p"),
    "ten_bit.mp4": VideoSpec(pixel_format="yuv420p10le"),
    "hevc.mp4": VideoSpec(codec="libx265", b_frames=3),
    "hevc_leading.mp4": VideoSpec(codec="libx265", b_frames=3, codec_options={"x265-params": "open-gop=0:radl=2"}),
    "mpeg4.mp4": VideoSpec(codec="mpeg4"),
    "mpeg4.avi": VideoSpec(codec="mpeg4"),
    "h264.avi": VideoSpec(),
    "mjpeg.avi": VideoSpec(codec="mjpeg", b_frames=0, pixel_format="yuvj420p"),
    "open.mkv": VideoSpec(b_frames=3, codec_options=OPEN_GOP),
    "cut_in_gop.mkv": VideoSpec(drop_packets=frozenset(range(5))),
    "starts_at_open_gop.mkv": VideoSpec(b_frames=3, codec_options=OPEN_GOP, drop_packets=frozenset(range(9))),
    "hevc_starts_at_open_gop.mkv": VideoSpec(codec="libx265", b_frames=3, drop_packets=frozenset(range(9))),
    "lost_packets.mp4": VideoSpec(drop_packets=frozenset({14, 15, 16})),
    "broadcast.ts": VideoSpec(),
    "mpeg2.mpg": VideoSpec(codec="mpeg2video"),
    "vp9.webm": VideoSpec(codec="libvpx-vp9", b_frames=0, codec_options={"deadline": "realtime", "cpu-used": "8"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_index_and_segments_agree_with_a_plain_decode(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, KINDS[name])
    frames = decode_all(path)
    index = index_video(path)

    assert index.problem is None
    assert index.frame_count == len(frames)
    assert (index.height_px, index.width_px) == frames[0][1].shape[:2]
    if index.has_pts:
        assert index.pts.tolist() == [pts for pts, _ in frames]
    for first in {1, 2, 12, 13, 14, 20, 26, max(1, len(frames) - 1), len(frames), len(frames) + 1}:
        for count in (1, 9):
            _assert_segment_is(path, frames, first=first, count=count)


Frames = list[tuple[int | None, NDArray[np.uint8]]]


def _assert_segment_is(path: Path, frames: Frames, *, first: int, count: int) -> None:
    chunks = list(read_segment(path, index_video(path), first_frame=first, frame_count=count, chunk_frames=4))
    numbers = [int(number) for numbers, _ in chunks for number in numbers]
    pictures = [picture for _, rgb in chunks for picture in rgb]
    assert numbers == list(range(first, min(first + count, len(frames) + 1)))
    for number, picture in zip(numbers, pictures, strict=True):
        np.testing.assert_array_equal(picture, frames[number - 1][1], err_msg=f"{path.name} frame {number}")


@pytest.mark.parametrize(("name", "hidden"), [("closed.mp4", 0), ("edit_list.mp4", 5), ("h264.avi", 0)])
def test_frame_n_shows_number_n(name: str, hidden: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, KINDS[name])
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
