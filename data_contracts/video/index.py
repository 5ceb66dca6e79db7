"""The index of one video: its frames, their time stamps, and the keyframes at which decoding can start.

``packets`` creates an index from a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import IO, TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_contracts.video.timing import duration_seconds, even_times_seconds

if TYPE_CHECKING:
    from upath import UPath

    VideoSource = str | PathLike[str] | UPath | IO[bytes]
else:
    VideoSource = str | PathLike[str] | IO[bytes]
QUARTER_TURNS_DEGREES = (0, 90, 180, 270)
IndexMethod = Literal["packets", "decoding"]


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Frames of one video in decoder output order; element 0 of every array is frame 1.

    ``pts``: int64 ``[n]``, time stamps in the stream's time base, strictly increasing and equal to those of decoded
    frames. If the container has no reliable time stamps, ``has_pts`` is false and ``pts`` is zero. ``pts_seconds``:
    float64 ``[n]``, >= 0, time since the first frame; estimated from decoding times or the frame rate if ``has_pts`` is
    false. ``keyframe``: bool ``[n]``. ``width_px`` and ``height_px`` are those of the first frame as displayed.
    ``rotation_degrees`` is its clockwise rotation; ``display`` describes how it is mirrored, cropped and scaled, or is
    None. ``claimed_frame_count`` is the number in the container's header, 0 if there is none. ``problem`` is one line,
    or None.

    ``method`` is ``packets`` if the packets of the file prove their number of frames, or ``decoding`` if the whole file
    was decoded. ``equals_packets``: it has one frame per packet, as all indexes of earlier versions.
    """

    pts: NDArray[np.int64] = field(repr=False)
    pts_seconds: NDArray[np.float64] = field(repr=False)
    keyframe: NDArray[np.bool_] = field(repr=False)
    has_pts: bool
    width_px: int
    height_px: int
    rotation_degrees: int
    codec: str
    claimed_frame_count: int
    average_fps: float | None
    problem: str | None = None
    display: str | None = None
    method: IndexMethod = "packets"
    equals_packets: bool = True

    def __post_init__(self) -> None:
        shapes = {self.pts.shape, self.pts_seconds.shape, self.keyframe.shape}
        if len(shapes) != 1 or self.pts.ndim != 1 or self.pts.size == 0:
            raise ValueError(f"expected pts, pts_seconds, keyframe of one shape [n >= 1], got {sorted(shapes)}")
        if self.has_pts and not bool(np.all(self.pts[1:] > self.pts[:-1])):
            raise ValueError("expected strictly increasing pts, got some that repeat or go back")
        if self.rotation_degrees not in QUARTER_TURNS_DEGREES:
            raise ValueError(f"expected a rotation of {QUARTER_TURNS_DEGREES} degrees, got {self.rotation_degrees}")

    @property
    def frame_count(self) -> int:
        """Number of frames, >= 1."""
        return int(self.pts.size)

    @property
    def duration_seconds(self) -> float:
        """Last minus first time stamp, without jumps of the clock, >= 0; the duration of the last frame is unknown."""
        return duration_seconds(self.pts_seconds)

    def has_equal_frames(self, other: "VideoIndex") -> bool:
        """Return whether the other index has the same frames, time stamps and keyframes."""
        mine, others = ((one.pts, one.pts_seconds, one.keyframe) for one in (self, other))
        return self.has_pts == other.has_pts and all(map(np.array_equal, mine, others))

    def keyframe_at_or_before(self, frame: int) -> int | None:
        """Return the number of the last keyframe that is not after ``frame`` (1-based), or None."""
        found = np.flatnonzero(self.keyframe[: max(frame, 0)])
        return int(found[-1]) + 1 if found.size else None

    @classmethod
    def from_rows(cls, video: Mapping[str, Any], frames: pa.Table) -> Self:
        """Create the index from its row of dataset ``videos`` and its rows of ``frames``, ordered by frame."""
        count = frames.num_rows
        has_pts = frames["pts"].null_count == 0
        fps = video["average_fps"]
        if frames["pts_seconds"].null_count == 0:
            pts_seconds = frames["pts_seconds"].to_numpy()
        else:
            pts_seconds = even_times_seconds(count, fps)
        return cls(
            pts=frames["pts"].to_numpy() if has_pts else np.zeros(count, dtype=np.int64),
            pts_seconds=pts_seconds,
            keyframe=frames["keyframe"].to_numpy(zero_copy_only=False),
            has_pts=has_pts,
            width_px=video["width_px"],
            height_px=video["height_px"],
            rotation_degrees=video["rotation_degrees"],
            codec=video["codec"],
            claimed_frame_count=video["claimed_frame_count"],
            average_fps=fps,
            problem=video["problem"],
            # Earlier versions have no such column.
            method=video.get("index_method") or "packets",
        )
