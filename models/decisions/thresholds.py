"""Thresholds of action units that maximise F1: on the published grid, and the exact optimum."""

import numba
import numpy as np

# The published grid (Savchenko 2022, section 3.2) exactly as numpy.arange computes it (0.30000000000000004).
GRID = np.arange(0.1, 1.0, 0.1)
DEFAULT_THRESHOLD = 0.5
_BLOCK_ROWS = 512
_SIGN = np.uint32(1 << 31)


def grid_thresholds(labels: np.ndarray, probabilities: np.ndarray, *, grid: np.ndarray = GRID) -> np.ndarray:
    """Return the first threshold of the grid with the best F1 for each action unit, float64 [k].

    ``labels`` int [n, k], -1: unlabelled; ``probabilities`` float32 [n, k]. An action unit is active where its
    probability >= the threshold, never where it is NaN. ``grid`` ascends. Without a positive label, the result is 0.5.
    """
    # A float32 is >= a float64 threshold if and only if it is >= the smallest float32 that is >= the threshold.
    rounded = grid.astype(np.float32)
    rounded = np.where(rounded.astype(np.float64) < grid, np.nextafter(rounded, np.float32(np.inf)), rounded)
    counts = _count_between(*_arrays(labels, probabilities), rounded)
    accepted = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    positives = counts[:, :, 1].sum(axis=1)
    f1 = 2.0 * accepted[:, :, 1] / np.maximum(accepted.sum(axis=2) + positives[:, None], 1)
    return np.where(positives > 0, grid[f1.argmax(axis=1)], DEFAULT_THRESHOLD)


def optimal_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the threshold with the highest possible F1 for each action unit, float64 [k]; see ``grid_thresholds``.

    The threshold is halfway between the last accepted and the first rejected probability, so that it does not depend on
    the rounding of one row. Of equal optima, it is the highest. F1 on other rows is lower than on these.
    """
    thresholds = np.full(labels.shape[1], DEFAULT_THRESHOLD)
    for unit, (label, probability) in enumerate(zip(*map(np.transpose, _arrays(labels, probabilities)), strict=True)):
        positives, usable = int((label == 1).sum()), (label >= 0) & ~np.isnan(probability)
        if positives and usable.any():
            # With the label as the last bit of the key, one sort orders probability and label together.
            keys = _to_sort_keys(probability[usable]) << np.uint64(1) | (label[usable] == 1)
            cut = _best_cut(np.sort(keys), positives)
            thresholds[unit] = _from_sort_keys(np.array(cut, np.uint64)).astype(np.float64).mean()
    return thresholds


def _to_sort_keys(values: np.ndarray) -> np.ndarray:
    """Map float32 [n] without NaN to uint64 [n] below 2^32 in the same order; -0.0 equals 0.0."""
    bits = (values + np.float32(0)).view(np.uint32)  # adding 0 turns -0.0 into 0.0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN).astype(np.uint64)


def _from_sort_keys(keys: np.ndarray) -> np.ndarray:
    bits = keys.astype(np.uint32)
    return np.where(bits & _SIGN, bits & ~_SIGN, ~bits).view(np.float32)


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


@numba.njit(cache=True, nogil=True)
def _best_cut(keys: np.ndarray, positives: int) -> tuple[np.uint64, np.uint64]:
    """Return the last accepted and the first rejected value of the best cut; cuts are only possible between values.

    ``keys``: ascending, twice the sort key of the value plus 1 for a positive row.
    """
    best, accepted, rejected, hits = -1.0, np.uint64(0), np.uint64(0), 0
    for place in range(len(keys) - 1, -1, -1):
        value = keys[place] >> np.uint64(1)
        hits += keys[place] & np.uint64(1)
        below = keys[place - 1] >> np.uint64(1) if place else value
        if place == 0 or below != value:
            f1 = 2.0 * hits / (len(keys) - place + positives)
            if f1 > best:
                best, accepted, rejected = f1, value, below
    return accepted, rejected
