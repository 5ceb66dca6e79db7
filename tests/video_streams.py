"""Bitstreams that no encoder at hand writes: field pictures, packed and not-coded frames, layers, palettes.

Each function writes a file. Pictures say their own number, as those of ``video_factory``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
from av.packet import Packet

from tests.video_factory import VideoSpec, numbered_picture, write_video

FRAMES_PER_SECOND = 25


def run_program(*arguments: str | Path, data: bytes | None = None) -> None:
    """Run the ffmpeg program with reproducible output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-threads", "1", *map(str, arguments)]
    subprocess.run(command, input=data, stdin=None if data else subprocess.DEVNULL, check=True)


def encode_with_program(
    path: Path,
    *options: str,
    frame_count: int = 40,
    width_px: int = 96,
    height_px: int = 64,
    first_number: int = 1,
    picture: Callable[..., Any] = numbered_picture,
) -> Path:
    """Encode numbered pictures with the ffmpeg program, 25 per second."""
    numbers = range(first_number, first_number + frame_count)
    raw = b"".join(picture(n, width_px=width_px, height_px=height_px).tobytes() for n in numbers)
    size = f"{width_px}x{height_px}"
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(FRAMES_PER_SECOND), "-i", "-")
    run_program(*source, *options, path, data=raw)
    return path


def remux(source: Path, path: Path, *options: str, before: Sequence[str] = ()) -> Path:
    """Copy the streams of a file with the ffmpeg program."""
    run_program(*before, "-i", source, "-map", "0", "-c", "copy", *options, path)
    return path


def coloured_picture(number: int, *, width_px: int, height_px: int) -> Any:
    """A numbered picture whose white is tinted by the number, with few colours: for palettes."""
    picture = numbered_picture(number, width_px=width_px, height_px=height_px)
    tint = np.array([255, 160 + number % 4 * 30, 255 - number % 3 * 40], dtype=np.uint8)
    return np.minimum(picture, tint)


