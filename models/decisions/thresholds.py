"""Thresholds of action units that maximise F1: on the published grid, and the exact optimum.

Tuning searches them about a hundred times per head. For 445,836 rows, one search of the grid takes 12 ms and one exact
search 78 ms; a loop over scikit-learn's ``f1_score`` takes 13 s (docs/performance.md).
"""

import numba
import numpy as np

# The published grid (Savchenko 2022, section 3.2) exactly as numpy.arange computes it (0.30000000000000004).
GRID = np.arange(0.1, 1.0, 0.1)
DEFAULT_THRESHOLD = 0.5
_BLOCK_ROWS = 512
_BUCKETS = 1 << 16


def grid_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the first threshold of the grid with the best F1 for each action unit, float64 [k].

    ``labels`` int [n, k], -1: unlabelled; ``probabilities`` float32 [n, k]. An action unit is active where its
    probability >= the threshold, never where it is NaN. Without a positive label, the result is 0.5.
    """
    # A float32 is >= a float64 threshold if and only if it is >= the smallest float32 that is >= the threshold.
    rounded = GRID.astype(np.float32)
    rounded = np.where(rounded.astype(np.float64) < GRID, np.nextafter(rounded, np.float32(np.inf)), rounded)
    counts = _count_between(*_arrays(labels, probabilities), rounded)
    accepted = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    positives = counts[:, :, 1].sum(axis=1)
    f1 = 2.0 * accepted[:, :, 1] / np.maximum(accepted.sum(axis=2) + positives[:, None], 1)
    return np.where(positives > 0, GRID[f1.argmax(axis=1)], DEFAULT_THRESHOLD)


def optimal_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the threshold with the highest possible F1 for each action unit, float64 [k]; see ``grid_thresholds``.

    The threshold is halfway between the last accepted and the first rejected probability, so that it does not depend on
    the rounding of one row. Of equal optima, it is the highest. F1 on other rows is lower than on these.
    """
    thresholds = np.full(labels.shape[1], DEFAULT_THRESHOLD)
    for unit, (label, probability) in enumerate(zip(*map(np.transpose, _arrays(labels, probabilities)), strict=True)):
        positives, usable = int((label == 1).sum()), (label >= 0) & ~np.isnan(probability)
        if positives and usable.any():
            values = probability[usable] + np.float32(0)  # turns -0.0 into 0.0
            thresholds[unit] = np.mean(_best_cut(values, label[usable] == 1, positives), dtype=np.float64)
    return thresholds


def _best_cut(values: np.ndarray, is_positive: np.ndarray, positives: int) -> tuple[float, float]:
    """Return the last accepted and the first rejected value of the cut with the best F1; equal if it accepts all.

    ``positives`` is the number of positive labels, including those without a value. Sorting all rows would take most
    of the time, so count them in narrow buckets first, and sort only the rows near the optimum.
    """
    bucket = np.clip(values * _BUCKETS, 0, _BUCKETS - 1).astype(np.uint16)
    rows, hits = np.bincount(bucket, minlength=_BUCKETS), np.bincount(bucket[is_positive], minlength=_BUCKETS)
    accepted, accepted_hits = rows[::-1].cumsum()[::-1], hits[::-1].cumsum()[::-1]
    # F1 of the cut below each bucket, and a bound for cuts inside it: all of its positives before all of its negatives.
    f1 = 2.0 * accepted_hits / (accepted + positives)
    bound = 2.0 * accepted_hits / (accepted - rows + hits + positives)
    candidates = np.flatnonzero((rows > 0) & (bound >= f1.max()))
    low, high = candidates[0], candidates[-1]
    chosen = np.flatnonzero((bucket >= low) & (bucket <= high))
    chosen = chosen[np.argsort(-values[chosen])]
    sorted_values, sorted_hits = values[chosen], is_positive[chosen].cumsum() + accepted_hits[high] - hits[high]
    f1 = 2.0 * sorted_hits / (np.arange(1, len(chosen) + 1) + accepted[high] - rows[high] + positives)
    # Rows with equal values are accepted together.
    last = np.flatnonzero(np.append(sorted_values[1:] != sorted_values[:-1], True))
    best = last[f1[last].argmax()]
    below = sorted_values[best + 1 :] if best + 1 < len(chosen) else values[bucket < low]
    return sorted_values[best], below.max() if len(below) else sorted_values[best]


def _arrays(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert to int8 and float32, so that numba compiles for one combination of types only."""
    return np.ascontiguousarray(labels, np.int8), np.ascontiguousarray(probabilities, np.float32)


@numba.njit(cache=True, nogil=True)
def _count_between(labels: np.ndarray, probabilities: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Count negatives and positives between neighbouring thresholds in one pass; int64 [k, len(grid) + 1, 2]."""
    rows, units = labels.shape
    width = 3 * (len(grid) + 1)
    counts = np.zeros((units, width), np.int64)
    flat_labels, flat = labels.ravel(), probabilities.ravel()
    # Work in blocks: comparisons use vector instructions, and their results stay in the cache.
    place = np.empty(_BLOCK_ROWS * units, np.int32)
    for first in range(0, rows, _BLOCK_ROWS):
        size = min(_BLOCK_ROWS, rows - first) * units
        block, known = flat[first * units : first * units + size], flat_labels[first * units : first * units + size]
        for at in range(size):
            place[at] = np.int32(known[at] >= 0) + np.int32(known[at] == 1)
        for threshold in grid:
            for at in range(size):
                place[at] += np.int32(3) if block[at] >= threshold else np.int32(0)
        for row in range(0, size, units):
            for unit in range(units):
                counts[unit, place[row + unit]] += 1
    return counts.reshape(units, len(grid) + 1, 3)[:, :, 1:]
