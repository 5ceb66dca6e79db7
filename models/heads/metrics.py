"""The challenge's metrics (Kollias 2022, arXiv 2202.10659; Savchenko 2022, section 3). Higher is better for all."""

from dataclasses import dataclass

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, BRANCHES, EXPRESSIONS, BranchName, TaskName

# The metric that ranks each task in the challenge.
MAIN_METRIC: dict[TaskName, str] = {"expr": "macro_f1", "va": "mean_ccc", "au": "mean_f1", "mtl": "p_mtl"}
# The recall of a class with fewer pictures is too noisy for the balanced accuracy.
_MIN_PICTURES = 20
_MOST_LISTED_CLASSES = 16


def main_score(branch: BranchName, labels: np.ndarray, decisions: np.ndarray) -> float:
    """Return the metric that ranks a branch; see ``score_branch`` for arguments and errors.

    Fitting and tuning compare hundreds of candidates by this metric. Therefore its F1 is counted here: scikit-learn's
    ``f1_score`` takes 31 ms instead of 0.5 ms for 280,532 expressions (950 candidates per head), and 425 ms instead of
    28 ms for 445,836 rows of action units. Scores that are reported come from scikit-learn.
    """
    known = _labelled_rows(branch, labels, decisions)
    labels, decisions = labels[known], decisions[known]
    if branch == "va":
        return mean_ccc(labels, decisions)
    if branch == "au":
        return float(f1_per_unit(labels, decisions).mean())
    count = len(EXPRESSIONS)
    pairs = np.bincount(labels.astype(np.int64) * count + decisions, minlength=count**2).reshape(count, count)
    return float(f1_of_counts(np.diag(pairs), pairs.sum(axis=1), pairs.sum(axis=0)).mean())


