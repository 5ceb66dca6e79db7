"""Time: filling frames without a face, and smoothing over windows. One subject at a time, frames in order."""

from typing import Literal

import numpy as np

Direction = Literal["linear", "published"]
Method = Literal["none", "mean", "median", "gaussian"]
# A Gaussian window reaches two standard deviations to each side.
GAUSSIAN_REACH = 2.0
# Wider Gaussians are multiplied in the frequency domain, in pieces: there the width costs next to nothing.
_DIRECT_HALF_WIDTH = 50


def interpolate_missing(values: np.ndarray, present: np.ndarray, *, direction: Direction = "linear") -> np.ndarray:
    """Values [T, K] with a value in every frame; edges take the nearest frame that has one.

    ``linear`` interpolates between the neighbours (Savchenko 2022, section 2). ``published`` is what the authors' ABAW3
    notebook does instead: it gives each neighbour the other one's weight, so that every gap is filled backwards.

    Returns:
        float32 [T, K]; NaN throughout if no frame is present.

    Raises:
        ValueError: shapes do not match.
    """
    if present.shape != values.shape[:1]:
        raise ValueError(f"expected one flag for each of {len(values)} frames, got {present.shape}")
    filled = np.array(values, np.float32)
    known, gaps = np.flatnonzero(present), np.flatnonzero(~present)
    if not len(known):
        return np.full_like(filled, np.nan)
    following = np.searchsorted(known, gaps)
    before = known[np.maximum(following - 1, 0)]
    after = known[np.minimum(following, len(known) - 1)]
    before, after = np.where(following == 0, after, before), np.where(following == len(known), before, after)
    span = np.maximum(after - before, 1)
    weight_after = (gaps - before) / span
    if direction == "published":
        weight_after = np.where(after > before, 1 - weight_after, weight_after)
    weight = weight_after[:, None]
    filled[gaps] = (1 - weight) * filled[before].astype(np.float64) + weight * filled[after].astype(np.float64)
    return filled


def smooth(values: np.ndarray, *, method: Method, half_width_frames: int = 0) -> np.ndarray:
    """Values [T, K] smoothed over windows of 2 * half_width + 1 frames, cut at the ends (not padded), float32.

    ``mean`` and ``median`` as published (half widths 2 and 7; Savchenko 2022, table 5). ``gaussian`` weights the
    window by exp(-d^2 / (2 s^2)) with s = half_width / 2, renormalised where the window is cut.

    Frames must be filled before; a subject without any (NaN throughout) stays as it is.

    Raises:
        ValueError: a negative half width, an unknown method, or NaN in some frames only.
    """
    if half_width_frames < 0:
        raise ValueError(f"half_width_frames: expected at least 0, got {half_width_frames}")
    values = np.asarray(values, np.float32)
    if method == "none" or half_width_frames == 0 or len(values) < 2 or np.isnan(values).all():
        return values.copy()
    if method == "mean":
        return _mean(values, half_width_frames)
    if method == "median":
        # Compiled: half a second to import.
        from models.decisions.running_median import running_median

        return running_median(values, half_width_frames)
    if method == "gaussian":
        return _gaussian(values, half_width_frames)
    raise ValueError(f"method: expected none, mean, median or gaussian, got {method!r}")


def _mean(values: np.ndarray, half_width: int) -> np.ndarray:
    """Differences of running sums in float64: the width costs nothing."""
    count, half_width = len(values), min(half_width, len(values))
    sums = np.zeros((count + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=sums[1:])
    at = np.arange(count)
    start, end = np.maximum(at - half_width, 0), np.minimum(at + half_width + 1, count)
    result = np.empty(values.shape)
    inner = slice(half_width, max(count - half_width, half_width))
    np.subtract(sums[2 * half_width + 1 :], sums[: max(count - 2 * half_width, 0)], out=result[inner])
    edges = np.concatenate([at[: inner.start], at[inner.stop :]])
    result[edges] = sums[end[edges]] - sums[start[edges]]
    result /= (end - start)[:, None]
    return result.astype(np.float32)


def _gaussian(values: np.ndarray, half_width: int) -> np.ndarray:
    # Only where a Gaussian was chosen: these take a second to import.
    from scipy.ndimage import correlate1d
    from scipy.signal import oaconvolve

    sigma = half_width / GAUSSIAN_REACH
    kernel = np.exp(-0.5 * (np.arange(-half_width, half_width + 1) / sigma) ** 2)
    weights = correlate1d(np.ones(len(values)), kernel, mode="constant")
    if half_width <= _DIRECT_HALF_WIDTH:
        sums = correlate1d(values.astype(np.float64), kernel, axis=0, mode="constant")
    else:
        sums = oaconvolve(values.astype(np.float64), kernel[:, None], mode="full", axes=0)
        sums = sums[half_width : half_width + len(values)]
    return (sums / weights[:, None]).astype(np.float32)
