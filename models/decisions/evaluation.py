"""How good decisions and probabilities are: counts per subject, metrics of any sum of counts, bootstrap, calibration.

All metrics of the challenge depend on sums over rows: pairs of label and decision, or moments of values. A bootstrap
over videos therefore only adds the counts of the videos that it draws.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, DIMENSIONS, EXPRESSIONS, BranchName
from models.heads.metrics import f1_of_counts

RESAMPLES, CONFIDENCE, SEED = 1_000, 0.95, 0
# As in Guo et al. 2017.
CALIBRATION_BINS = 15
# Columns of the counts of an action unit, and of the moments of a dimension.
HITS, MISSES, FALSE_ALARMS, REJECTIONS = range(4)
_ROWS, _X, _Y, _XX, _YY, _XY = range(6)
# One metric -> value, or values of several resamples.
Metrics = dict[str, np.ndarray]


def count_rows(branch: BranchName, labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return the counts that the metrics of a branch depend on; rows without a label are ignored.

    Labels and decisions as in ``models.heads.metrics.score_branch``.

    Returns:
        float64 [8, 8] for ``expr``: rows per label and decision. [12, 4] for ``au``: rows that are active and decided
        so, active only, decided only, neither. [2, 6] for ``va``: rows, and the sums of label x, value y, x², y², xy.
    """
    if branch == "expr":
        known, count = labels >= 0, len(EXPRESSIONS)
        pairs = labels[known].astype(np.int64) * count + decisions[known]
        return np.bincount(pairs, minlength=count**2).reshape(count, count).astype(np.float64)
    if branch == "au":
        known, active, decided = labels >= 0, labels == 1, decisions > 0
        cells = (active & decided, active & ~decided, known & ~active & decided, known & ~active & ~decided)
        return np.stack([cell.sum(axis=0) for cell in cells], axis=1).astype(np.float64)
    known = ~np.isnan(labels).any(axis=1)
    x, y = labels[known].astype(np.float64), decisions[known].astype(np.float64)
    return np.stack([np.full(2, len(x), np.float64), *(v.sum(axis=0) for v in (x, y, x * x, y * y, x * y))], axis=1)


def metrics_of_counts(branch: BranchName, counts: np.ndarray) -> Metrics:
    """Return the metrics of a branch by name, as ``score_branch`` does.

    Counts are [..., 8, 8], [..., 12, 4] or [..., 2, 6]; every value has their leading shape. F1 is 0 without labels and
    decisions, CCC is 0 without variance.
    """
    if branch == "va":
        values = _ccc(counts)
        named = {f"ccc_{name}": values[..., at] for at, name in enumerate(DIMENSIONS)}
        return {"mean_ccc": values.mean(axis=-1)} | named
    if branch == "expr":
        hits = np.diagonal(counts, axis1=-2, axis2=-1)
        f1 = f1_of_counts(hits, counts.sum(axis=-1), counts.sum(axis=-2))
        accuracy = _divide(hits.sum(axis=-1), counts.sum(axis=(-2, -1)))
        named = {f"f1_{name}": f1[..., at] for at, name in enumerate(EXPRESSIONS)}
        return {"macro_f1": f1.mean(axis=-1), "accuracy": accuracy} | named
    hits = counts[..., HITS]
    f1 = f1_of_counts(hits, hits + counts[..., MISSES], hits + counts[..., FALSE_ALARMS])
    return {"mean_f1": f1.mean(axis=-1)} | {f"f1_{name}": f1[..., at] for at, name in enumerate(ACTION_UNITS)}


