"""How decoded frames are displayed: cropped, scaled to square pixels, mirrored and rotated.

The container states a crop. The container or the decoder states the pixel aspect ratio. A frame's display matrix, which
the decoder copies from the container or from SEI messages, determines its orientation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_contracts.video.limits import max_pixels

PixelFormat = Literal["rgb24", "yuv420p"]
# Value of ``AVColorSpace``.
_UNSPECIFIED = 2
# Aspect ratios of pixels up to 4 exist. A file with one above 10, or below its inverse, has a damaged header.
_MAX_ASPECT = 10
# A smaller distortion cannot be seen, and scaling would blur the frame.
_ASPECT_TOLERANCE = 0.01
# FFmpeg also treats angles within one degree as quarter turns.
_ANGLE_TOLERANCE_DEGREES = 1.0
_SCALE_TOLERANCE = 0.01
# These containers state one aspect ratio for all frames. In others, it may change with the headers of the codec.
_WITH_ASPECT = ("mov,mp4", "matroska")
# No real video has fewer pixels; a crop that leaves nothing is damaged.
_MIN_SIDE_PX = 2
# Decoders align the rows of a frame by this, before they crop the left side.
_ALIGNMENT_BYTES = 64
_DUMPED_STREAM = re.compile(r"^ *Stream #\d+:(\d+)", re.MULTILINE)
_DUMPED_CROP = re.compile(r"^ *Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Orientation:
    """One of eight orientations: rows and columns are exchanged first, then columns and rows are reversed."""

    transposed: bool = False
    columns_reversed: bool = False
    rows_reversed: bool = False

    @classmethod
    def of_matrix(cls, matrix: NDArray[np.float64]) -> Orientation:
        """Return the orientation that is nearest to a display matrix ``[2, 2]``; zeros change nothing."""
        (a, b), (c, d) = matrix.tolist()
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The display matrix ``[2, 2]``: the directions of a decoded row and column in the displayed frame."""
        columns, rows = -1.0 if self.columns_reversed else 1.0, -1.0 if self.rows_reversed else 1.0
        return np.array([[0, rows], [columns, 0]] if self.transposed else [[columns, 0], [0, rows]])

    @property
    def is_mirrored(self) -> bool:
        """Whether the displayed frame is a mirror image of the decoded one."""
        return (self.transposed + self.columns_reversed + self.rows_reversed) % 2 == 1

    @property
    def rotation_degrees(self) -> int:
        """Clockwise rotation; left and right of a mirrored frame are exchanged before it."""
        if not self.transposed:
            return 180 if self.rows_reversed else 0
        return 270 if self.rows_reversed != self.is_mirrored else 90

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view of pixels ``[height, width, ...]`` in this orientation."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


@dataclass(frozen=True)
class Crop:
    """Columns and rows of decoded frames that the container hides."""

    left_px: int
    right_px: int
    top_px: int
    bottom_px: int

    def fits(self, frame: VideoFrame) -> bool:
        """Return whether anything is left of a frame."""
        return (
            frame.width - self.left_px - self.right_px >= _MIN_SIDE_PX
            and frame.height - self.top_px - self.bottom_px >= _MIN_SIDE_PX
        )


@dataclass(frozen=True)
class Geometry:
    """How the first frame of a video is displayed.

    ``rotation_degrees``: clockwise. ``transform``: mirroring, crop and pixel aspect ratio, or None if there are none.
    ``problems``: a line for everything that is not displayed as the file states.
    """

    width_px: int
    height_px: int
    rotation_degrees: int
    transform: str | None
    problems: tuple[str, ...]


