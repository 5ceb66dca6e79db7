"""Calibrated probabilities, and what is gained by deciding only where they are high."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from data_contracts.vocabulary import BranchName
from models.decisions.evaluation import calibration_of, count_rows, metrics_of_counts
from models.decisions.postprocessing import BranchRule, Scaling
from models.decisions.smoothing import to_logits
from models.heads.metrics import MAIN_METRIC

_COVERAGES = tuple(round(0.1 * step, 1) for step in range(10, 0, -1))
_STEPS = 50


class CoverageScore(NamedTuple):
    """The score of the decisions with the highest calibrated probabilities.

    Attributes:
        coverage: share of the labelled rows that are decided; of each action unit by itself.
        least_probability: the lowest probability of a decision among them.
        score: main metric of the branch on these rows; classes that do not occur count as 0.
        accuracy: share of their decisions that are right.
    """

    branch: BranchName
    coverage: float
    least_probability: float
    score: float
    accuracy: float


def fit_scaling(branch: BranchName, labels: np.ndarray, probability: np.ndarray) -> Scaling | None:
    """Return the scaling with the highest likelihood of the labels; None for ``va``, or without labels of a class.

    Expressions have one temperature (Guo et al. 2017, arXiv 1706.04599): it cannot change which class is the largest.
    Each action unit has a slope and an offset (Platt 1999): its loss is weighted by the frequency of the unit, which
    shifts its logit by an own constant, and a temperature alone cannot undo a shift. An action unit without both labels
    keeps its probabilities.

    Args:
        branch: of the probabilities.
        labels: as in ``score_branch``; -1 is ignored.
        probability: smoothed, [n, K].
    """
    if branch == "va":
        return None
    if branch == "expr":
        known = (labels >= 0) & ~np.isnan(probability[:, 0])
        if not known.any():
            return None
        return Scaling((_fit_inverse_temperature(labels[known], to_logits("expr", probability[known])),), (0.0,))
    lines = [_fit_line(labels[:, unit], probability[:, unit]) for unit in range(labels.shape[1])]
    return Scaling(tuple(slope for slope, _ in lines), tuple(offset for _, offset in lines))


def _fit_inverse_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.float32)
    own = float(shifted[rows, labels].mean(dtype=np.float64))

    def loss(logarithm: float) -> float:
        slope = np.float32(np.exp(logarithm))
        return float(np.log(np.exp(slope * shifted).sum(axis=1)).mean(dtype=np.float64) - slope * own)

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-3}).x))


def _fit_line(labels: np.ndarray, probability: np.ndarray) -> tuple[float, float]:
    """Return slope and offset by Newton's method, with a weak penalty that keeps separable labels finite."""
    usable = (labels >= 0) & ~np.isnan(probability)
    truth, logit = labels[usable] == 1, to_logits("au", probability[usable])
    if not truth.any() or truth.all():
        return 1.0, 0.0
    line, start = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    for _ in range(_STEPS):
        found = 1 / (1 + np.exp(-(line[0] * logit + line[1])))
        error, weight = found - truth, found * (1 - found)
        gradient = np.array([error @ logit, error.sum()]) + (line - start)
        cross = float(weight @ logit)
        hessian = np.array([[weight @ logit**2 + 1, cross], [cross, weight.sum() + 1]])
        step = np.linalg.solve(hessian, gradient)
        line -= step
        if np.abs(step).max() < 1e-6:
            break
    # A falling line would exchange active and inactive.
    return (float(line[0]), float(line[1])) if line[0] > 0 and np.isfinite(line).all() else (1.0, 0.0)


def with_scaling(branch: BranchName, rule: BranchRule, scaling: Scaling) -> BranchRule:
    """Return the rule for calibrated probabilities. Its decisions stay: bias and thresholds are scaled as well."""
    if branch == "expr":
        return replace(rule, scaling=scaling, class_bias=tuple(scaling.slopes[0] * value for value in rule.class_bias))
    logits = to_logits("au", np.array(rule.thresholds)) * np.array(scaling.slopes) + np.array(scaling.offsets)
    return replace(rule, scaling=scaling, thresholds=tuple((1 / (1 + np.exp(-logits))).tolist()))


def calibration_error(branch: BranchName, labels: np.ndarray, probability: np.ndarray) -> float:
    """Return the expected calibration error, 0..1: of the largest expression, or the mean over action units.

    Rows without a probability (NaN), of subjects without any face, are ignored.
    """
    if branch == "expr":
        known = (labels >= 0) & ~np.isnan(probability[:, 0])
        return calibration_of(probability[known].max(axis=1), probability[known].argmax(axis=1) == labels[known]).error
    errors = []
    for label, values in zip(labels.T, probability.T, strict=True):
        known = (label >= 0) & ~np.isnan(values)
        if known.any():
            errors.append(calibration_of(values[known], label[known] == 1).error)
    return float(np.mean(errors)) if errors else 0.0


def scores_by_coverage(
    branch: BranchName, labels: np.ndarray, probability: np.ndarray, decisions: np.ndarray
) -> list[CoverageScore]:
    """Return the score of the most certain decisions, for shares of 100 % to 10 % of the rows (nothing for ``va``).

    The certainty of a decision is its own probability: that of the decided expression, p of an active and 1 - p of an
    inactive action unit; 0 without a probability (NaN), for subjects without any face. Arguments as in
    ``score_branch``, and probabilities [n, K].
    """
    if branch == "va":
        return []
    if branch == "expr":
        certainty = probability[np.arange(len(labels)), decisions][:, None]
    else:
        certainty = np.where(decisions > 0, probability, 1 - probability)
    certainty = np.nan_to_num(certainty)
    known = labels.reshape(certainty.shape) >= 0
    ranks = _ranks(np.where(known, certainty, -np.inf))
    found = []
    for coverage in _COVERAGES:
        kept = known & (ranks < np.ceil(coverage * known.sum(axis=0)))
        if not kept.any():
            continue
        used = np.where(kept.reshape(labels.shape), labels, labels.dtype.type(-1))
        score = metrics_of_counts(branch, count_rows(branch, used, decisions))[MAIN_METRIC[branch]]
        right = (labels == decisions).reshape(kept.shape)[kept]
        least = float(certainty[kept].min())
        found.append(CoverageScore(branch, coverage, least, float(score), float(right.mean())))
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the position of each value [n, k] in its column, the highest first."""
    order = np.argsort(-values, axis=0, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(len(values))[:, None], axis=0)
    return ranks
