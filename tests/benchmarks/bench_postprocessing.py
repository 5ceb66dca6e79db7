"""Thresholds and smoothing for arrays of the size of the AU validation set, against the loops of the notebook."""

from collections.abc import Callable, Iterator

import numpy as np
from pairs import Pair, run_script
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from models.decisions.smoothing import interpolate_missing, smooth
from models.decisions.thresholds import GRID, grid_thresholds, optimal_thresholds

UNITS = 12
# Rows of the AU validation set; frames and videos of the AU and expression validation videos together.
ROWS, FRAMES, VIDEOS = 445_836, 449_947, 105
# The published settings: filled gaps only, mean and median of 5 and 15 frames.
SETTINGS: tuple[tuple[str, int], ...] = (("none", 0), ("mean", 2), ("mean", 7), ("median", 2), ("median", 7))


def make_outputs(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate int8 labels [rows, 12] as frequent as in Aff-Wild2, and correlated float32 probabilities."""
    random = np.random.default_rng(0)
    share = np.array([0.12, 0.05, 0.16, 0.27, 0.4, 0.35, 0.24, 0.03, 0.03, 0.03, 0.63, 0.08])
    labels = (random.random((rows, UNITS)) < share).astype(np.int8)
    logits = 1.5 * labels + random.normal(0, 1, labels.shape) + np.log(share) - 1
    return labels, (1 / (1 + np.exp(-logits))).astype(np.float32)


def search_grid_by_loop(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Search the grid like the published notebook: four scikit-learn metrics for every action unit and threshold."""
    chosen = []
    for unit in range(labels.shape[1]):
        truth, p = labels[:, unit], probabilities[:, unit].astype(np.float64)
        scores = []
        for threshold in GRID:
            decided = p >= threshold
            precision_score(truth, decided, zero_division=0)
            recall_score(truth, decided)
            accuracy_score(truth, decided)
            scores.append(f1_score(truth, decided))
        chosen.append(GRID[int(np.argmax(scores))])
    return np.array(chosen)


def check_same_thresholds(expected: np.ndarray, got: np.ndarray) -> str:
    assert (expected == got).all(), f"thresholds {got}, expected {expected}"
    return "all thresholds identical"


def check_not_worse(labels: np.ndarray, probabilities: np.ndarray) -> Callable[[np.ndarray, np.ndarray], str]:
    """Return a check that exact thresholds have no lower F1 than those of the grid."""

    def check(grid: np.ndarray, exact: np.ndarray) -> str:
        scores = [
            np.array([f1_score(labels[:, u], probabilities[:, u].astype(np.float64) >= t[u]) for u in range(UNITS)])
            for t in (grid, exact)
        ]
        gain = scores[1] - scores[0]
        assert (gain >= 0).all(), f"F1 below that of the grid by {-gain.min()}"
        return f"mean F1 {gain.mean():+.4f} over the grid, no action unit below it"

    return check


def split_into_videos(values: np.ndarray, videos: int) -> list[np.ndarray]:
    """Split rows into videos of different lengths."""
    random = np.random.default_rng(1)
    cuts = np.sort(random.choice(np.arange(1, len(values)), videos - 1, replace=False))
    return [np.ascontiguousarray(part) for part in np.split(values, cuts)]


def fill_by_loop(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Fill gaps frame by frame, with the interpolation weights swapped like in the published notebook."""
    known = np.flatnonzero(present)
    result = np.array(values, np.float64)
    if not len(known):
        return np.full(values.shape, np.nan, np.float32)
    before, following = -1, 0
    for frame in range(len(values)):
        if present[frame]:
            before, following = frame, following + 1
            continue
        after = known[following] if following < len(known) else -1
        if before < 0 or after < 0:
            result[frame] = values[max(before, after)]
        else:
            share = (frame - before) / (after - before)
            result[frame] = share * values[before].astype(float) + (1 - share) * values[after].astype(float)
    return result.astype(np.float32)


def smooth_by_loop(values: np.ndarray, method: str, half_width: int) -> np.ndarray:
    """Smooth one window after the other; windows are truncated at the ends."""
    if method == "none":
        return values
    reduce = np.mean if method == "mean" else np.median
    frames = range(len(values))
    return np.stack([reduce(values[max(0, t - half_width) : t + half_width + 1], axis=0) for t in frames])


def gaussian_by_loop(values: np.ndarray, half_width: int) -> np.ndarray:
    """Smooth one window after the other; weights are renormalised at the ends."""
    offsets = np.arange(-half_width, half_width + 1)
    weights = np.exp(-(offsets**2) / (2 * (half_width / 2) ** 2))
    rows = []
    for t in range(len(values)):
        first, end = max(0, t - half_width), min(len(values), t + half_width + 1)
        kernel = weights[first - t + half_width : end - t + half_width]
        rows.append(kernel @ values[first:end].astype(float) / kernel.sum())
    return np.stack(rows).astype(np.float32)


def check_difference(limit: float) -> Callable[[list[np.ndarray], list[np.ndarray]], str]:
    """Return a check that two lists of arrays differ by at most ``limit``."""

    def check(expected: list[np.ndarray], got: list[np.ndarray]) -> str:
        largest = max(float(np.nanmax(np.abs(a - b))) for a, b in zip(expected, got, strict=True))
        assert largest <= limit, f"up to {largest:.2e} apart, allowed {limit:.0e}"
        return "identical" if largest == 0 else f"at most {largest:.1e} apart"

    return check


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Yield pairs for thresholds, all published smoothings, and wide windows."""
    rows, frames, videos = (40_000, 20_000, 5) if quick else (ROWS, FRAMES, VIDEOS)
    labels, probabilities = make_outputs(rows)
    size = f"{rows:,} x {UNITS}"
    yield Pair(
        f"thresholds on the grid, {size}, scikit-learn's loop",
        lambda: search_grid_by_loop(labels, probabilities),
        lambda: grid_thresholds(labels, probabilities),
        check_same_thresholds,
        goal=900,
        rounds=7,
        reference_rounds=1,
    )
    yield Pair(
        f"exact thresholds, {size}, scikit-learn's loop over the grid",
        lambda: search_grid_by_loop(labels, probabilities),
        lambda: optimal_thresholds(labels, probabilities),
        check_not_worse(labels, probabilities),
        goal=15,
        rounds=7,
        reference_rounds=1,
    )
    present = split_into_videos(np.random.default_rng(2).random(frames) < 0.97, videos)
    outputs = split_into_videos(probabilities[np.arange(frames) % rows], videos)

    def run_reference() -> list[np.ndarray]:
        filled = [fill_by_loop(v, p) for v, p in zip(outputs, present, strict=True)]
        return [smooth_by_loop(v, method, half_width) for method, half_width in SETTINGS for v in filled]

    def ours() -> list[np.ndarray]:
        filled = [interpolate_missing(v, p, direction="published") for v, p in zip(outputs, present, strict=True)]
        return [smooth(v, method=m, half_width_frames=half_width) for m, half_width in SETTINGS for v in filled]

    yield Pair(
        f"gap filling and the five published smoothings, {frames:,} frames x {UNITS}, Python loops",
        run_reference,
        ours,
        check_difference(1e-6),
        goal=10,
        reference_rounds=1,
        work=frames,
        unit="frames",
    )
    few = outputs[: max(1, videos // 20)]
    count = sum(len(v) for v in few)
    for method, half_width in (("mean", 500), ("median", 50), ("median", 500), ("gaussian", 50), ("gaussian", 500)):

        def run_wide_reference(method: str = method, half_width: int = half_width) -> list[np.ndarray]:  # type: ignore
            one = gaussian_by_loop if method == "gaussian" else lambda v, h: smooth_by_loop(v, method, h)
            return [one(v, half_width) for v in few]

        yield Pair(
            f"{method} of {2 * half_width + 1} frames, {count:,} frames x {UNITS}, Python loops",
            run_wide_reference,
            lambda method=method, h=half_width: [smooth(v, method=method, half_width_frames=h) for v in few],
            check_difference(0 if method == "median" else 1e-6),
            reference_rounds=1,
            work=count,
            unit="frames",
        )


if __name__ == "__main__":
    run_script(make_pairs)