def _ccc(moments: np.ndarray) -> np.ndarray:
    rows = np.maximum(moments[..., _ROWS], 1)
    x, y, xx, yy, xy = (moments[..., at] / rows for at in (_X, _Y, _XX, _YY, _XY))
    spread = (xx - x * x) + (yy - y * y) + (x - y) ** 2
    # Rounding leaves a tiny spread of constant values.
    return _divide(2 * (xy - x * y), np.where(spread > 1e-12, spread, 0))


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval; they are None if there are fewer than two videos."""

    value: float
    low: float | None = None
    high: float | None = None


def bootstrap_intervals(
    counts: np.ndarray,
    metrics: Callable[[np.ndarray], Metrics],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Interval]:
    """Return each metric of all videos, with its bootstrap interval over videos.

    Videos are drawn with replacement, because frames of a video are not independent. The interval is bias-corrected and
    accelerated (BCa: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 14.3); where it is undefined,
    because the value of all resamples is on one side of the metric, it is that of percentiles (chapter 13.3).

    Args:
        counts: of each video, [V, ...].
        metrics: from the sum of the counts of some videos, [n, ...], to metrics [n].
        resamples: number of them.
        seed: of the drawn videos: equal counts give equal intervals.
    """
    from scipy.stats import bootstrap

    whole = {name: float(value[0]) for name, value in metrics(counts.sum(axis=0)[None]).items()}
    if len(counts) < 2:
        return {name: Interval(value) for name, value in whole.items()}

    def statistic(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        videos = np.moveaxis(drawn, axis, -1)
        weights = np.stack([np.bincount(one, minlength=len(counts)) for one in videos.reshape(-1, videos.shape[-1])])
        sums = np.tensordot(weights.astype(np.float64), counts, axes=1)
        return np.stack([value.reshape(videos.shape[:-1]) for value in metrics(sums).values()])

    # Metrics that are equal in all resamples have no BCa interval: an F1 without labels and decisions, for example.
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = bootstrap(
            (np.arange(len(counts)),),
            statistic,
            n_resamples=resamples,
            vectorized=True,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    ends = found.confidence_interval
    tail = (1 - CONFIDENCE) / 2
    plain = np.quantile(found.bootstrap_distribution, [tail, 1 - tail], axis=-1)
    low, high = np.where(np.isnan([ends.low, ends.high]), plain, [ends.low, ends.high])
    return {
        name: Interval(value, float(one_low), float(one_high))
        for (name, value), one_low, one_high in zip(whole.items(), low, high, strict=True)
    }


@dataclass(frozen=True)
class Calibration:
    """Predicted probabilities against the share of rows for which they are right, in bins of equal width.

    Attributes:
        mean_probability, share, rows: of each bin with rows, float64 [n], [n] and int64 [n].
        error: expected calibration error, the mean of abs(share - mean_probability) over rows, 0..1.
    """

    mean_probability: np.ndarray
    share: np.ndarray
    rows: np.ndarray
    error: float


def calibration_of(probability: np.ndarray, is_right: np.ndarray) -> Calibration:
    """Return the calibration of probabilities [n] of events bool [n] (Guo et al. 2017, arXiv 1706.04599, equation 3).

    For one of several classes, the probability is that of the decided class, and the event is that it is the label.
    """
    bins = CALIBRATION_BINS
    number = np.minimum((probability * bins).astype(np.int64), bins - 1)
    rows = np.bincount(number, minlength=bins)
    filled = rows > 0
    mean = np.bincount(number, probability, bins)[filled] / rows[filled]
    share = np.bincount(number, is_right, bins)[filled] / rows[filled]
    error = float(np.average(np.abs(share - mean), weights=rows[filled])) if filled.any() else 0.0
    return Calibration(mean, share, rows[filled], error)


def f1_of_thresholds(
    labels: np.ndarray, probability: np.ndarray, thresholds: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return the F1 of one action unit at each threshold, float64 [t].

    Labels are int8 [n] (-1: ignored), probabilities float [n] (NaN: never active).
    """
    known = labels >= 0
    active, values = labels[known] == 1, np.nan_to_num(probability[known].astype(np.float64), nan=-np.inf)
    # The number of rows at and above each threshold, from sorted values.
    hits = active.sum() - np.searchsorted(np.sort(values[active]), thresholds)
    decided = len(values) - np.searchsorted(np.sort(values), thresholds)
    return f1_of_counts(hits, active.sum(), decided)
