"""Tune post-processing on validation subjects, and score it on subjects that were not used for tuning."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName
from models.decisions.postprocessing import BranchRule, PostProcessing, untuned_postprocessing
from models.decisions.smoothing import SMOOTHERS, interpolate_missing, smooth
from models.decisions.thresholds import grid_thresholds, optimal_thresholds
from models.heads.metrics import MAIN_METRIC, macro_f1, score_branch, score_branches

Setting = Literal["paper", "default"]
Smoothing = tuple[str, int]

# The best published validation results (Savchenko 2022, table 5); the multi-task entry is not smoothed.
_PAPER_SMOOTHING: dict[BranchName, Smoothing] = {"expr": ("mean", 7), "va": ("mean", 7), "au": ("median", 7)}
# The code version of the stage covers these smoothers; tuning with others needs a fingerprint of its own.
_FIRST_SMOOTHERS = ("none", "mean", "median", "gaussian")
_BIAS_STEPS = np.arange(-1.0, 1.01, 0.25)
_BIAS_ROUNDS = 2
_MIN_GAIN = 1e-6


def searched_smoothings() -> list[Smoothing]:
    """List what the setting ``default`` tries: every registered smoother with its half widths, in order."""
    return [(name, width) for name, smoother in SMOOTHERS.items() for width in smoother.searched_half_widths_frames]


def added_smoothings(setting: Setting) -> list[Smoothing]:
    """List the smoothings that the setting tries because a smoother was added to the registry; for fingerprints."""
    return [s for s in searched_smoothings() if s[0] not in _FIRST_SMOOTHERS] if setting == "default" else []


@dataclass(frozen=True, eq=False)
class SubjectOutputs:
    """One subject's outputs and labels.

    Attributes:
        outputs: branch -> float32 [T, K], NaN where the face is not present.
        present: bool [T], whether the frame shows the subject's face.
        labelled_frame: int [n], 0-based index into the T frames for each row of the labels.
        labels: branch -> labels of n rows; -1 or NaN: unlabelled.
    """

    name: str
    outputs: dict[BranchName, np.ndarray]
    present: np.ndarray
    labelled_frame: np.ndarray
    labels: dict[BranchName, np.ndarray]


@dataclass(frozen=True)
class Tuned:
    """Tuned post-processing, and its scores on the validation subjects.

    Attributes:
        untuned: score without smoothing, with thresholds of 0.5.
        tuned: in-sample score, on the subjects that were used for tuning.
        held_out: held-out score: each subject is decided by a rule tuned on the other folds, and all rows are scored
            together. None if there are fewer than two subjects.
    """

    postprocessing: PostProcessing
    untuned: dict[str, float]
    tuned: dict[str, float]
    held_out: dict[str, float] | None

    def figures(self) -> dict[str, dict[str, float] | None]:
        """Return the three scores by name."""
        return {"untuned": self.untuned, "tuned": self.tuned, "held_out": self.held_out}


def tune_postprocessing(
    subjects: Sequence[SubjectOutputs], *, task: TaskName, setting: Setting, folds: int = 5
) -> Tuned:
    """Choose smoothing, thresholds and class bias for every branch of the task.

    ``paper``: fixed windows; thresholds on the 0.1 grid, tuned on unsmoothed outputs and then used on smoothed ones.
    ``default``: searches for windows, exact thresholds and class bias. Rows without a face are scored by their
    interpolated values.

    Raises:
        ValueError: no subject has a label.
    """
    labelled = [s for s in sorted(subjects, key=lambda s: s.name) if len(s.labelled_frame)]
    if not labelled:
        raise ValueError(f"{task}: expected subjects with outputs and labels to tune on, found none")
    tables = {branch: _Candidates(labelled, task, branch, setting) for branch in BRANCHES_OF_TASK[task]}
    all_subjects = np.arange(len(labelled))
    tuned = PostProcessing(task, rules={branch: table.best_rule(all_subjects) for branch, table in tables.items()})

    def in_sample(chosen: PostProcessing) -> dict[str, float]:
        return _scored(tables, {b: (t.decide(all_subjects, chosen.rules[b]), all_subjects) for b, t in tables.items()})

    held_out = _held_out(tables, len(labelled), folds) if len(labelled) > 1 else None
    return Tuned(tuned, in_sample(untuned_postprocessing(task)), in_sample(tuned), held_out)


def _held_out(tables: dict[BranchName, "_Candidates"], count: int, folds: int) -> dict[str, float]:
    fold_of = np.arange(count) % min(folds, count)
    decided: dict[BranchName, tuple[np.ndarray, np.ndarray]] = {}
    for branch, table in tables.items():
        parts, order = [], []
        for fold in range(fold_of.max() + 1):
            inside, outside = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
            parts.append(table.decide(inside, table.best_rule(outside)))
            order.append(inside)
        decided[branch] = np.concatenate(parts), np.concatenate(order)
    return _scored(tables, decided)


def _scored(
    tables: dict[BranchName, "_Candidates"], decided: dict[BranchName, tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    labels = {branch: tables[branch].labels(order) for branch, (_, order) in decided.items()}
    return score_branches(labels, {branch: decisions for branch, (decisions, _) in decided.items()})


class _Candidates:
    """Outputs of one branch for all subjects and every candidate smoothing, at labelled rows only."""

    def __init__(
        self, subjects: Sequence[SubjectOutputs], task: TaskName, branch: BranchName, setting: Setting
    ) -> None:
        self._branch, self._setting = branch, setting
        published: Smoothing = ("none", 0) if task == "mtl" else _PAPER_SMOOTHING[branch]
        self._search = searched_smoothings() if setting == "default" else [published]
        self._labels = [s.labels[branch] for s in subjects]
        wanted = dict.fromkeys((("none", 0), *self._search))
        self._smoothed: dict[Smoothing, list[np.ndarray]] = {choice: [] for choice in wanted}
        for subject in subjects:
            filled = interpolate_missing(subject.outputs[branch], subject.present)
            for (method, half_width), parts in self._smoothed.items():
                parts.append(smooth(filled, method=method, half_width_frames=half_width)[subject.labelled_frame])

    def labels(self, subjects: Iterable[int]) -> np.ndarray:
        """Return the labels of the subjects, concatenated."""
        return np.concatenate([self._labels[s] for s in subjects])

    def _values(self, subjects: Iterable[int], smoothing: Smoothing) -> np.ndarray:
        return np.concatenate([self._smoothed[smoothing][s] for s in subjects])

    def decide(self, subjects: np.ndarray, rule: BranchRule) -> np.ndarray:
        """Return the decisions for the subjects' labelled rows."""
        return rule.decide(self._branch, self._values(subjects, (rule.method, rule.half_width_frames)))

    def best_rule(self, subjects: np.ndarray) -> BranchRule:
        """Return the rule with the best score on these subjects; the first of equals."""
        labels = self.labels(subjects)
        best, best_score = BranchRule(), -np.inf
        for choice in self._search:
            rule = self._rule(subjects, choice, labels)
            score = self._score(labels, self.decide(subjects, rule))
            if score > best_score + _MIN_GAIN:
                best, best_score = rule, score
        if self._branch == "expr" and self._setting == "default":
            return self._with_bias(best, labels, self._values(subjects, (best.method, best.half_width_frames)))
        return best

    def _rule(self, subjects: np.ndarray, choice: Smoothing, labels: np.ndarray) -> BranchRule:
        rule = BranchRule(*choice)
        if self._branch != "au":
            return rule
        if self._setting == "paper":
            thresholds = grid_thresholds(labels, self._values(subjects, ("none", 0)))
        else:
            thresholds = optimal_thresholds(labels, self._values(subjects, choice))
        return replace(rule, thresholds=tuple(float(value) for value in thresholds))

    def _score(self, labels: np.ndarray, decisions: np.ndarray) -> float:
        known = (labels >= 0) if labels.ndim == 1 else ~np.isnan(labels.astype(np.float32)).any(axis=1)
        if not known.any():
            return 0.0
        return score_branch(self._branch, labels, decisions)[MAIN_METRIC[self._branch]]

    def _with_bias(self, rule: BranchRule, labels: np.ndarray, values: np.ndarray) -> BranchRule:
        """Choose the eight biases by coordinate ascent on a grid."""
        known = labels >= 0
        if not known.any():
            return rule
        labels, logarithm = labels[known], np.log(np.maximum(np.nan_to_num(values[known]), 1e-7))
        bias = np.zeros(8)
        best = macro_f1(labels, logarithm.argmax(axis=1))
        for _ in range(_BIAS_ROUNDS):
            for position in range(8):
                for step in _BIAS_STEPS:
                    trial = bias.copy()
                    trial[position] = step
                    score = macro_f1(labels, (logarithm + trial).argmax(axis=1))
                    if score > best + _MIN_GAIN:
                        bias, best = trial, score
        return replace(rule, class_bias=tuple(bias.tolist()))
