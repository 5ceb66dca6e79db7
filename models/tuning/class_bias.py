"""The class bias that maximises macro F1: eight values that are added to the log-probabilities of expressions.

Coordinate ascent on a grid. For one class, a row is decided as this class from one step of the grid on, and as the best
of the other classes before it; so one pass over the rows counts the decisions at all steps.
"""

import numba
import numpy as np

from data_contracts.vocabulary import EXPRESSIONS
from models.decisions.recipes import ClassBias

_MIN_GAIN = 1e-6
_COUNT = len(EXPRESSIONS)


def fit_class_bias(
    labels: np.ndarray, logarithms: np.ndarray, search: ClassBias, *, gated: np.ndarray | None = None
) -> np.ndarray:
    """Return the class bias float64 [8] with the best macro F1 of the search, starting from zeros.

    Args:
        labels: int8 [n], all known.
        logarithms: float32 [n, 8] of probabilities.
        search: the grid.
        gated: int8 [n], class of rows that are decided without the bias, else -1.
    """
    bias, best = np.zeros(_COUNT), -1.0
    for _ in range(search.passes):
        before = bias.copy()
        for position in range(_COUNT):
            scores = scores_of_bias(labels, logarithms, bias, position, search, gated=gated)
            if best < 0:
                # Of the start itself: the grid need not contain 0.
                counts = _count(*_arrays(labels, logarithms, gated), bias, position, bias[position : position + 1])
                best = float(_macro_f1(labels, *counts)[0])
            if scores.max() > best + _MIN_GAIN:
                bias[position], best = search.grid[scores.argmax()], float(scores.max())
        if (bias == before).all():
            break
    return bias


def scores_of_bias(
    labels: np.ndarray,
    logarithms: np.ndarray,
    bias: np.ndarray,
    position: int,
    search: ClassBias,
    *,
    gated: np.ndarray | None = None,
) -> np.ndarray:
    """Return the macro F1 float64 [steps] for each value of one bias; arguments as in ``fit_class_bias``."""
    return _macro_f1(labels, *_count(*_arrays(labels, logarithms, gated), bias, position, search.grid))


def _arrays(
    labels: np.ndarray, logarithms: np.ndarray, gated: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert to fixed types, so that numba compiles once."""
    fixed = np.full(len(labels), -1, np.int8) if gated is None else np.ascontiguousarray(gated, np.int8)
    return np.ascontiguousarray(labels, np.int8), np.ascontiguousarray(logarithms, np.float32), fixed


def _macro_f1(labels: np.ndarray, hits: np.ndarray, decided: np.ndarray) -> np.ndarray:
    total = decided + np.bincount(labels.astype(np.int64), minlength=_COUNT)
    return np.asarray((2.0 * hits / np.maximum(total, 1)).mean(axis=1))


@numba.njit(cache=True, nogil=True)
def _count(
    labels: np.ndarray, logarithms: np.ndarray, gated: np.ndarray, bias: np.ndarray, position: int, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count correct and all decisions of each class for each value of one bias; int64 [steps, 8] each.

    ``grid`` ascends. Of equal sums, the first class is decided, as ``argmax`` does.
    """
    steps, classes = len(grid), logarithms.shape[1]
    # In column s: rows whose decision changes to the class at step s.
    other_hits, other_rows = np.zeros((steps + 1, classes), np.int64), np.zeros((steps + 1, classes), np.int64)
    own_hits, own_rows = np.zeros(steps + 1, np.int64), np.zeros(steps + 1, np.int64)
    width = grid[-1] - grid[0]
    for row in range(len(labels)):
        label = labels[row]
        if gated[row] >= 0:
            # As the other class at every step.
            other, first = int(gated[row]), steps
        else:
            other, largest = -1, -np.inf
            for at in range(classes):
                if at != position:
                    value = logarithms[row, at] + bias[at]
                    if value > largest:
                        other, largest = at, value
            own = logarithms[row, position]
            # Estimate the first step, then correct it for rounding.
            first = 0
            if width > 0:
                place = (largest - own - grid[0]) / width * (steps - 1)
                first = min(max(int(np.ceil(min(max(place, 0.0), steps + 1.0))), 0), steps)
            while first > 0 and _wins(own + grid[first - 1], largest, position, other):
                first -= 1
            while first < steps and not _wins(own + grid[first], largest, position, other):
                first += 1
            own_rows[first] += 1
            own_hits[first] += label == position
        other_rows[first, other] += 1
        other_hits[first, other] += label == other
    hits, decided = np.zeros((steps, classes), np.int64), np.zeros((steps, classes), np.int64)
    for at in range(classes):
        # Rows that change after step s still have their other class there.
        rows_left, hits_left = 0, 0
        for step in range(steps - 1, -1, -1):
            rows_left += other_rows[step + 1, at]
            hits_left += other_hits[step + 1, at]
            decided[step, at], hits[step, at] = rows_left, hits_left
    rows, right = 0, 0
    for step in range(steps):
        rows += own_rows[step]
        right += own_hits[step]
        decided[step, position] += rows
        hits[step, position] += right
    return hits, decided


@numba.njit(cache=True, nogil=True)
def _wins(value: float, largest: float, position: int, other: int) -> bool:
    return value > largest or (value == largest and position < other)
