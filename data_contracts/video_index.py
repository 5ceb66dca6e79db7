"""The index of a video: every frame's number, time stamp and keyframe flag, from packets alone.

Decoding is in ``video``. Frames are numbered from 1 in the order in which a decoder gives them: by time stamp.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa

from data_contracts.errors import InputError


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """What is known of a video before it is decoded.

    Attributes:
        pts: int64 [frame_count], in the stream's time base; zeros if ``has_pts`` is false.
        pts_seconds: float64 [frame_count], since the first frame; NaN if ``has_pts`` is false.
        keyframe: bool [frame_count].
        has_pts: whether every frame has a time stamp of its own; if not, segments decode from the start and count.
        width_px, height_px: of the upright picture, after ``rotation_degrees`` (counterclockwise) is undone.
        problem: what is wrong with the file, if it can be read all the same.
    """

    pts: np.ndarray
    pts_seconds: np.ndarray
    keyframe: np.ndarray
    has_pts: bool
    width_px: int
    height_px: int
    rotation_degrees: int
    codec: str
    claimed_frame_count: int
    average_fps: float | None
    problem: str | None = None

    def __post_init__(self) -> None:
        if not len(self.pts) == len(self.pts_seconds) == len(self.keyframe) > 0:
            raise ValueError("expected one time stamp and one keyframe flag for each of at least one frame")

    @property
    def frame_count(self) -> int:
        """Frames of the video."""
        return len(self.pts)

    @property
    def duration_seconds(self) -> float | None:
        """Last minus first time stamp; None without time stamps."""
        return float(self.pts_seconds[-1]) if self.has_pts else None

    @classmethod
    def from_rows(cls, video: Mapping[str, Any], frames: pa.Table) -> "VideoIndex":
        """The index from a row of ``videos`` and the rows of ``frames``."""
        return cls(
            pts=frames["pts"].fill_null(0).to_numpy(),
            pts_seconds=frames["pts_seconds"].fill_null(float("nan")).to_numpy(),
            keyframe=frames["keyframe"].to_numpy(),
            has_pts=frames["pts"].null_count == 0,
            width_px=video["width_px"],
            height_px=video["height_px"],
            rotation_degrees=video["rotation_degrees"],
            codec=video["codec"],
            claimed_frame_count=video["claimed_frame_count"],
            average_fps=video["average_fps"],
            problem=video["problem"],
        )


def index_video(path: Path) -> VideoIndex:
    """Read all packets of the first video stream; only its first frame is decoded, to learn how it is turned.

    Raises:
        InputError: no such file, not a video, no video stream, or no frame in it.
    """
    with open_video(path) as container:
        stream = container.streams.video[0]
        packets, problem = _read_packets(container, stream)
        if not packets:
            raise InputError(f"{path}: expected a video with frames, got a stream without any; record or copy it again")
        base = float(stream.time_base or 0)
        codec, claimed = stream.codec_context.name, int(stream.frames)
        rate = stream.average_rate
        width, height = stream.codec_context.width, stream.codec_context.height
    pts, keyframe, has_pts = _in_output_order(packets)
    rotation = _rotation_of(path)
    if rotation in (90, 270):
        width, height = height, width
    return VideoIndex(
        pts=pts,
        pts_seconds=(pts - pts[0]) * base if has_pts else np.full(len(pts), np.nan),
        keyframe=keyframe,
        has_pts=has_pts,
        width_px=width,
        height_px=height,
        rotation_degrees=rotation,
        codec=codec,
        claimed_frame_count=claimed,
        average_fps=float(rate) if rate else None,
        problem=problem,
    )


def open_video(path: Path) -> av.container.InputContainer:
    """The opened file.

    Raises:
        InputError: it is not there, not readable, not a media file, or has no video stream.
    """
    try:
        container = av.open(str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected a video file, found nothing there") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{path}: expected a video file, got one that cannot be opened ({reason}); it may be empty or cut short"
        ) from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: expected a video stream, found none (only sound or data)")
    return container


def _read_packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[list[tuple[int | None, bool]], str | None]:
    """(time stamp, keyframe) of every packet that gives a frame, in file order, and what went wrong at the end."""
    found: list[tuple[int | None, bool]] = []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                found.append((packet.pts, packet.is_keyframe))
    except (av.FFmpegError, OSError) as error:
        return found, f"reading stops after {len(found)} frames: {getattr(error, 'strerror', None) or error}"
    claimed = int(stream.frames)
    if claimed > len(found):
        return found, f"the file claims {claimed} frames and holds {len(found)}: it may be cut short"
    return found, None


def _in_output_order(packets: list[tuple[int | None, bool]]) -> tuple[np.ndarray, np.ndarray, bool]:
    keyframe = np.array([key for _, key in packets])
    stamps = [pts for pts, _ in packets if pts is not None]
    if len(stamps) < len(packets) or len(set(stamps)) < len(stamps):
        return np.zeros(len(packets), np.int64), keyframe, False
    pts = np.array(stamps, np.int64)
    order = np.argsort(pts)
    return pts[order], keyframe[order], True


def _rotation_of(path: Path) -> int:
    """Degrees 0, 90, 180 or 270 by which the first frame must be turned counterclockwise to stand upright."""
    with open_video(path) as container:
        try:
            frame = next(container.decode(video=0), None)
        except (av.FFmpegError, OSError):
            return 0
        degrees = getattr(frame, "rotation", 0) if frame is not None else 0
    return int(round(degrees / 90) * 90) % 360
