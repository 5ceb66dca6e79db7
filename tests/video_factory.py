"""Small real videos whose frames say their own number, encoded with PyAV for the tests of any package.

Every frame is a grid of 4 x 4 black or white blocks: the frame number in binary. A test that reads the number
from the decoded pixels proves which frame it holds, whatever the container and the decoder claim.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.context import ThreadType
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import ExifTags, Image

GRID = 4
TICKS_PER_SECOND = 12_800


@dataclass(frozen=True)
class VideoSpec:
    """What to encode.

    ``tick`` gives each frame's presentation time in 1/12800 s (None: constant frame rate); ``shift_ticks``
    moves all time stamps when muxing, so that a negative value makes an edit list that hides the first
    frames. ``drop_packets`` leaves out packets, counted from 0 in decode order. ``mirrored`` exchanges left and right
    after the rotation; ``display_matrix`` (nine integers) states more than both. ``aspect`` is a pixel's width divided
    by its height. ``picture`` of the size of the frames is shown instead of numbers.
    """

    frame_count: int = 40
    codec: str = "libx264"
    width_px: int = 96
    height_px: int = 64
    fps: int = 25
    gop_frames: int = 12
    b_frames: int = 2
    pixel_format: str = "yuv420p"
    codec_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    tick: Sequence[int] | None = None
    shift_ticks: int = 0
    rotation_degrees_ccw: float = 0
    mirrored: bool = False
    display_matrix: Sequence[int] | None = None
    aspect: Fraction | None = None
    picture: NDArray[np.uint8] | None = None
    drop_packets: frozenset[int] = frozenset()


def numbered_picture(number: int, *, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Picture of a number below 65536, uint8 ``[height, width, 3]``: 16 blocks, highest bit first."""
    bits = [(number >> shift) & 1 for shift in range(GRID * GRID - 1, -1, -1)]
    rows = np.arange(height_px) * GRID // height_px
    columns = np.arange(width_px) * GRID // width_px
    grid = np.array(bits, dtype=np.uint8).reshape(GRID, GRID) * 255
    return np.repeat(grid[rows[:, None], columns[None, :], None], 3, axis=2)


