"""Tune post-processing on validation subjects, and score it on subjects that were not used for tuning."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from data_contracts.vocabulary import (
    ACTION_UNITS,
    BRANCHES_OF_TASK,
    EXPRESSIONS,
    BranchName,
    TaskName,
    normalize_name,
    video_of_subject,
)
from models.decisions.postprocessing import BranchRule, PostProcessing, untuned_postprocessing
from models.decisions.recipes import ClassBias, PostProcessingRecipe
from models.decisions.smoothing import Smoothing, interpolate_missing, smooth
from models.decisions.subject_outputs import SubjectOutputs, labelled_subjects, published_rows
from models.decisions.thresholds import GRID, grid_thresholds, optimal_thresholds
from models.engines.progress import report_progress
from models.heads.metrics import f1_per_unit, has_label, main_score, score_branches

_MIN_GAIN = 1e-6


class Candidate(NamedTuple):
    """One setting that tuning tried, and its score on the same subjects.

    Attributes:
        step: ``smoothing``; ``class bias``: one bias was changed while the others kept what was best before; or
            ``threshold``: of one action unit.
        method, half_width_frames: smoothing of the outputs.
        name: the expression or action unit whose bias or threshold is ``value``; both are None for ``smoothing``.
        score: main metric of the branch; for ``threshold``, the F1 of the action unit.
    """

    branch: BranchName
    step: Literal["smoothing", "class bias", "threshold"]
    method: str
    half_width_frames: int
    name: str | None
    value: float | None
    score: float


@dataclass(frozen=True)
class Fold:
    """Names of subjects, and the post-processing that was tuned on the videos of all other subjects."""

    subjects: tuple[str, ...]
    postprocessing: PostProcessing


@dataclass(frozen=True)
class Tuned:
    """Tuned post-processing, and its scores on the validation subjects.

    Attributes:
        untuned: score without smoothing, with thresholds of 0.5.
        tuned: in-sample score, on the subjects that were used for tuning.
        held_out: held-out score: each subject is decided by a rule tuned on the other folds of videos, and all rows are
            scored together. None if there are fewer than two videos.
        candidates: everything that was tried on all subjects, in order.
        folds: what the held-out score is computed with.
    """

    postprocessing: PostProcessing
    untuned: dict[str, float]
    tuned: dict[str, float]
    held_out: dict[str, float] | None
    candidates: list[Candidate]
    folds: tuple[Fold, ...] = ()

    def figures(self) -> dict[str, dict[str, float] | None]:
        """Return the three scores by name."""
        return {"untuned": self.untuned, "tuned": self.tuned, "held_out": self.held_out}


def tune_postprocessing(
    subjects: Sequence[SubjectOutputs], *, task: TaskName, recipe: PostProcessingRecipe, folds: int = 5
) -> Tuned:
    """Choose smoothing, thresholds and class bias for every branch of the task.

    Raises:
        ValueError: no subject has a label.
    """
    if recipe.scored_rows == "published":
        subjects = [published_rows(subject) for subject in subjects]
    labelled = labelled_subjects(subjects, task)
    tables = {branch: BranchCandidates(labelled, branch, recipe) for branch in BRANCHES_OF_TASK[task]}
    all_subjects = np.arange(len(labelled))
    tried: list[Candidate] = []
    rules = {branch: table.best_rule(all_subjects, tried) for branch, table in tables.items()}
    tuned = PostProcessing(task, recipe.interpolation, rules)
    if "au" in tables:
        tried += tables["au"].thresholds(all_subjects, tuned.rules["au"])

    def in_sample(chosen: PostProcessing) -> dict[str, float]:
        return score_folds(tables, [(all_subjects, all_subjects)], lambda table, _: chosen.rules[table.branch])

    splits = split_by_video([s.name for s in labelled], folds)
    fold_rules: list[dict[BranchName, BranchRule]] = [{} for _ in splits]

    def held_out_rule(table: BranchCandidates, tuned_on: np.ndarray) -> BranchRule:
        number = next(number for number, (one, _) in enumerate(splits) if one is tuned_on)
        fold_rules[number][table.branch] = table.best_rule(tuned_on)
        return fold_rules[number][table.branch]

    held_out = score_folds(tables, splits, held_out_rule) if splits else None
    return Tuned(
        tuned,
        in_sample(untuned_postprocessing(task)),
        in_sample(tuned),
        held_out,
        tried,
        tuple(
            Fold(tuple(labelled[at].name for at in scored), replace(tuned, rules=rules))
            for (_, scored), rules in zip(splits, fold_rules, strict=True)
        ),
    )


def has_several_subjects_of_a_video(subjects: Sequence[str]) -> bool:
    """Return whether two of the subjects are in one video; for fingerprints.

    Only then do folds of videos differ from the folds of subjects that earlier versions used.
    """
    return len(set(_number_videos(subjects))) < len(subjects)


def split_by_video(subjects: Sequence[str], folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (indices to tune on, indices to score) for each fold; all subjects of a video are in the same fold.

    There are as many folds as videos if there are fewer videos than ``folds``, and none if there is one video only.
    """
    # scikit-learn takes a while to import; commands that do not tune skip it.
    from sklearn.model_selection import GroupKFold

    videos = _number_videos(subjects)
    count = min(folds, len(set(videos)))
    return list(GroupKFold(count).split(subjects, groups=videos)) if count > 1 else []


