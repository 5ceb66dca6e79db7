"""Times of frames: estimated where time stamps are missing or out of order, and jumps of a recorder's clock."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# A step is a jump of the clock if it is longer than this, and this number of times longer than the typical step.
_MIN_JUMP_SECONDS, _MIN_JUMP_STEPS = 600.0, 100.0
# Times that decrease by more typical steps than this have restarted.
_RESTART_STEPS = 10
# The typical step of a video with fewer steps than this is at most a second.
_FEW_STEPS = 3


def even_times_seconds(count: int, fps: float | None) -> NDArray[np.float64]:
    """Return times of evenly spaced frames, float64 ``[count]`` from 0; 25 per second if ``fps`` is unknown."""
    return np.arange(count, dtype=np.float64) / (fps or 25.0)


def best_times(pts: Sequence[int | None], dts: Sequence[int | None]) -> list[int | None]:
    """Return the more plausible of presentation and decoding time for each frame in output order, as FFmpeg does.

    The more plausible time is the one that has decreased or repeated less often so far.
    """
    found: list[int | None] = []
    pts_faults = dts_faults = 0
    last_pts = last_dts = -math.inf
    for presented, decoded in zip(pts, dts, strict=True):
        if decoded is not None:
            dts_faults += decoded <= last_dts
        if presented is not None:
            pts_faults += presented <= last_pts
        last_dts = decoded if decoded is not None else presented if presented is not None else last_dts
        last_pts = presented if presented is not None else decoded if decoded is not None else last_pts
        uses_pts = presented is not None and (decoded is None or pts_faults <= dts_faults)
        found.append(presented if uses_pts else decoded)
    return found


def increasing(times: Sequence[int | None]) -> NDArray[np.int64] | None:
    """Return the times if all are known and they strictly increase, else None."""
    if None in times:
        return None
    known = np.array(times, dtype=np.int64)
    return known if bool(np.all(known[1:] > known[:-1])) else None


def complete(times: Sequence[int | None], *, usual_step: int) -> NDArray[np.int64] | None:
    """Return times that are all known and never decrease, or None if no time is known.

    An unknown time is a typical step after the last one; ``usual_step`` if no neighbours have known times. Where times
    restart, as in concatenated recordings, they continue instead.
    """
    place_of_first = next((place for place, time in enumerate(times) if time is not None), None)
    if place_of_first is None:
        return None
    neighbours = [(a, b) for a, b in pairwise(times) if a is not None and b is not None]
    steps = [after - before for before, after in neighbours if after > before]
    typical = max(1, round(float(np.median(steps))) if steps else usual_step)
    completed = np.zeros(len(times), dtype=np.int64)
    last, offset = (times[place_of_first] or 0) - (place_of_first + 1) * typical, 0
    for place, time in enumerate(times):
        following = last + typical
        now = following if time is None else time + offset
        if now < last:
            # A slight decrease is a single wrong time, not a restart.
            offset += following - now if last - now > _RESTART_STEPS * typical else 0
            now = following
        completed[place] = last = now
    return completed


def duration_seconds(pts_seconds: NDArray[np.float64]) -> float:
    """Return the time from the first to the last frame, without jumps of the clock."""
    return _without_jumps(pts_seconds)[1]


def describe_clock_jumps(pts_seconds: NDArray[np.float64]) -> str | None:
    """Return a line about jumps of the clock, or None.

    A camera that sets its clock after the first frame leaves a gap of hours between two frames.
    """
    jumps, duration = _without_jumps(pts_seconds)
    if not jumps.size:
        return None
    hours = (pts_seconds[-1] - duration) / 3600
    others = f" and {jumps.size - 1} others" if jumps.size > 1 else ""
    return (
        f"the clock jumps by {hours:.1f} hours after frame {jumps[0] + 1}{others}; the duration without "
        f"{'jumps' if others else 'the jump'} is {duration:.1f} s"
    )


def _without_jumps(pts_seconds: NDArray[np.float64]) -> tuple[NDArray[np.intp], float]:
    """Return the positions of the frames before the jumps, and the duration without them."""
    steps = np.diff(pts_seconds)
    if not steps.size:
        return np.array([], dtype=np.intp), 0.0
    typical = float(np.quantile(steps, 0.5, method="lower"))
    if steps.size < _FEW_STEPS:
        typical = min(float(steps.min()), 1.0)
    is_jump = steps > max(_MIN_JUMP_SECONDS, _MIN_JUMP_STEPS * typical)
    if not is_jump.any():
        return np.array([], dtype=np.intp), float(pts_seconds[-1])
    return np.flatnonzero(is_jump), float(np.where(is_jump, typical, steps).sum())