def f1_per_unit(labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return the F1 of each action unit, float64 [k], counted as fast as in ``main_score``; -1: no label."""
    positive, decided = labels == 1, (decisions > 0) & (labels >= 0)
    return f1_of_counts((positive & decided).sum(axis=0), positive.sum(axis=0), decided.sum(axis=0))


def f1_of_counts(hits: np.ndarray, positives: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Return the F1 of classes, float64 [k], from the numbers of rows that are right, labelled and decided so [k].

    It is 0 for a class without labels and decisions.
    """
    total = np.asarray(positives + decided, np.float64)
    return np.divide(2.0 * hits, total, out=np.zeros(total.shape), where=total > 0)


def ccc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the concordance correlation coefficient of values [n], -1..1 (Lin 1989, Biometrics 45, eq. 1).

    Moments are those of the population. It is 0 if both arrays are constant.
    """
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    _check_pair(x, y)
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else 0.0


def mean_ccc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean of the CCCs of valence and arousal over all rows pooled; arrays [n, 2]."""
    return (ccc(truth[:, 0], prediction[:, 0]) + ccc(truth[:, 1], prediction[:, 1])) / 2


def score_branch(branch: BranchName, labels: np.ndarray, decisions: np.ndarray) -> dict[str, float]:
    """Return all metrics of one branch by name; rows without a label are ignored.

    Labels are int8 [n] with -1 (``expr``), float [n, 2] with NaN (``va``), int8 [n, 12] with -1 (``au``). Decisions
    are class indices [n], values [n, 2], zeros and ones [n, 12].

    As in the challenge, the F1 of a class without labels and decisions is 0, and the mean includes it. A missing label
    of an action unit excludes only that action unit of the row. The authors drop the whole row; the organisers' files
    label all action units of a row or none, so both give the same score there.

    Raises:
        ValueError: no row is labelled, the shapes differ, or a class is out of range.
    """
    # scikit-learn takes a while to import; commands that compute no score skip it.
    from sklearn.metrics import accuracy_score, f1_score

    known = _labelled_rows(branch, labels, decisions)
    labels, decisions = labels[known], decisions[known]
    if branch == "va":
        valence, arousal = ccc(labels[:, 0], decisions[:, 0]), ccc(labels[:, 1], decisions[:, 1])
        return {"mean_ccc": (valence + arousal) / 2, "ccc_valence": valence, "ccc_arousal": arousal}
    if branch == "expr":
        classes = range(len(EXPRESSIONS))
        per_class = f1_score(labels, decisions, labels=classes, average=None, zero_division=0)
        names = {f"f1_{name}": float(value) for name, value in zip(EXPRESSIONS, per_class, strict=True)}
        return {"macro_f1": float(per_class.mean()), "accuracy": float(accuracy_score(labels, decisions)), **names}
    per_unit = []
    for label, decided in zip(labels.T, decisions.T > 0, strict=True):
        usable = label >= 0
        f1 = f1_score(label[usable] == 1, decided[usable], zero_division=0) if usable.any() else 0
        per_unit.append(float(f1))
    return {"mean_f1": float(np.mean(per_unit))} | {
        f"f1_{name}": value for name, value in zip(ACTION_UNITS, per_unit, strict=True)
    }


def score_branches(labels: dict[BranchName, np.ndarray], decisions: dict[BranchName, np.ndarray]) -> dict[str, float]:
    """Return the metrics of several branches; with all three, also ``p_mtl``, the sum of their main metrics."""
    scores: dict[str, float] = {}
    for branch, decided in decisions.items():
        scores |= score_branch(branch, labels[branch], decided)
    if len(decisions) == 3:
        scores["p_mtl"] = sum(scores[MAIN_METRIC[branch]] for branch in BRANCHES)
    return scores


@dataclass(frozen=True)
class ClassScores:
    """Scores of decided classes. Fields for each class are None if there are more than 16 classes.

    Attributes:
        accuracy: share of right decisions.
        balanced_accuracy: mean recall of the classes with at least 20 pictures.
        recall: class -> recall, None without pictures.
        pictures: class -> number of pictures.
        confusion: number of pictures per true class (outer list) and decided class.
    """

    accuracy: float
    balanced_accuracy: float
    recall: dict[str, float | None] | None = None
    pictures: dict[str, int] | None = None
    confusion: list[list[int]] | None = None


def score_classes(classes: np.ndarray, decided: np.ndarray, names: tuple[str, ...]) -> ClassScores:
    """Return the scores of decisions. ``classes`` int [n] (-1: ignored), ``decided`` int [n].

    Raises:
        ValueError: nothing is labelled.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

    known = classes >= 0
    classes, decided = classes[known], decided[known]
    _check_pair(classes, decided)
    every = range(len(names))
    recall = recall_score(classes, decided, labels=every, average=None, zero_division=np.nan)
    counts = np.bincount(classes, minlength=len(names))
    enough = recall[counts >= min(_MIN_PICTURES, counts.max())]
    accuracies = float(accuracy_score(classes, decided)), float(enough.mean())
    if len(names) > _MOST_LISTED_CLASSES:
        return ClassScores(*accuracies)
    return ClassScores(
        *accuracies,
        recall={name: None if np.isnan(value) else float(value) for name, value in zip(names, recall, strict=True)},
        pictures={name: int(value) for name, value in zip(names, counts, strict=True)},
        confusion=confusion_matrix(classes, decided, labels=every).tolist(),
    )


def has_label(branch: BranchName, labels: np.ndarray) -> np.ndarray:
    """Return which rows have a label of the branch, bool [n]; of action units, any of them."""
    if branch == "va":
        return np.asarray(~np.isnan(labels).any(axis=1))
    return np.asarray(labels >= 0 if branch == "expr" else (labels >= 0).any(axis=1))


def _labelled_rows(branch: BranchName, labels: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return which rows have a label, bool [n]; see ``score_branch`` for errors."""
    _check_pair(labels, decisions)
    known = has_label(branch, labels)
    if not known.any():
        raise ValueError("expected at least one labelled row, got none")
    if branch == "expr":
        used, classes = np.concatenate([labels[known], decisions[known]]), len(EXPRESSIONS)
        if used.min() < 0 or used.max() >= classes:
            raise ValueError(f"expected classes 0..{classes - 1}, got {used.min()}..{used.max()}")
    return known


def _check_pair(labels: np.ndarray, decisions: np.ndarray) -> None:
    if labels.shape != decisions.shape:
        raise ValueError(f"expected labels and decisions of the same shape, got {labels.shape} and {decisions.shape}")
    if not len(labels):
        raise ValueError("expected at least one labelled row, got none")
