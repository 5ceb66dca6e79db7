"""Inspection of packets that are cut or damaged."""

from pathlib import Path

import av
import numpy as np
import pytest

from data_contracts.video.inspectors import inspector_for
from tests.video_factory import VideoSpec, write_video
from tests.video_kinds import REALTIME
from tests.video_streams import packets_of

SPECS = {
    "h264.mp4": VideoSpec(),
    "h264.h264": VideoSpec(),
    "hevc.mp4": VideoSpec(codec="libx265"),
    "hevc.hevc": VideoSpec(codec="libx265"),
    "mpeg2.m2v": VideoSpec(codec="mpeg2video"),
    "mpeg4.avi": VideoSpec(codec="mpeg4"),
    "vp8.webm": VideoSpec(codec="libvpx", b_frames=0, codec_options=REALTIME),
    "vp9.webm": VideoSpec(codec="libvpx-vp9", b_frames=0, codec_options=REALTIME),
    "av1.mp4": VideoSpec(codec="libsvtav1", b_frames=0, codec_options={"preset": "12", "svtav1-params": "lp=1"}),
}


@pytest.mark.parametrize("name", SPECS)
def test_cut_and_damaged_packets_raise_nothing(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, SPECS[name])
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        inspector = inspector_for(codec.codec.canonical_name, codec.extradata, codec.pix_fmt)
        if inspector is None:
            return
    random = np.random.default_rng(0)
    for data, _ in packets_of(path)[:3]:
        for size in range(1, min(len(data), 120)):
            inspector.inspect(av.Packet(data[:size]))
            noise = random.integers(0, 256, size, dtype=np.uint8).tobytes()
            inspector.inspect(av.Packet(data[: size // 2] + noise))
