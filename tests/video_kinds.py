"""Kinds of video files that the tests and ``compare_with_ffmpeg`` share, each a few kilobytes and quick to write.

The name of a kind is a file name; its suffix selects the container.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.video_factory import TICKS_PER_SECOND, VideoSpec, write_video

HOUR_TICKS = 3600 * TICKS_PER_SECOND
UNEVEN_TICKS = [tick + place for place, tick in enumerate(np.cumsum(np.tile([0, 256, 512, 1024, 3000], 8)).tolist())]
OPEN_GOP = {"x264-params": "open-gop=1"}
REALTIME = {"deadline": "realtime", "cpu-used": "8"}

# Writes a file of its kind to a path.
Writer = Callable[[Path], object]

PLAIN_KINDS = {
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
    "vp9.webm": VideoSpec(codec="libvpx-vp9", b_frames=0, codec_options=REALTIME),
    "grey.mkv": VideoSpec(codec="ffv1", pixel_format="gray", b_frames=0),
    "interlaced.mp4": VideoSpec(codec_options={"x264-params": "tff=1"}),
    "interlaced.mpg": VideoSpec(codec="mpeg2video", codec_options={"flags": "+ilme+ildct"}),
    "jump_of_an_hour.mp4": VideoSpec(tick=[*range(0, 20 * 512, 512), *range(HOUR_TICKS, HOUR_TICKS + 20 * 512, 512)]),
    "jump_of_an_hour.mkv": VideoSpec(tick=[*range(0, 20 * 512, 512), *range(HOUR_TICKS, HOUR_TICKS + 20 * 512, 512)]),
    "rotated_180.mp4": VideoSpec(rotation_degrees_ccw=180),
    "rotated_270.mov": VideoSpec(rotation_degrees_ccw=270),
    "ten_bit_hevc.mkv": VideoSpec(codec="libx265", pixel_format="yuv420p10le", b_frames=3),
    "odd.avi": VideoSpec(codec="mjpeg", b_frames=0, pixel_format="yuvj444p", width_px=97, height_px=65),
    "uneven.mkv": VideoSpec(tick=np.cumsum(np.tile([512, 100, 900, 3000], 10)).tolist()),
    "elementary.h264": VideoSpec(b_frames=0),
}


def _of_spec(spec: VideoSpec) -> Writer:
    return lambda path: write_video(path, spec)


KINDS: dict[str, Writer] = {name: _of_spec(spec) for name, spec in PLAIN_KINDS.items()}


def write_kind(name: str, folder: Path) -> Path:
    """Write the file of a kind into a folder, unless it exists there."""
    path = folder / name
    if not path.exists():
        KINDS[name](path)
    return path