class Bits:
    """Bits of a header, highest first."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def u(self, value: int, size: int) -> Bits:
        """Append an unsigned number of a fixed size."""
        self._bits.append(f"{value:0{size}b}" if size else "")
        return self

    def ue(self, *values: int) -> Bits:
        """Append Exp-Golomb codes."""
        for value in values:
            code = f"{value + 1:b}"
            self._bits.append("0" * (len(code) - 1) + code)
        return self

    def align(self, fill: str = "0") -> Bits:
        """Fill up the last byte."""
        size = sum(map(len, self._bits))
        self._bits.append(fill * (-size % 8))
        return self

    def raw(self, data: bytes) -> Bits:
        """Append whole bytes."""
        self._bits.append("".join(f"{byte:08b}" for byte in data))
        return self

    def stop(self) -> Bits:
        """Append a stop bit and fill up the last byte."""
        return self.u(1, 1).align()

    def bytes(self) -> bytes:
        """The bits as bytes."""
        text = "".join(self._bits)
        return int(text, 2).to_bytes(len(text) // 8)


def _nal(header: int, bits: Bits) -> bytes:
    escaped, zeros = bytearray(), 0
    for byte in bits.bytes():
        if zeros >= 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes([header]) + bytes(escaped)


def h264_fields(frame_count: int = 40, *, gop_frames: int = 10) -> list[list[bytes]]:
    """The two field pictures (PAFF) of each frame of 48 x 32 pixels, as H.264 access units.

    The first field holds uncompressed macroblocks; the second skips all of its own, so that it repeats the first.
    """
    macroblocks = 3
    sps = Bits().u(77, 8).u(0, 8).u(10, 8).ue(0, 0, 2, 1).u(0, 1).ue(macroblocks - 1, 0)
    sps.u(0, 1).u(0, 1).u(1, 1).u(0, 1).u(0, 1).stop()  # frame_mbs_only_flag = 0, no MBAFF
    pps = Bits().ue(0, 0).u(0, 2).ue(0, 0, 0).u(0, 3).ue(0, 0, 0).u(1, 1).u(0, 2).stop()
    frames = []
    for index in range(frame_count):
        picture = numbered_picture(index + 1, width_px=48, height_px=32)[::2, :, 0] * (219 / 255) + 16
        is_idr, frame_number = index % gop_frames == 0, index % gop_frames % 16
        fields = []
        for bottom in (0, 1):
            is_intra = is_idr and not bottom
            bits = Bits().ue(0, 7 if is_intra else 5, 0).u(frame_number, 4).u(1, 1).u(bottom, 1)
            if is_intra:
                bits.ue(index // gop_frames % 2)
            else:
                bits.u(0, 1).u(0, 1)  # default number of references, no reordering
            bits.u(0, 2 if is_intra else 1)
            bits.ue(0).ue(1)  # slice_qp_delta, no deblocking
            if bottom:
                bits.ue(macroblocks)  # all skipped
            for column in range(0 if bottom else macroblocks):
                if not is_intra:
                    bits.ue(0)
                bits.ue(25 if is_intra else 30).align()
                block = picture[:, 16 * column : 16 * column + 16].astype(np.uint8)
                bits.raw(block.tobytes() + bytes([128]) * 128)
            unit = _nal(0x65 if is_intra else 0x41, bits.stop())
            if is_idr and not bottom:
                unit = _nal(0x67, sps) + _nal(0x68, pps) + unit
            fields.append(b"\0\0\0\1\x09\xf0" + unit)
        frames.append(fields)
    return frames


def write_packets(
    path: Path,
    elementary: Path,
    packets: Iterable[tuple[bytes, Fraction | None, Fraction, bool]],
) -> Path:
    """Mux packets: data, presentation time in seconds or None, decoding time in seconds, keyframe.

    ``elementary`` is a file with one stream of the same codec and size.
    """
    with av.open(str(elementary)) as template, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(template.streams.video[0])
        stream.time_base = Fraction(1, 90_000)
        for data, presentation, decoding, is_keyframe in packets:
            packet: Packet[Any] = Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 90_000), is_keyframe
            packet.pts = None if presentation is None else round(presentation * 90_000)
            packet.dts = round(decoding * 90_000)
            container.mux(packet)
    return path


def even_times(units: Iterable[tuple[bytes, bool]]) -> Iterator[tuple[bytes, Fraction, Fraction, bool]]:
    """Give packets times for ``write_packets``, 25 per second; decoding order is display order."""
    for number, (unit, is_keyframe) in enumerate(units):
        seconds = Fraction(number, FRAMES_PER_SECOND)
        yield unit, seconds, seconds, is_keyframe


def write_swapped_times(path: Path, *, frame: int = 90) -> Path:
    """300 frames in MP4. Two of them, far from any keyframe, have each other's time stamps."""
    source = write_video(path.with_suffix(".source.mp4"), VideoSpec(300, gop_frames=60, b_frames=0))
    order = list(range(300))
    order[frame - 1 : frame + 1] = reversed(order[frame - 1 : frame + 1])
    units = [
        (unit, Fraction(place + 2, FRAMES_PER_SECOND), Fraction(number, FRAMES_PER_SECOND), is_keyframe)
        for number, (place, (unit, is_keyframe)) in enumerate(zip(order, packets_of(source), strict=True))
    ]
    return write_packets(path, source, units)


def write_packed_mpeg4(path: Path, *, b_frames: int = 1) -> Path:
    """The first B-frame shares a packet with the frame after it; an empty frame follows the last B-frame (DivX)."""
    plain = write_video(path.with_name(f"{path.stem}.plain.avi"), VideoSpec(41, codec="mpeg4", b_frames=b_frames))
    units = packets_of(plain)
    packed: list[tuple[bytes, bool]] = []
    while units:
        unit, is_keyframe = units.pop(0)
        b_units = []
        while units and _vop_type(units[0][0]) == _B_VOP:
            b_units.append(units.pop(0))
        packed.append((unit + b"".join(b_unit for b_unit, _ in b_units[:1]), is_keyframe))
        packed += [*b_units[1:], *[(_not_coded(unit), False)] * bool(b_units)]
    head, is_keyframe = packed[0]
    at = head.index(_VOP)
    packed[0] = (head[:at] + b"\0\0\1\xb2DivX503b1393p" + head[at:], is_keyframe)
    write_packets(path, plain, even_times(packed))
    plain.unlink()
    return path


