"""Inspection of packets: the frames that they show, and the packets at which decoding can start."""

from pathlib import Path

import pytest
from av.packet import Packet

from data_contracts.video.container import is_flush, open_video
from data_contracts.video.packet_inspection.inspector import Inspection
from data_contracts.video.packet_inspection.registry import inspector_for
from tests.video_factory import decode_all
from tests.video_kinds import write_kind


def inspect_all(path: Path) -> list[tuple[bool, Inspection]]:
    """Return the keyframe flag of each packet, and the result of its inspector."""
    with open_video(path) as (container, stream):
        codec = stream.codec_context
        inspector = inspector_for(codec.codec.canonical_name, codec.extradata, codec.pix_fmt)
        assert inspector is not None
        packets = (packet for packet in container.demux(stream) if packet.size and not is_flush(packet))
        return [(packet.is_keyframe, inspector.inspect(packet)) for packet in packets]


@pytest.mark.parametrize(
    "name",
    [
        *("closed.mp4", "open.mkv", "fragments.mp4", "broadcast.ts", "hevc.mp4", "hevc_leading.mp4", "mpeg4.avi"),
        *("mpeg1.mpg", "mpeg2.mpg", "mjpeg.avi", "grey.mkv", "vp9.webm", "altref_vp8.webm", "open_av1.mkv"),
    ],
)
def test_shown_frames_are_those_of_the_decoder(name: str, tmp_path: Path) -> None:
    path = write_kind(name, tmp_path)
    found = inspect_all(path)
    assert sum(one.shown or 0 for _, one in found) == len(decode_all(path))
    assert all(one.shown in (0, 1) for _, one in found)
    assert all(one.is_entry for is_keyframe, one in found if is_keyframe)


@pytest.mark.parametrize(
    "name",
    [
        "paff.mp4",
        "interlaced.mp4",
        "mpeg2_fields.mkv",
        "layers_vp9.webm",
        "packed.avi",
        "not_coded.mp4",
        "new_size.hevc",
    ],
)
def test_other_packets_are_unknown(name: str, tmp_path: Path) -> None:
    found = inspect_all(write_kind(name, tmp_path))
    assert any(one.shown is None for _, one in found)


@pytest.mark.parametrize("name", ["intra_refresh.mp4", "new_headers.flv", "turned_by_sei.mp4"])
def test_keyframes_that_need_earlier_packets_are_not_entries(name: str, tmp_path: Path) -> None:
    found = inspect_all(write_kind(name, tmp_path))
    assert found[0][1].is_entry
    assert any(is_keyframe and not one.is_entry for is_keyframe, one in found)


def test_codecs_without_inspector_are_unknown() -> None:
    assert inspector_for("qtrle", None, "rgb24") is None
    assert inspector_for("rawvideo", None, "pal8") is None
    assert inspector_for("rawvideo", None, "yuv420p") is not None


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "vp9", "av1"])
def test_damaged_headers_are_unknown(codec: str) -> None:
    assert inspector_for(codec, b"\x01\x64", None) is None or codec in ("mpeg4", "vp9", "av1")


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg2video", "mpeg4", "vp8", "vp9", "av1", "mjpeg"])
def test_damaged_packets_are_unknown_or_show_a_frame(codec: str) -> None:
    inspector = inspector_for(codec, None, None)
    assert inspector is not None
    for data in (
        b"\0",
        b"\0\0\1",
        b"\0\0\1\xb5",
        b"\0\0\1\xb5\x80",
        b"\0\0\1\x67\x64",
        b"\xff\xd8\xff\xda",
        b"\xc0" * 9,
    ):
        assert inspector.inspect(Packet(data)).shown in (None, 0, 1)
