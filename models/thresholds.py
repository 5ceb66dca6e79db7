"""Thresholds of action units that maximise F1: on the published grid, and the exact optimum."""

import numpy as np

# float64 as numpy.arange gives it (0.30000000000000004): the published grid (Savchenko 2022, section 3.2) as it ran.
GRID = np.arange(0.1, 1.0, 0.1)
WITHOUT_POSITIVES = 0.5


def grid_thresholds(labels: np.ndarray, probabilities: np.ndarray, *, grid: np.ndarray = GRID) -> np.ndarray:
    """Per unit, the first threshold of the grid with the best F1, float64 [k].

    ``labels`` int [n, k] with -1 where unlabelled; ``probabilities`` float32 [n, k]; a unit is decided for where its
    probability >= the threshold. A unit without a positive label gets 0.5.
    """
    return np.array([_best_on_grid(*_known(labels, probabilities, unit), grid) for unit in range(labels.shape[1])])


def optimal_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Per unit, the threshold with the best F1 of all, float64 [k]; arguments as ``grid_thresholds``.

    The threshold lies halfway between the last accepted and the first rejected probability, so that it does not hang
    on one row's rounding. It is the optimum on these rows: optimistic for any others.
    """
    return np.array([_best_of_all(*_known(labels, probabilities, unit)) for unit in range(labels.shape[1])])


def _known(labels: np.ndarray, probabilities: np.ndarray, unit: int) -> tuple[np.ndarray, np.ndarray]:
    known = labels[:, unit] >= 0
    return labels[known, unit] == 1, probabilities[known, unit].astype(np.float32)


def _best_on_grid(positive: np.ndarray, probability: np.ndarray, grid: np.ndarray) -> float:
    if not positive.any():
        return WITHOUT_POSITIVES
    # A float32 is >= a float64 threshold if and only if it is >= the next float32 that is.
    rounded = grid.astype(np.float32)
    rounded = np.where(rounded.astype(np.float64) < grid, np.nextafter(rounded, np.float32(np.inf)), rounded)
    bins = np.searchsorted(rounded, probability, side="right")
    counts = np.bincount(2 * bins + positive, minlength=2 * (len(grid) + 1)).reshape(-1, 2)
    accepted = counts[::-1].cumsum(axis=0)[::-1][1:]
    f1 = 2.0 * accepted[:, 1] / (accepted.sum(axis=1) + positive.sum())
    return float(grid[int(np.argmax(f1))])


def _best_of_all(positive: np.ndarray, probability: np.ndarray) -> float:
    if not positive.any():
        return WITHOUT_POSITIVES
    # Bits of a float32 in 0..1 sort as the value does: probability and label are sorted together as one integer.
    keys = np.sort((probability.view(np.uint32).astype(np.uint64) << 1) | positive)[::-1]
    bits = (keys >> 1).astype(np.uint32)
    hits = np.cumsum(keys & 1)
    f1 = 2.0 * hits / (np.arange(1, len(keys) + 1) + positive.sum())
    last_of_value = np.append(bits[1:] != bits[:-1], True)
    best = int(np.argmax(np.where(last_of_value, f1, -1.0)))
    values = bits.view(np.float32).astype(np.float64)
    return float((values[best] + values[best + 1]) / 2) if best + 1 < len(values) else float(values[best])
