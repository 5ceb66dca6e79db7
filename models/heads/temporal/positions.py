"""Positions in time: temporal heads see a subject at a fixed rate, whatever the frame rate of the video."""

from dataclasses import dataclass

import numpy as np

# The rate of Aff-Wild2.
POSITIONS_PER_SECOND = 30
# Time stamps that repeat, go back or leave gaps must not stop time, nor make a video endless.
_SHORTEST_STEP_SECONDS, _LONGEST_STEP_SECONDS = 1 / 240, 1.0
_RATE_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions on a regular grid of 30 per second, P of them, for T frames.

    Attributes:
        frames: int64 [P], the frame nearest in time to each position, ascending from 0.
        at: float64 [T], where each frame is on the grid, from 0 to P - 1, ascending.
    """

    frames: np.ndarray
    at: np.ndarray

    @classmethod
    def of(cls, seconds: np.ndarray) -> "Positions":
        """Return the positions for frames at these times, float64 [T], T at least 1.

        A step between two frames counts as at least 1/240 s and at most 1 s. Every frame is a position of its own if
        the rate is 30 frames per second with a tolerance of 2 %, and no step differs from 1/30 s by more than half.
        """
        steps = np.clip(np.diff(seconds), _SHORTEST_STEP_SECONDS, _LONGEST_STEP_SECONDS) * POSITIONS_PER_SECOND
        at = np.concatenate([[0.0], np.cumsum(steps)])
        count = len(at)
        if np.abs(steps - 1).max(initial=0) <= 0.5 and abs(at[-1] - (count - 1)) <= _RATE_TOLERANCE * count:
            return cls(np.arange(count), np.arange(count, dtype=np.float64))
        grid = np.arange(int(np.ceil(at[-1])) + 1)
        after = np.searchsorted(at, grid).clip(1, count - 1)
        frames = np.where(grid - at[after - 1] <= at[after] - grid, after - 1, after)
        return cls(frames, at)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def is_identity(self) -> bool:
        """Return whether every frame is a position of its own."""
        return len(self.frames) == len(self.at) and bool((self.frames == np.arange(len(self.at))).all())

    def to_frames(self, values: np.ndarray) -> np.ndarray:
        """Return values at the frames, float32 [T, K], interpolated linearly between those of positions, [P, K]."""
        if self.is_identity:
            return values
        left = np.minimum(self.at.astype(np.int64), len(values) - 1)
        right = np.minimum(left + 1, len(values) - 1)
        share = (self.at - left).astype(np.float32)[:, None]
        found: np.ndarray = values[left] * (1 - share) + values[right] * share
        return found