def read_number(rgb: NDArray[np.uint8]) -> int:
    """The number that a decoded picture ``[height, width, 3]`` shows.

    Raises:
        ValueError: a block is neither black nor white: not a picture of ours, or badly damaged.
    """
    height_px, width_px = rgb.shape[:2]
    number = 0
    for row in range(GRID):
        for column in range(GRID):
            centre = rgb[(2 * row + 1) * height_px // (2 * GRID), (2 * column + 1) * width_px // (2 * GRID)]
            level = float(centre.mean())
            if 96 < level < 160:
                raise ValueError(f"expected a black or white block at {row}, {column}, got level {level:.0f}")
            number = number * 2 + (level > 128)
    return number


def write_video(path: Path, spec: VideoSpec | None = None, *, first_number: int = 1) -> Path:
    """Encode frames ``first_number``, ``first_number + 1``, ... to ``path`` (container by suffix)."""
    spec = spec or VideoSpec()
    with av.open(str(path), "w", options=dict(spec.container_options)) as container:
        stream = container.add_stream(spec.codec, rate=spec.fps, options=_codec_options(spec))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = spec.width_px, spec.height_px, spec.pixel_format
        stream.codec_context.gop_size = spec.gop_frames
        stream.codec_context.max_b_frames = spec.b_frames
        stream.codec_context.thread_count = 1
        if spec.tick is not None:
            stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
        if spec.rotation_degrees_ccw or spec.mirrored:
            stream.set_display_rotation(spec.rotation_degrees_ccw, hflip=spec.mirrored)
        if spec.display_matrix is not None:
            stream.set_display_matrix(spec.display_matrix)
        if spec.aspect is not None:
            stream.codec_context.sample_aspect_ratio = spec.aspect
        keep = _packet_filter(spec)
        for index in range(spec.frame_count):
            for packet in stream.encode(_frame(spec, index, first_number)):
                keep(container.mux, packet)
        for packet in stream.encode(None):
            keep(container.mux, packet)
    return path


def write_huge_picture(path: Path) -> Path:
    """A grey picture of 8200 x 8100 pixels as a video of one frame, some 100 kB (``.mov``): above the usual limit."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 8200, 8100, "gray"
        for packet in (*stream.encode(av.VideoFrame(8200, 8100, "gray")), *stream.encode(None)):
            container.mux(packet)
    return path


def write_jpeg_video(path: Path, *, orientations: Sequence[int | None]) -> Path:
    """Write a video of JPEG files with an EXIF orientation each (None: without EXIF data)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number, orientation in enumerate(orientations):
            exif, file = Image.Exif(), io.BytesIO()
            if orientation is not None:
                exif[ExifTags.Base.Orientation] = orientation
            picture = numbered_picture(0b1011_0000_0010_0001, width_px=96, height_px=64)
            Image.fromarray(picture).save(file, "JPEG", exif=exif)
            packet: Packet[Any] = Packet(file.getvalue())
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
            packet.pts = packet.dts = number
            container.mux(packet)
    return path


def decode_all(path: Path) -> list[tuple[int | None, NDArray[np.uint8]]]:
    """Every frame that a plain decode from the beginning gives out: time stamp and upright RGB picture. The judge."""
    frames: list[tuple[int | None, NDArray[np.uint8]]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = ThreadType.NONE
        for packet in container.demux(stream):
            with suppress(av.error.InvalidDataError):
                for frame in packet.decode():
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    frames.append((frame.pts, upright))
    return frames


def cut_file(source: Path, target: Path, *, fraction: float) -> Path:
    """The first part of a file, as an interrupted copy leaves it."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


def filter_packets(source: Path, target: Path, bitstream_filter: str) -> Path:
    """Copy the packets of a video through a bitstream filter of FFmpeg."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        template = old.streams.video[0]
        stream = new.add_stream_from_template(template)
        packet_filter = BitStreamFilterContext(bitstream_filter, template, stream)
        for packet in old.demux(template):
            for filtered in packet_filter.filter(packet if packet.size else None):
                filtered.stream = stream
                new.mux(filtered)
    return target


def join_files(target: Path, *sources: Path) -> Path:
    """Concatenate the bytes of files (MPEG-TS)."""
    target.write_bytes(b"".join(source.read_bytes() for source in sources))
    return target


def hide_sides(source: Path, target: Path, *, sides_px: tuple[int, int, int, int]) -> Path:
    """Copy a Matroska file of at most 127 x 127 px and hide pixels left, top, right and below (``PixelCrop...``)."""
    # The elements Video (width, height, unit), MaxBlockAdditionID and Void; the new ones have the same size.
    elements = rb"\xe0\x8a(\xb0\x81.\xba\x81.)\x54\xb2\x81\x04\x55\xee\x81\0\xec\x01\0{6}\x02\0\0"
    found = re.search(elements, source.read_bytes(), re.DOTALL)
    assert found, "expected the elements that FFmpeg writes"
    hidden = "54cc81{:02x}54bb81{:02x}54dd81{:02x}54aa81{:02x}".format(*sides_px)
    video = b"\xe0\x96" + found[1] + bytes.fromhex(hidden) + b"\xec\x81\0"
    target.write_bytes(found.string[: found.start()] + video + found.string[found.end() :])
    return target


def _codec_options(spec: VideoSpec) -> dict[str, str]:
    options = dict(spec.codec_options)
    if spec.codec == "libx264":
        options = {"preset": "veryfast", "crf": "20", "sc_threshold": "0", **options}
    elif spec.codec == "libx265":
        fixed = "scenecut=0:pools=none:frame-threads=1:log-level=none"
        fixed = f"keyint={spec.gop_frames}:bframes={spec.b_frames}:{fixed}"
        extra = options.pop("x265-params", "")
        options = {"preset": "ultrafast", "x265-params": f"{fixed}:{extra}".rstrip(":"), **options}
    return options


def _frame(spec: VideoSpec, index: int, first_number: int) -> av.VideoFrame:
    picture = spec.picture
    if picture is None:
        picture = numbered_picture(first_number + index, width_px=spec.width_px, height_px=spec.height_px)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    if spec.tick is None:
        frame.pts, frame.time_base = index, Fraction(1, spec.fps)
    else:
        frame.pts, frame.time_base = spec.tick[index], Fraction(1, TICKS_PER_SECOND)
    return frame


def _packet_filter(spec: VideoSpec) -> Callable[[Callable[[Packet[Any]], None], Packet[Any]], None]:
    seen = iter(range(1 << 30))

    def keep(mux: Callable[[Packet[Any]], None], packet: Packet[Any]) -> None:
        shift = round(Fraction(spec.shift_ticks, TICKS_PER_SECOND) / packet.time_base)
        if packet.pts is not None:
            packet.pts += shift
        if packet.dts is not None:
            packet.dts += shift
        if next(seen) not in spec.drop_packets:
            mux(packet)

    return keep
