"""Decoded frames as pictures: upright RGB, in memory that is made for them. Which frame is which: ``video_frames``."""

from collections.abc import Sequence
from typing import Any, Protocol

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

# Of a frame's matrix of colours (``AVColorSpace``).
_UNSPECIFIED = 2


class Pictures(Protocol):
    """Where frames are decoded and where their pictures lie. An object serves one reader at a time."""

    @property
    def hwaccel(self) -> HWAccel | None:
        """What decodes instead of the processor where it can; asked for each time that a file is opened."""

    def upright_rgb(self, frame: VideoFrame) -> Any:
        """A frame as uint8 ``[height, width, 3]``, turned clockwise; valid until the next one, the caller copies it."""

    def room(self, count: int, shape: tuple[int, ...]) -> Any:
        """Memory for ``count`` pictures of that shape."""

    def on_host(self, parts: Sequence[Any]) -> Sequence[NDArray[np.uint8]]:
        """Parts of pictures as arrays."""


class HostPictures:
    """Frames decoded by the processor, numpy arrays.

    PyAV's own ``to_ndarray`` sets up a scaler for every frame; here one is kept. Its settings give the same pixels as
    that for every pixel format; "fast" bilinear would not for 4:4:4, 10 bit and odd sizes.
    """

    hwaccel = None

    def __init__(self, degrees: int, *, threads: int = 1) -> None:
        self._reformatter, self._turns, self._threads = VideoReformatter(), degrees // 90, threads

    def upright_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """View of a frame as uint8 ``[height, width, 3]``, turned clockwise; the caller copies it."""
        try:
            converted = self._rgb(frame)
        except av.FFmpegError:
            # FFmpeg converts nothing that says it has YCgCo, ICtCp or another rare matrix. Most of it is mislabelled.
            if frame.colorspace == _UNSPECIFIED:
                raise
            frame.colorspace = _UNSPECIFIED
            converted = self._rgb(frame)
        plane = converted.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(converted.height, plane.line_size)
        rgb = rows[:, : converted.width * 3].reshape(converted.height, converted.width, 3)
        return np.rot90(rgb, k=-self._turns)

    def _rgb(self, frame: VideoFrame) -> VideoFrame:
        return self._reformatter.reformat(frame, format="rgb24", interpolation="BILINEAR", threads=self._threads)

    def room(self, count: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory for ``count`` pictures of that shape."""
        return np.empty((count, *shape), dtype=np.uint8)

    def on_host(self, parts: Sequence[Any]) -> Sequence[NDArray[np.uint8]]:
        """The same arrays."""
        return parts
