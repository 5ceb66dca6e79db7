"""Thresholds and smoothing on the shapes of the AU validation set, against the loops that they replace."""

import statistics
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import f1_score

from models.smoothing import smooth
from models.thresholds import GRID, grid_thresholds

ROWS, UNITS, ROUNDS = 100_000, 12, 3


def slow_grid(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    def best(unit: int) -> float:
        p = probabilities[:, unit].astype(np.float64)
        return float(GRID[np.argmax([f1_score(labels[:, unit], p >= threshold) for threshold in GRID])])

    return np.array([best(unit) for unit in range(labels.shape[1])])


def slow_window(values: np.ndarray, half_width: int, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    starts = range(len(values))
    return np.stack([reduce(values[max(0, t - half_width) : t + half_width + 1], axis=0) for t in starts])


def compare(name: str, slow: Callable[[], np.ndarray], fast: Callable[[], np.ndarray]) -> None:
    fast()
    ratios, difference = [], 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        expected = slow()
        middle = time.perf_counter()
        got = fast()
        ratios.append((middle - started) / (time.perf_counter() - middle))
        difference = float(np.abs(expected - got).max())
    print(f"{name}: {statistics.median(ratios):.0f}x, largest difference {difference:.1e}")


def main() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random((ROWS, UNITS)).astype(np.float32)
    labels = (random.random((ROWS, UNITS)) < probabilities / 2).astype(np.int8)
    print(f"{ROWS} rows of {UNITS} units")
    compare("threshold grid", lambda: slow_grid(labels, probabilities), lambda: grid_thresholds(labels, probabilities))
    for method, reduce in (("mean", np.mean), ("median", np.median)):
        compare(
            f"{method}, 15 frames",
            lambda reduce=reduce: slow_window(probabilities, 7, reduce),
            lambda method=method: smooth(probabilities, method=method, half_width_frames=7),
        )


if __name__ == "__main__":
    main()