class Display:
    """Converts decoded frames to displayed frames. The frames must pass through ``follow`` in their order.

    The usual frame, without crop and with square pixels, has the pixels of PyAV's ``to_ndarray``, but all frames share
    one scaler. "Fast" bilinear would give other pixels for 4:4:4, 10 bit and odd sizes.
    """

    def __init__(self, pixel_format: PixelFormat = "rgb24") -> None:
        self._format: PixelFormat = pixel_format
        self._reformatter = VideoReformatter()
        self._filter: _CropAndScale | None = None
        self._matrix: bytes | None = None
        self._orientation = Orientation()
        self._crop: Crop | None = None
        self._aspect: Fraction | None = None
        self._kinds: set[tuple[Orientation, Fraction | None]] = set()

    def start(self, container: InputContainer, stream: VideoStream) -> None:
        """Prepare for the frames of an opened file; call it again for each further file."""
        self._filter, self._matrix, self._orientation = None, None, Orientation()
        self._codec = stream.codec_context
        self._crop = _read_crop(container, stream)
        stated, of_codec = stream.sample_aspect_ratio, self._codec.sample_aspect_ratio
        is_stated = container.format.name.startswith(_WITH_ASPECT) or stated != of_codec
        self._aspect = (stated or Fraction(1)) if is_stated else None

    def follow(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield the frames, and keep the orientation of the current one.

        A frame without a matrix is oriented like the one before: SEI messages accompany some frames only.
        """
        for frame in frames:
            matrix = _read_matrix(frame)
            if matrix is not None and matrix != self._matrix:
                self._matrix, self._orientation = matrix, Orientation.of_matrix(_values(matrix))
            # Only filters know the aspect ratio of a frame; the codec may already have the ratio of a later frame.
            aspect = self._aspect or self._codec.sample_aspect_ratio
            is_square = _is_square(aspect)
            if self._filter is None and (self._crop is not None or not is_square):
                self._filter = _CropAndScale(self._crop, self._aspect, self._format)
            self._kinds.add((self._orientation, None if is_square else aspect))
            yield frame

    def describe_changes(self, transform: str | None) -> str | None:
        """Return the transform of the first frame, and whether it has changed since."""
        if len(self._kinds) <= 1:
            return transform
        return f"{transform}, then others" if transform else "changes"

    def to_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return a view of the current frame as displayed, uint8 ``[height, width, 3]``; the caller must copy it."""
        converted = self._convert_any(frame)
        rgb = plane_of(converted, 0, converted.width * 3).reshape(converted.height, converted.width, 3)
        return self._orientation.apply(rgb)

    def to_planes(self, frame: VideoFrame) -> tuple[VideoFrame, list[NDArray[np.uint8]]]:
        """Return the current frame in 4:2:0, and views of its planes as displayed: luma, and the two of chroma.

        The planes are uint8 ``[height, width]``, those of chroma of half the size, rounded up. Values have the limited
        range (16..235). The caller must copy them: they may be those of the decoder.
        """
        converted = self._convert_any(frame)
        sides_px = (converted.width, *[-(-converted.width // 2)] * 2)
        planes = (plane_of(converted, place, side_px) for place, side_px in enumerate(sides_px))
        return converted, [self._orientation.apply(plane) for plane in planes]

    def _convert_any(self, frame: VideoFrame) -> VideoFrame:
        try:
            return self._convert(frame)
        except av.FFmpegError:
            # FFmpeg cannot convert YCgCo, ICtCp and other rare color spaces, which are mostly wrong labels.
            if frame.colorspace == _UNSPECIFIED:
                raise
            frame.colorspace = _UNSPECIFIED
            return self._convert(frame)

    def _convert(self, frame: VideoFrame) -> VideoFrame:
        if self._filter is not None:
            return self._filter.convert(frame)
        if self._format == "rgb24":
            return self._reformatter.reformat(frame, format="rgb24", interpolation="BILINEAR", threads=1)
        if frame.format.name == self._format and frame.color_range != ColorRange.JPEG:
            return frame
        return self._reformatter.reformat(
            frame, format=self._format, interpolation="BILINEAR", dst_color_range=ColorRange.MPEG, threads=1
        )

    def describe(self, frame: VideoFrame) -> Geometry:
        """Return the geometry of the current frame."""
        shown = frame if self._filter is None else self._convert(frame)
        sides_px = shown.width, shown.height
        parts, problems = [], []
        if self._orientation.is_mirrored:
            parts.append("mirrored")
        if self._codec.coded_width > frame.width and frame.planes[0].buffer_ptr % _ALIGNMENT_BYTES:
            parts.append("cropped on the left by the codec")
        if self._crop is not None:
            crop = self._crop
            sides = f"{crop.left_px} {crop.top_px} {crop.right_px} {crop.bottom_px}"
            parts.append(f"cropped by {sides} px (left top right bottom)")
        aspect = self._aspect or self._codec.sample_aspect_ratio
        if aspect and not _is_square(aspect):
            ratio = f"{aspect.numerator}:{aspect.denominator}"
            if _is_usable(aspect, frame):
                parts.append(f"pixels of {ratio}")
            else:
                problems.append(f"a pixel aspect ratio of {ratio} is too extreme; square pixels are assumed")
        if self._matrix is not None:
            problems += _matrix_problems(_values(self._matrix), self._orientation)
        width_px, height_px = sides_px[::-1] if self._orientation.transposed else sides_px
        rotation_degrees, transform = self._orientation.rotation_degrees, ", ".join(parts) or None
        return Geometry(width_px, height_px, rotation_degrees, transform, tuple(problems))


def plane_of(frame: VideoFrame, place: int, row_bytes: int) -> NDArray[np.uint8]:
    """Return a view of one plane of a frame, without the padding of its rows, uint8 ``[rows, row_bytes]``."""
    plane = frame.planes[place]
    return np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(plane.height, plane.line_size)[:, :row_bytes]


class _CropAndScale:
    """Crops frames and scales them to square pixels with FFmpeg's filters. No side becomes shorter by scaling."""

    def __init__(self, crop: Crop | None, aspect: Fraction | None, pixel_format: PixelFormat) -> None:
        self._crop, self._aspect, self._format = crop, aspect, pixel_format
        self._graph: Graph | None = None
        self._built_for: tuple[int, int, str] | None = None

    def convert(self, frame: VideoFrame) -> VideoFrame:
        """Return the frame in the pixel format. Without a stated aspect ratio, the ratio of the frame applies."""
        properties = frame.width, frame.height, frame.format.name
        if self._graph is None or self._built_for != properties:
            self._graph, self._built_for = self._build(frame), properties
        try:
            self._graph.vpush(frame)
            return self._graph.vpull()
        except av.FFmpegError:
            self._graph = None
            raise

    def _build(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = 1
        nodes = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
        ]
        if self._crop is not None and self._crop.fits(frame):
            crop = self._crop
            size = {"w": f"iw-{crop.left_px}-{crop.right_px}", "h": f"ih-{crop.top_px}-{crop.bottom_px}"}
            # The filter rounds down to whole chroma samples, as the program ffmpeg does.
            nodes.append(graph.add("crop", **size, x=str(crop.left_px), y=str(crop.top_px)))
        if self._aspect is not None:
            nodes.append(graph.add("setsar", sar=f"{self._aspect.numerator}/{self._aspect.denominator}"))
        stretch = "max(sar,1/sar)"
        usable = f"lte({stretch},{_MAX_ASPECT})*lte(iw*ih*{stretch},{max_pixels():.0f})"
        ratio = f"st(0,if(gt({stretch},{1 + _ASPECT_TOLERANCE})*{usable},sar,1))"
        sides = {"w": f"{ratio};round(iw*max(ld(0),1))", "h": f"{ratio};round(ih*max(1/ld(0),1))"}
        limited = {} if self._format == "rgb24" else {"out_range": "limited"}
        nodes.append(graph.add("scale", **sides, **limited, flags="bilinear", eval="frame"))
        nodes.append(graph.add("format", pix_fmts=self._format))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        return graph


def _stretch(aspect: Fraction) -> Fraction:
    return max(aspect, 1 / aspect)


def _is_square(aspect: Fraction | None) -> bool:
    """Return whether pixels are square; an unknown ratio counts as 1."""
    return not aspect or aspect <= 0 or _stretch(aspect) <= 1 + _ASPECT_TOLERANCE


def _is_usable(aspect: Fraction, frame: VideoFrame) -> bool:
    stretch = _stretch(aspect)
    return stretch <= _MAX_ASPECT and frame.width * frame.height * stretch <= max_pixels()


def _read_crop(container: InputContainer, stream: VideoStream) -> Crop | None:
    """Return the crop that the container states. PyAV has it only in the text that describes the file."""
    if not container.format.name.startswith(_WITH_ASPECT):
        return None
    av.logging.set_level(av.logging.INFO)
    try:
        text = container.dumps_format()  # type: ignore[attr-defined]  # missing in PyAV's stub
    finally:
        av.logging.set_level(None)
    starts = [(match.start(), int(match[1])) for match in _DUMPED_STREAM.finditer(text)] + [(len(text), -1)]
    for (start, number), (end, _) in pairwise(starts):
        if number == stream.index and (match := _DUMPED_CROP.search(text, start, end)):
            crop = Crop(*map(int, match.groups()))
            return None if crop == Crop(0, 0, 0, 0) else crop
    return None


def _read_matrix(frame: VideoFrame) -> bytes | None:
    """Return the display matrix of a frame: nine 32-bit integers."""
    try:
        # A frame that keeps its own container, frame.side_data, is freed by the garbage collector only, hundreds late.
        side_data: Any = SideDataContainer(frame)  # type: ignore[call-arg]  # missing in PyAV's stub
        data = side_data.get(SideDataType.DISPLAYMATRIX)
    except ValueError as error:
        # PyAV does not know some kinds of side data, such as EXIF; its error contains the number of the kind.
        return _read_matrix(_without_side_data(frame, kind=str(error).split()[0]))
    return None if data is None else bytes(data)


def _without_side_data(frame: VideoFrame, *, kind: str) -> VideoFrame:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    graph.link_nodes(source, graph.add("sidedata", mode="delete", type=kind), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def _values(matrix: bytes) -> NDArray[np.float64]:
    """Return the linear part of a display matrix (rotation, mirroring, scale, shear), ``[2, 2]``."""
    return np.frombuffer(matrix, dtype=np.int32).reshape(3, 3)[:2, :2] / 65536.0


def _matrix_problems(matrix: NDArray[np.float64], orientation: Orientation) -> list[str]:
    """Return a line if a display matrix does more than rotate by quarter turns and mirror."""
    lengths = np.linalg.norm(matrix, axis=1)
    if not lengths.all():
        return ["the display matrix is singular and ignored"]
    cosines = (matrix * orientation.matrix).sum(axis=1) / lengths
    across, down = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    if abs(across - down) > _ANGLE_TOLERANCE_DEGREES or abs(lengths[0] / lengths[1] - 1) > _SCALE_TOLERANCE:
        return ["the display matrix scales or shears; only quarter turns and mirroring are applied"]
    if across > _ANGLE_TOLERANCE_DEGREES:
        turn = f"frames are rotated by {orientation.rotation_degrees} degrees"
        return [f"the display matrix is {across:.0f} degrees off a quarter turn; {turn}"]
    return []
