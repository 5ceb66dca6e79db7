"""Write an MP4 file that browsers play: H.264 in 4:2:0, with the sound of the source, its index at the beginning."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_contracts.video.container import REPEATABLE_X264, open_video
from data_contracts.video.display import plane_of
from data_contracts.video.index import VideoIndex, VideoSource
from tasks.annotate.sound import Sound

# Twice as fast as the default preset, for files that are a fifth larger at the same quality.
_X264 = {"preset": "veryfast", "crf": "24", **REPEATABLE_X264}
# Seeking decodes from the keyframe before, so keyframes are closer than the 250 frames that are usual.
_KEYFRAME_SECONDS, _FEWEST_FRAMES = 2, 12
# MP4 files store the duration of a frame in 32 bits, signed here, and FFmpeg raises smaller time scales to 10,000.
_MAX_STEP_TICKS, _MIN_TICKS_PER_SECOND, _MAX_TICKS_PER_SECOND = (1 << 31) - 1, 10_000, 1_000_000
_FALLBACK_BASE = Fraction(1, 90_000)
# Values of ``AVColorSpace``: RGB, which the copy is not, and BT.601, to which FFmpeg converts RGB.
_RGB, _BT601 = 0, 6
# Luma and chroma of black in limited range.
BLACK = (16, 128)


@dataclass(frozen=True)
class FrameTimes:
    """Time stamps of the frames of a copy: int64 ``[n]`` from 0, in seconds times ``time_base``.

    ``start_seconds``: time of the first frame in the source. ``problem``: one line if a step is shorter than in the
    source; else None.
    """

    ticks: NDArray[np.int64]
    time_base: Fraction
    start_seconds: float
    problem: str | None

    @classmethod
    def of(cls, index: VideoIndex, time_base: Fraction | None) -> FrameTimes:
        """Return the times of an index whose stream has this time base; in a base of 1/90,000 s if MP4 has no other."""
        is_exact = (
            index.has_pts
            and time_base is not None
            and time_base.denominator <= _MAX_TICKS_PER_SECOND
            and time_base.numerator < time_base.denominator
        )
        if is_exact:
            assert time_base
            ticks, start = index.pts - index.pts[0], float(index.pts[0] * time_base)
        else:
            ticks = np.round(index.pts_seconds / float(_FALLBACK_BASE)).astype(np.int64)
            start = float(index.pts[0] * time_base) if index.has_pts and time_base else 0.0
            time_base = _FALLBACK_BASE
        per_second = max(int(1 / time_base), _MIN_TICKS_PER_SECOND)
        longest = int(_MAX_STEP_TICKS / per_second / 2 / time_base)
        steps = np.clip(np.diff(ticks), 1, longest)
        problem = None
        if np.any(np.diff(ticks) > longest):
            hours = float(longest * time_base) / 3600
            problem = f"jumps of the clock of more than {hours:.0f} hours are shortened in the copy"
        return cls(np.concatenate([[0], np.cumsum(steps)]), time_base, start, problem)

    @property
    def typical_ticks(self) -> int:
        """The median step between two frames."""
        return max(1, int(np.median(np.diff(self.ticks)))) if self.ticks.size > 1 else int(1 / self.time_base / 25) or 1


class Mp4Writer:
    """Writes frames and the sound that belongs to them. All frames have the size of the first."""

    def __init__(self, target: OutputContainer, source: InputContainer, times: FrameTimes, *, threads: int) -> None:
        self._target, self._source, self._times, self._threads = target, source, times, threads
        self._stream: VideoStream | None = None
        self._sound: Sound | None = None

    def write(self, number: int, frame: VideoFrame) -> None:
        """Write a frame of even sides in 4:2:0; ``number`` is 1-based and must increase by 1."""
        if self._stream is None or self._sound is None:
            self._stream = self._add_stream(frame)
            self._sound = Sound(self._source, self._target, start_seconds=self._times.start_seconds)
        ticks = int(self._times.ticks[number - 1])
        frame.pts, frame.time_base, frame.duration = ticks, self._times.time_base, self._times.typical_ticks
        frame.pict_type = 0  # else the encoder repeats the types of the source
        self._sound.write_until(float(ticks * self._times.time_base))
        self._target.mux(self._stream.encode(frame))

    def finish(self) -> list[str]:
        """Write what the encoder still holds, and the rest of the sound. Return a line for everything that is lost."""
        problems = [self._times.problem] if self._times.problem else []
        if self._stream is not None and self._sound is not None:
            self._target.mux(self._stream.encode(None))
            self._sound.write_until(float("inf"))
            problems += [self._sound.problem] if self._sound.problem else []
        return problems

    def _add_stream(self, frame: VideoFrame) -> VideoStream:
        fps = 1 / (self._times.typical_ticks * self._times.time_base)
        stream = self._target.add_stream("libx264", rate=fps.limit_denominator(1_001_000), options=dict(_X264))
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        encoder = stream.codec_context
        encoder.time_base = self._times.time_base
        encoder.gop_size = max(_FEWEST_FRAMES, round(_KEYFRAME_SECONDS * fps))
        encoder.thread_count = self._threads
        encoder.color_range = 1
        encoder.colorspace = _BT601 if frame.colorspace == _RGB else frame.colorspace
        encoder.color_primaries, encoder.color_trc = frame.color_primaries, frame.color_trc
        return stream


@contextlib.contextmanager
def writing_mp4(path: str, source: VideoSource, index: VideoIndex, *, threads: int) -> Iterator[Mp4Writer]:
    """Open an MP4 file for the frames of a video, and the sound of this video.

    Raises:
        InputError, OSError: the video cannot be opened or read, or the file cannot be written.
    """
    with (
        open_video(source) as (container, stream),
        av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as target,
    ):
        yield Mp4Writer(target, container, FrameTimes.of(index, stream.time_base), threads=threads)


def new_frame(like: VideoFrame, planes: list[NDArray[np.uint8]]) -> VideoFrame:
    """Return a frame with copies of these planes, with even sides: the last row and column are repeated if needed.

    Args:
        like: has the colours that the planes mean.
        planes: luma ``[height, width]`` and the two of chroma, of half the size, rounded up.
    """
    height_px, width_px = planes[0].shape
    frame = VideoFrame(width_px + width_px % 2, height_px + height_px % 2, "yuv420p")
    for target, source in zip(planes_of(frame), planes, strict=True):
        rows, columns = source.shape
        target[:rows, :columns] = source
        target[rows:] = target[rows - 1 : rows]
        target[:, columns:] = target[:, columns - 1 : columns]
    frame.colorspace, frame.color_range = like.colorspace, 1
    frame.color_primaries, frame.color_trc = like.color_primaries, like.color_trc
    return frame


def planes_of(frame: VideoFrame) -> list[NDArray[np.uint8]]:
    """Return views of the planes of a frame of even sides in 4:2:0: luma, and the two of chroma."""
    sides_px = frame.width, frame.width // 2, frame.width // 2
    return [plane_of(frame, place, side_px) for place, side_px in enumerate(sides_px)]
