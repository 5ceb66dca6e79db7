"""Tune post-processing on validation subjects, and score it on subjects that were not used for tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName
from models.decisions.postprocessing import BranchRule, PostProcessing
from models.decisions.recipes import PostProcessingRecipe
from models.decisions.subject_outputs import SubjectOutputs, labelled_subjects, published_rows
from models.heads.metrics import score_branches
from models.tuning.branch_search import BranchRows, BranchSearch, Candidate, search_of
from models.tuning.calibration import CoverageScore, calibration_error, scores_by_coverage
from models.tuning.folds import FOLDS, split_by_video


@dataclass(frozen=True)
class Fold:
    """Names of subjects, and the post-processing that was tuned on the videos of all other subjects."""

    subjects: tuple[str, ...]
    postprocessing: PostProcessing


@dataclass(frozen=True)
class CalibrationErrors:
    """The expected calibration error of smoothed probabilities before and after calibration, 0..1.

    Rows of a fold are calibrated by the scaling of the other folds; without a second video, by that of all rows.
    """

    before: float
    after: float


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
        calibration: of each branch that is calibrated.
        coverage: scores of the most certain decisions, held-out if there is a held-out score; of calibrated branches.
    """

    postprocessing: PostProcessing
    untuned: dict[str, float]
    tuned: dict[str, float]
    held_out: dict[str, float] | None
    candidates: list[Candidate]
    folds: tuple[Fold, ...] = ()
    calibration: dict[BranchName, CalibrationErrors] = field(default_factory=dict)
    coverage: list[CoverageScore] = field(default_factory=list)

    def figures(self) -> dict[str, dict[str, float] | None]:
        """Return the three scores by name."""
        return {"untuned": self.untuned, "tuned": self.tuned, "held_out": self.held_out}


def tune_postprocessing(
    subjects: Sequence[SubjectOutputs], *, task: TaskName, recipe: PostProcessingRecipe, folds: int = FOLDS
) -> Tuned:
    """Choose smoothing, thresholds, class bias and the other values of a rule for every branch of the task.

    Raises:
        ValueError: no subject has a label, or the recipe has a gate and the expressions of the backbone are missing.
    """
    if recipe.scored_rows == "published":
        subjects = [published_rows(subject) for subject in subjects]
    labelled = labelled_subjects(subjects, task)
    splits = [scored for _, scored in split_by_video([one.name for one in labelled], folds)]
    searches = searches_of(labelled, splits, task, recipe)
    rules: dict[BranchName, BranchRule] = {}
    fold_rules: list[dict[BranchName, BranchRule]] = [{} for _ in splits]
    tried: list[Candidate] = []
    for branch, search in searches.items():
        search.scan()
        rules[branch] = search.choose()
        tried += search.candidates(rules[branch])
        for number, of_fold in enumerate(fold_rules):
            of_fold[branch] = search.choose(frozenset({number}))
    tuned = PostProcessing(task, recipe.interpolation, rules)
    folds_of_rules = fold_rules or [rules]
    calibrated = {b: s for b, s in searches.items() if rules[b].scaling is not None}
    return Tuned(
        tuned,
        score_rules(searches, [dict.fromkeys(searches, BranchRule())]),
        score_rules(searches, [rules]),
        score_rules(searches, fold_rules) if splits else None,
        tried,
        tuple(
            Fold(tuple(labelled[at].name for at in scored), replace(tuned, rules=rules))
            for scored, rules in zip(splits, fold_rules, strict=True)
        ),
        {branch: _calibration_errors(search, folds_of_rules) for branch, search in calibrated.items()},
        [one for search in calibrated.values() for one in _coverage(search, folds_of_rules)],
    )


def searches_of(
    subjects: Sequence[SubjectOutputs], splits: Sequence[np.ndarray], task: TaskName, recipe: PostProcessingRecipe
) -> dict[BranchName, BranchSearch]:
    """Return the search for each branch of a task.

    Args:
        subjects: with labelled rows.
        splits: indices of the subjects of each fold; empty: one fold with all of them.
        task: its branches are searched.
        recipe: what is searched.
    """
    folds = splits or [np.arange(len(subjects))]
    return {branch: search_of(BranchRows(subjects, folds, branch, recipe), recipe) for branch in BRANCHES_OF_TASK[task]}


def score_rules(
    searches: Mapping[BranchName, BranchSearch], rules: Sequence[Mapping[BranchName, BranchRule]]
) -> dict[str, float]:
    """Return the metrics of all rows, decided by one rule or by a rule for each fold."""
    labels = {branch: search.rows.labels for branch, search in searches.items()}
    decisions = {
        branch: _by_fold(search.rows, [search.rows.decide(one[branch]) for one in rules])
        for branch, search in searches.items()
    }
    return score_branches(labels, decisions)


def _by_fold(rows: BranchRows, values: Sequence[np.ndarray]) -> np.ndarray:
    """Return for each fold the rows of its own array."""
    if len(values) == 1:
        return values[0]
    return np.concatenate([of_fold[part] for of_fold, part in zip(values, rows.folds, strict=True)])


def _calibration_errors(search: BranchSearch, rules: Sequence[Mapping[BranchName, BranchRule]]) -> CalibrationErrors:
    rows, branch = search.rows, search.branch
    of_branch = [one[branch] for one in rules]
    before = _by_fold(rows, [rows.smoothed(replace(one, scaling=None)) for one in of_branch])
    after = _by_fold(rows, [rows.smoothed(one) for one in of_branch])
    return CalibrationErrors(*(calibration_error(branch, rows.labels, one) for one in (before, after)))


def _coverage(search: BranchSearch, rules: Sequence[Mapping[BranchName, BranchRule]]) -> list[CoverageScore]:
    rows, branch = search.rows, search.branch
    smoothed = _by_fold(rows, [rows.smoothed(one[branch]) for one in rules])
    decisions = _by_fold(rows, [rows.decide(one[branch]) for one in rules])
    return scores_by_coverage(branch, rows.labels, smoothed, decisions)