def write_not_coded_mpeg4(path: Path) -> Path:
    """MPEG-4 where every fifth frame is an empty one that is not coded (N-VOP)."""
    plain = write_video(path.with_name(f"{path.stem}.plain.avi"), VideoSpec(codec="mpeg4", b_frames=0))
    units = [(_not_coded(u) if n % 5 == 3 and not k else u, k) for n, (u, k) in enumerate(packets_of(plain))]
    write_packets(path, plain, even_times(units))
    plain.unlink()
    return path


_SEQUENCE = b"\0\0\1\xb3"
_B_VOP = 2
_VOP = b"\0\0\1\xb6"


def packets_of(path: Path) -> list[tuple[bytes, bool]]:
    """Return the data and the keyframe flag of each packet."""
    with av.open(str(path)) as container:
        return [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]


def _vop_type(unit: bytes) -> int:
    return unit[unit.index(_VOP) + 4] >> 6


def _not_coded(unit: bytes) -> bytes:
    """An empty frame with the time of a coded one: ``vop_coded`` is 0 after the time."""
    at = unit.index(_VOP) + 4
    bits = "".join(f"{byte:08b}" for byte in unit[at : at + 8])
    seconds = bits.index("0", 2)  # modulo_time_base ends with 0
    time_bits = (FRAMES_PER_SECOND - 1).bit_length()
    head = "01" + bits[2 : seconds + 3 + time_bits] + "0"  # type P, time between markers, not coded
    head += "0" + "1" * ((-len(head) - 1) % 8)
    return _VOP + int(head, 2).to_bytes(len(head) // 8)


def mpeg2_fields(folder: Path) -> list[list[bytes]]:
    """The two field pictures of each frame, in MPEG-2: intra pictures of half the height with rewritten headers."""
    halves = folder / "halves.m2v"
    encode_with_program(halves, "-c:v", "mpeg2video", "-g", "1", "-q:v", "4", "-vf", "scale=96:32")
    frames = []
    for picture in halves.read_bytes().split(_SEQUENCE)[1:]:
        unit = bytearray(_SEQUENCE + picture)
        unit[6] = 64  # height
        unit[unit.index(b"\0\0\1\xb5\x14") + 5] &= ~0x08  # progressive_sequence
        at = unit.index(b"\0\0\1\0")
        fields = []
        for structure in (1, 2):
            field = unit[at:]
            coding = field.index(b"\0\0\1\xb5\x8f")
            field[coding + 6] = field[coding + 6] & 0xFC | structure
            field[coding + 7] &= 0x3F  # top_field_first, frame_pred_frame_dct
            field[coding + 8] &= 0x7F  # progressive_frame
            fields.append(bytes((unit[:at] if structure == 1 else b"") + field))
        frames.append(fields)
    halves.unlink()
    return frames


def write_fields(path: Path, frames: list[list[bytes]], *, pairs: bool, gop_frames: int = 10) -> Path:
    """Mux field pictures, one frame per packet or one field per packet, with a time for each packet."""
    elementary = path.with_name(f"{path.stem}.elementary")
    elementary.write_bytes(b"".join(b"".join(fields) for fields in frames))

    def packets() -> Iterator[tuple[bytes, Fraction | None, Fraction, bool]]:
        for index, fields in enumerate(frames):
            for field, unit in enumerate([b"".join(fields)] if pairs else fields):
                seconds = Fraction(2 * index + field, 2 * FRAMES_PER_SECOND)
                yield unit, seconds, seconds, index % gop_frames == 0 and not field

    write_packets(path, elementary, packets())
    elementary.unlink()
    return path


def write_vp9_layers(path: Path) -> Path:
    """Two spatial layers in each packet (a superframe), both shown, each frame a keyframe."""
    options = ("-c:v", "libvpx-vp9", "-g", "1", "-deadline", "realtime", "-cpu-used", "8")
    small = encode_with_program(path.with_name("small.ivf"), "-vf", "scale=48:32", *options)
    large = encode_with_program(path.with_name("large.ivf"), *options)
    units = []
    for (low, _), (high, _) in zip(packets_of(small), packets_of(large), strict=True):
        marker = bytes([0b110_01_001])  # two frames whose sizes take two bytes each
        sizes = len(low).to_bytes(2, "little") + len(high).to_bytes(2, "little")
        units.append((low + high + marker + sizes + marker, True))
    write_packets(path, large, even_times(units))
    small.unlink()
    large.unlink()
    return path


def write_mjpeg_fields(path: Path) -> Path:
    """Motion JPEG with two pictures of half the height, one per field, in each packet."""
    options = ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj422p")
    half = encode_with_program(path.with_name("half.avi"), "-vf", "scale=96:32", *options)
    full = encode_with_program(path.with_name("full.avi"), *options)

    def field(picture: bytes, polarity: int) -> bytes:
        size = (len(picture) + 18).to_bytes(4)
        return picture[:2] + b"\xff\xe0\0\x10AVI1" + bytes([polarity, 0]) + size * 2 + picture[2:]

    write_packets(path, full, even_times([(field(u, 1) + field(u, 2), True) for u, _ in packets_of(half)]))
    half.unlink()
    full.unlink()
    return path


def _nal_units(unit: bytes) -> list[bytes]:
    return [b"\0\0\0\1" + part for part in re.split(b"\0\0\0?\1", unit) if part]


def _is_slice(nal_unit: bytes) -> bool:
    return nal_unit[4] & 0x1F in (1, 5)


def _write_apart(path: Path, spec: VideoSpec, split: Callable[[bytes], tuple[bytes, bytes]]) -> Path:
    """Put parts of each frame of an elementary stream into packets of their own, a millisecond after the first part."""
    elementary = path.with_name(f"{path.stem}.{'hevc' if spec.codec == 'libx265' else 'h264'}")
    write_video(elementary, spec)

    def packets() -> Iterator[tuple[bytes, Fraction, Fraction, bool]]:
        for number, (unit, is_keyframe) in enumerate(packets_of(elementary)):
            for place, part in enumerate(filter(None, split(unit))):
                seconds = Fraction(number, FRAMES_PER_SECOND) + Fraction(place, 1000)
                yield part, seconds, seconds, is_keyframe and place == 0

    write_packets(path, elementary, packets())
    elementary.unlink()
    return path


def write_headers_alone(path: Path) -> Path:
    """H.264 whose parameter sets are packets of their own, as recorders of network streams write them."""

    def split(unit: bytes) -> tuple[bytes, bytes]:
        parts = _nal_units(unit)
        return b"".join(p for p in parts if not _is_slice(p)), b"".join(filter(_is_slice, parts))

    return _write_apart(path, VideoSpec(b_frames=0), split)


def write_svc(path: Path) -> Path:
    """H.264 with a layer that decoders of plain H.264 ignore (SVC), in packets of its own."""

    def split(unit: bytes) -> tuple[bytes, bytes]:
        layer = [b"\0\0\0\1\x74\x80\x10\x07" + p[5:] for p in _nal_units(unit) if _is_slice(p)]
        return unit, b"".join(layer)

    return _write_apart(path, VideoSpec(b_frames=0), split)


def write_hevc_layers(path: Path) -> Path:
    """HEVC with a second layer that plain decoders ignore (views, alpha), in packets of its own."""

    def split(unit: bytes) -> tuple[bytes, bytes]:
        slices = [p for p in _nal_units(unit) if p[4] >> 1 & 0x3F < 32]
        return unit, b"".join(p[:5] + bytes([p[5] & 0x07 | 1 << 3]) + p[6:] for p in slices)

    return _write_apart(path, VideoSpec(codec="libx265", b_frames=0), split)
