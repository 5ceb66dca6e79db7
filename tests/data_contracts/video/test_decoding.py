"""Packets that show no frame or two: the index has the frames of the decoder, and says how it found them."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from data_contracts.video.packets import index_video
from tests.compare_with_ffmpeg import compare
from tests.video_factory import VideoSpec, decode_all, write_video
from tests.video_kinds import REALTIME
from tests.video_streams import encode_with_program

HIDDEN_FRAMES = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "4"}


def remux(source: Path, target: Path, change: Callable[[list[bytes]], list[bytes]]) -> Path:
    """Replace the packets of an MPEG-4 video, in decoding order, by those that ``change`` returns, one per 1/25 s."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        keyframes = [packet.is_keyframe for packet in packets]
        for number, data in enumerate(change([bytes(packet) for packet in packets])):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base = Fraction(1, 25)
            packet.is_keyframe = number < len(keyframes) and keyframes[number]
            new.mux(packet)
    return target


def not_coded(picture: bytes) -> bytes:
    """Return an MPEG-4 picture without content at the time of another one (25 per second: five bits of time)."""
    at = picture.index(b"\x00\x00\x01\xb6") + 4
    bits = f"{int.from_bytes(picture[at : at + 4]):032b}"
    seconds = bits.index("0", 2) + 1
    header = "01" + bits[2 : seconds + 1 + 5 + 1] + "0"
    header += "0" + "1" * (-len(header) - 1 & 7)
    return b"\x00\x00\x01\xb6" + int(header, 2).to_bytes(len(header) // 8)


def with_not_coded_pictures(packets: list[bytes]) -> list[bytes]:
    return [not_coded(data) if number % 10 == 7 else data for number, data in enumerate(packets)]


def packed(packets: list[bytes]) -> list[bytes]:
    """Put each B-picture into the packet before it, and a picture without content in its place, as DivX does."""
    found, kinds = list(packets), [data[data.index(b"\x00\x00\x01\xb6") + 4] >> 6 for data in packets]
    for number, (before, kind) in enumerate(pairwise(kinds), start=1):
        if kind == 2 and before != 2:
            found[number - 1], found[number] = packets[number - 1] + packets[number], not_coded(packets[number])
    return [b"\x00\x00\x01\xb2DivX503b1393p" + found[0], *found[1:]]


def write_mpeg4(path: Path, *, b_frames: int, change: Callable[[list[bytes]], list[bytes]]) -> Path:
    spec = VideoSpec(codec="mpeg4", b_frames=b_frames, frame_count=60)
    return remux(write_video(path.with_suffix(".source.avi"), spec), path, change)


def test_hidden_frames_of_vp8_are_not_counted(tmp_path: Path) -> None:
    """The file has each keyframe twice; the first is hidden."""
    shown = write_video(tmp_path / "shown.webm", VideoSpec(codec="libvpx", b_frames=0, codec_options=REALTIME))
    path = tmp_path / "hidden.webm"
    with av.open(str(shown)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in (packet for packet in old.demux(video=0) if packet.size):
            packet.stream = stream
            if packet.is_keyframe:
                hidden = av.Packet(bytes([bytes(packet)[0] & ~16]) + bytes(packet)[1:])
                hidden.stream, hidden.pts, hidden.dts = stream, packet.pts, packet.dts
                hidden.time_base, hidden.is_keyframe = packet.time_base, True
                new.mux(hidden)
            new.mux(packet)
    result = compare(path)
    assert result.agrees and (result.packets, result.indexed_frames, result.method) == (44, 40, "packets"), result


def test_hidden_frames_of_vp9_are_not_counted(tmp_path: Path) -> None:
    spec = VideoSpec(codec="libvpx-vp9", frame_count=70, gop_frames=250, b_frames=0, codec_options=HIDDEN_FRAMES)
    result = compare(write_video(tmp_path / "hidden.webm", spec))
    assert result.agrees and (result.indexed_frames, result.method) == (70, "packets"), result


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_pictures_that_are_not_coded_are_not_counted(suffix: str, tmp_path: Path) -> None:
    path = write_mpeg4(tmp_path / f"dropped.{suffix}", b_frames=0, change=with_not_coded_pictures)
    result = compare(path)
    assert result.agrees and (result.packets, result.indexed_frames, result.method) == (60, 54, "decoding"), result


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_two_pictures_in_a_packet_are_counted(suffix: str, tmp_path: Path) -> None:
    result = compare(write_mpeg4(tmp_path / f"packed.{suffix}", b_frames=1, change=packed))
    assert result.agrees and result.method == "decoding", result


def test_an_index_by_decoding_equals_that_of_packets(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    by_packets, by_decoding = index_video(path), index_video(path, decode=True)
    assert (by_packets.method, by_decoding.method) == ("packets", "decoding")
    assert by_decoding.has_equal_frames(by_packets) and by_decoding.equals_packets
    assert by_decoding.pts.tolist() == [pts for pts, _ in decode_all(path)]
    np.testing.assert_allclose(by_decoding.pts_seconds, np.arange(40) / 25)


@pytest.mark.parametrize(
    ("name", "options", "starts"),
    [
        ("verified.wmv", ("-c:v", "wmv2", "-g", "30"), [1, 31, 61]),
        ("verified.mov", ("-c:v", "qtrle", "-pix_fmt", "rgb24", "-g", "30"), [1, 31, 61]),
        ("palette.mov", ("-c:v", "qtrle", "-pix_fmt", "gray", "-g", "30"), [1]),
    ],
)
def test_doubtful_keyframes_are_starts_if_they_give_the_same_pixels(
    name: str, options: tuple[str, ...], starts: list[int], tmp_path: Path
) -> None:
    """The palette of QuickTime RLE comes once, with the first packet."""
    path = encode_with_program(tmp_path / name, *options, frame_count=80)
    index = index_video(path)
    assert (index.method, index.frame_count) == ("decoding", 80)
    assert (np.flatnonzero(index.keyframe) + 1).tolist()[:3] == starts
    assert index.equals_packets == (len(starts) > 1)
    assert compare(path, segment_frames=(16,)).agrees
