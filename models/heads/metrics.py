"""The challenge's metrics (Kollias 2022, arXiv 2202.10659; Savchenko 2022, section 3). Higher is better for all."""

from typing import Any

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, BRANCHES, EXPRESSIONS, BranchName, TaskName

# The metric that ranks each task in the challenge.
MAIN_METRIC: dict[TaskName, str] = {"expr": "macro_f1", "va": "mean_ccc", "au": "mean_f1", "mtl": "p_mtl"}
# The recall of a class with fewer pictures is too noisy for the balanced accuracy.
_MIN_PICTURES = 20


def confusion_matrix(labels: np.ndarray, decisions: np.ndarray, *, class_count: int) -> np.ndarray:
    """Count pairs of class indices, int [n] each; returns [class_count, class_count]: row = label, column = decision.

    Raises:
        ValueError: the lengths differ, there is no row, or an index is out of range.
    """
    labels, decisions = np.asarray(labels), np.asarray(decisions)
    _check_pair(labels, decisions)
    if min(labels.min(), decisions.min()) < 0 or max(labels.max(), decisions.max()) >= class_count:
        raise ValueError(f"expected classes 0..{class_count - 1}, got {labels.min()}..{labels.max()} as labels")
    flat = labels.astype(np.int64) * class_count + decisions
    return np.bincount(flat, minlength=class_count**2).reshape(class_count, class_count)


def f1_per_class(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return the F1 of each expression, float64 [8]; 0 for a class without labels and decisions."""
    counts = confusion_matrix(labels, decisions, class_count=len(EXPRESSIONS))
    return _f1(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))


def macro_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Return the unweighted mean of F1 over all expressions; an absent class counts as 0, as in the challenge."""
    return float(f1_per_class(labels, decisions).mean())


def accuracy(labels: np.ndarray, decisions: np.ndarray) -> float:
    """Return the share of correct rows, 0..1."""
    _check_pair(np.asarray(labels), np.asarray(decisions))
    return float((np.asarray(labels) == np.asarray(decisions)).mean())


def ccc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the concordance correlation coefficient with population moments (Lin 1989, Biometrics 45, eq. 1), -1..1.

    It is 0 if both arrays are constant.
    """
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    _check_pair(x, y)
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else 0.0


def mean_ccc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean of the CCCs of valence and arousal over all rows pooled; arrays [n, 2]."""
    return (ccc(truth[:, 0], prediction[:, 0]) + ccc(truth[:, 1], prediction[:, 1])) / 2


def f1_per_unit(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return the binary F1 of each action unit, float64 [k]; labels int [n, k], -1: unlabelled, decisions 0 or 1.

    A missing label excludes only its own action unit of the row. The authors drop the whole row; the organisers' files
    label all action units of a row or none, so both give the same score there.
    """
    labels, decisions = np.asarray(labels), np.asarray(decisions)
    _check_pair(labels, decisions)
    known, decided = labels >= 0, decisions > 0
    hits = ((labels == 1) & decided).sum(axis=0)
    return _f1(hits, (labels == 1).sum(axis=0), (known & decided).sum(axis=0))


def score_branch(branch: BranchName, labels: np.ndarray, decisions: np.ndarray) -> dict[str, float]:
    """Return all metrics of one branch by name; rows without a label are ignored.

    Labels are int8 [n] with -1 (``expr``), float [n, 2] with NaN (``va``), int8 [n, 12] with -1 (``au``). Decisions
    are class indices [n], values [n, 2], zeros and ones [n, 12].

    Raises:
        ValueError: no row is labelled.
    """
    if branch == "expr":
        known = labels >= 0
        per_class = f1_per_class(labels[known], decisions[known])
        names = {f"f1_{name}": float(value) for name, value in zip(EXPRESSIONS, per_class, strict=True)}
        right = accuracy(labels[known], decisions[known])
        return {"macro_f1": float(per_class.mean()), "accuracy": right, **names}
    if branch == "va":
        known = np.asarray(~np.isnan(labels).any(axis=1))
        valence = ccc(labels[known, 0], decisions[known, 0])
        arousal = ccc(labels[known, 1], decisions[known, 1])
        return {"mean_ccc": (valence + arousal) / 2, "ccc_valence": valence, "ccc_arousal": arousal}
    known = np.asarray((labels >= 0).any(axis=1))
    per_unit = f1_per_unit(labels[known], decisions[known])
    return {"mean_f1": float(per_unit.mean())} | {
        f"f1_{name}": float(value) for name, value in zip(ACTION_UNITS, per_unit, strict=True)
    }


def score_branches(labels: dict[BranchName, np.ndarray], decisions: dict[BranchName, np.ndarray]) -> dict[str, float]:
    """Return the metrics of several branches; with all three, also ``p_mtl``, the sum of their main metrics."""
    scores: dict[str, float] = {}
    for branch, decided in decisions.items():
        scores |= score_branch(branch, labels[branch], decided)
    if len(decisions) == 3:
        scores["p_mtl"] = sum(scores[MAIN_METRIC[branch]] for branch in BRANCHES)
    return scores


def score_classes(classes: np.ndarray, decided: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """Return accuracy, mean recall of classes with at least 20 pictures, and recall and count per class.

    ``classes`` int [n] (-1: ignored), ``decided`` int [n].

    Raises:
        ValueError: nothing is labelled.
    """
    known = classes >= 0
    matrix = confusion_matrix(classes[known], decided[known], class_count=len(names))
    counts = matrix.sum(axis=1)
    recall = np.divide(matrix.diagonal(), counts, out=np.full(len(names), np.nan), where=counts > 0)
    enough = recall[counts >= min(_MIN_PICTURES, counts.max())]
    scores: dict[str, Any] = {
        "accuracy": float(matrix.diagonal().sum() / counts.sum()),
        "balanced_accuracy": float(enough.mean()),
    }
    if len(names) <= 16:
        scores["recall"] = {
            name: None if np.isnan(value) else float(value) for name, value in zip(names, recall, strict=True)
        }
        scores["pictures"] = {name: int(value) for name, value in zip(names, counts, strict=True)}
        scores["confusion"] = matrix.tolist()
    return scores


def _f1(hits: np.ndarray, positives: np.ndarray, decided: np.ndarray) -> np.ndarray:
    total = positives + decided
    return np.divide(2.0 * hits, total, out=np.zeros(len(total)), where=total > 0)


def _check_pair(labels: np.ndarray, decisions: np.ndarray) -> None:
    if labels.shape != decisions.shape:
        raise ValueError(f"expected labels and decisions of the same shape, got {labels.shape} and {decisions.shape}")
    if not len(labels):
        raise ValueError("expected at least one labelled row, got none")