def _number_videos(subjects: Sequence[str]) -> list[int]:
    """Return the number of each subject's video, in the order in which the videos appear."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(normalize_name(video_of_subject(subject)), len(numbers)) for subject in subjects]


def score_folds(
    tables: Mapping[BranchName, "BranchCandidates"],
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    choose: Callable[["BranchCandidates", np.ndarray], BranchRule],
) -> dict[str, float]:
    """Return the metrics of all subjects to score, those of each split decided by the rule that ``choose`` returns.

    Args:
        tables: by branch.
        splits: (indices to tune on, indices to score), as in ``split_by_video``.
        choose: gets a table and the indices to tune on.
    """
    labels, decisions = dict[BranchName, np.ndarray](), dict[BranchName, np.ndarray]()
    for branch, table in tables.items():
        labels[branch] = np.concatenate([table.labels(scored) for _, scored in splits])
        decisions[branch] = np.concatenate(
            [table.decide(scored, choose(table, tuned_on)) for tuned_on, scored in splits]
        )
    return score_branches(labels, decisions)


class BranchCandidates:
    """Outputs of one branch for all subjects and every candidate smoothing, at labelled rows only."""

    def __init__(self, subjects: Sequence[SubjectOutputs], branch: BranchName, recipe: PostProcessingRecipe) -> None:
        self.branch, self._recipe, self._search = branch, recipe, recipe.smoothings_of(branch)
        self._labels = [s.labels[branch] for s in subjects]
        wanted = dict.fromkeys((("none", 0), *self._search))
        self._smoothed: dict[Smoothing, list[np.ndarray]] = {choice: [] for choice in wanted}
        for number, subject in enumerate(subjects, 1):
            report_progress("smoothing {}: subject {:,} of {:,}", branch, number, len(subjects))
            filled = interpolate_missing(subject.outputs[branch], subject.present, direction=recipe.interpolation)
            for (method, half_width), parts in self._smoothed.items():
                parts.append(smooth(filled, method=method, half_width_frames=half_width)[subject.labelled_frame])

    def labels(self, subjects: Iterable[int]) -> np.ndarray:
        """Return the labels of the subjects, concatenated."""
        return np.concatenate([self._labels[s] for s in subjects])

    def _values(self, subjects: Iterable[int], smoothing: Smoothing) -> np.ndarray:
        return np.concatenate([self._smoothed[smoothing][s] for s in subjects])

    def decide(self, subjects: np.ndarray, rule: BranchRule) -> np.ndarray:
        """Return the decisions for the subjects' labelled rows."""
        return rule.decide(self.branch, self._values(subjects, (rule.method, rule.half_width_frames)))

    def best_rule(self, subjects: np.ndarray, tried: list[Candidate] | None = None) -> BranchRule:
        """Return the rule with the best score on these subjects, the first of equals; add candidates to ``tried``."""
        tried = [] if tried is None else tried
        labels = self.labels(subjects)
        best, best_score = BranchRule(), -np.inf
        for number, choice in enumerate(self._search, 1):
            report_progress(
                "tuning {} on {:,} subjects: {} of {}", self.branch, len(subjects), number, len(self._search)
            )
            rule = self.rule(subjects, choice)
            score = self._score(labels, self.decide(subjects, rule))
            tried.append(Candidate(self.branch, "smoothing", *choice, None, None, score))
            if score > best_score + _MIN_GAIN:
                best, best_score = rule, score
        if self.branch == "expr" and self._recipe.class_bias:
            best = self._with_bias(best, self._recipe.class_bias, subjects, tried)
        return best

    def thresholds(self, subjects: np.ndarray, rule: BranchRule) -> list[Candidate]:
        """Return the F1 of each action unit on the threshold grid, and at the threshold of the rule if it is another.

        The outputs are those on which the thresholds were chosen.
        """
        smoothing = self._smoothing_of_thresholds((rule.method, rule.half_width_frames))
        labels, values = self.labels(subjects), self._values(subjects, smoothing).astype(np.float64)
        found = []
        for thresholds in (*(np.full(len(ACTION_UNITS), value) for value in GRID), np.array(rule.thresholds)):
            f1 = f1_per_unit(labels, values >= thresholds)
            found += [
                Candidate(self.branch, "threshold", *smoothing, name, float(value), float(score))
                for name, value, score in zip(ACTION_UNITS, thresholds, f1, strict=True)
            ]
        return list(dict.fromkeys(found))

    def _smoothing_of_thresholds(self, choice: Smoothing) -> Smoothing:
        return ("none", 0) if self._recipe.thresholds_on == "unsmoothed" else choice

    def rule(self, subjects: np.ndarray, choice: Smoothing) -> BranchRule:
        """Return the rule with this smoothing, and the thresholds that are best on these subjects."""
        rule = BranchRule(*choice)
        if self.branch != "au":
            return rule
        search = grid_thresholds if self._recipe.thresholds == "grid" else optimal_thresholds
        values = self._values(subjects, self._smoothing_of_thresholds(choice))
        thresholds = search(self.labels(subjects), values)
        return replace(rule, thresholds=tuple(float(value) for value in thresholds))

    def _score(self, labels: np.ndarray, decisions: np.ndarray) -> float:
        return main_score(self.branch, labels, decisions) if has_label(self.branch, labels).any() else 0.0

    def _with_bias(
        self, rule: BranchRule, search: ClassBias, subjects: np.ndarray, tried: list[Candidate]
    ) -> BranchRule:
        """Choose the eight biases by coordinate ascent on a grid."""
        labels, values = self.labels(subjects), self._values(subjects, (rule.method, rule.half_width_frames))
        known = has_label("expr", labels)
        if not known.any():
            return rule
        labels, logarithm = labels[known], np.log(np.maximum(np.nan_to_num(values[known]), 1e-7))
        bias = np.zeros(8)
        best = main_score("expr", labels, logarithm.argmax(axis=1))
        for _ in range(search.passes):
            for position, name in enumerate(EXPRESSIONS):
                report_progress("tuning the class bias on {:,} rows: {}", len(labels), name)
                for step in np.linspace(-search.limit, search.limit, search.steps):
                    trial = bias.copy()
                    trial[position] = step
                    score = main_score("expr", labels, (logarithm + trial).argmax(axis=1))
                    smoothing = rule.method, rule.half_width_frames
                    tried.append(Candidate("expr", "class bias", *smoothing, name, float(step), score))
                    if score > best + _MIN_GAIN:
                        bias, best = trial, score
        return replace(rule, class_bias=tuple(bias.tolist()))
