"""The scores that the paper publishes of one head: its thresholds, and its five smoothings (Tables 1 to 6)."""

from collections.abc import Sequence

import numpy as np

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName
from models.decisions.postprocessing import BranchRule
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS, Direction, interpolate_missing, smooth
from models.decisions.thresholds import grid_thresholds
from models.decisions.tuning import SubjectOutputs, direction_of, published_rows, split_by_video
from models.heads.metrics import score_branches

# Names of decisions, besides ``PUBLISHED_SMOOTHINGS``. All but the last two use the thresholds of the grid that are
# best on the same subjects.
UNSMOOTHED = "none"
HALF_THRESHOLDS, HELD_OUT = "thresholds 0.5", "held-out"


def score_published(
    subjects: Sequence[SubjectOutputs], *, task: TaskName, folds: int = 5
) -> dict[str, dict[str, float]]:
    """Return the metrics of ``score_branches`` for each of the published decisions, by name.

    Rows without a face are excluded, as published. Names are those of ``PUBLISHED_SMOOTHINGS`` (``mtl``: unsmoothed
    only). Tasks with action units also have ``HALF_THRESHOLDS`` and ``HELD_OUT``, both without smoothing; the
    thresholds of the latter are tuned on the other folds of videos. Without a second video, it is left out.

    Raises:
        ValueError: a branch of the task has no label.
    """
    branches = BRANCHES_OF_TASK[task]
    used = [published_rows(subject) for subject in sorted(subjects, key=lambda one: one.name)]
    used = [subject for subject in used if len(subject.labelled_frame)]
    if not used:
        raise ValueError(f"{task}: expected subjects with outputs and labels to score, found none")
    labels = {branch: np.concatenate([subject.labels[branch] for subject in used]) for branch in branches}
    direction = direction_of(task, "paper")
    unsmoothed = {branch: _values(used, branch, UNSMOOTHED, direction) for branch in branches}

    def score(smoothing: str, rule: BranchRule) -> dict[str, float]:
        values = unsmoothed
        if smoothing != UNSMOOTHED:
            values = {branch: _values(used, branch, smoothing, direction) for branch in branches}
        return score_branches(labels, {branch: rule.decide(branch, values[branch]) for branch in branches})

    if "au" not in branches:
        return {name: score(name, BranchRule()) for name in PUBLISHED_SMOOTHINGS}
    thresholds = grid_thresholds(labels["au"], unsmoothed["au"])
    names = (UNSMOOTHED,) if task == "mtl" else PUBLISHED_SMOOTHINGS
    scores = {name: score(name, _with_thresholds(thresholds)) for name in names}
    scores[HALF_THRESHOLDS] = score(UNSMOOTHED, BranchRule())
    splits = split_by_video([subject.name for subject in used], folds)
    if splits:
        decisions = {branch: BranchRule().decide(branch, unsmoothed[branch]) for branch in branches}
        decisions["au"] = _decide_held_out(used, labels["au"], unsmoothed["au"], splits)
        scores[HELD_OUT] = score_branches(labels, decisions)
    return scores


def _values(subjects: Sequence[SubjectOutputs], branch: BranchName, smoothing: str, direction: Direction) -> np.ndarray:
    """Return the smoothed outputs of all labelled rows, float32 [n, K]."""
    method, half_width = PUBLISHED_SMOOTHINGS[smoothing]
    parts = []
    for subject in subjects:
        filled = interpolate_missing(subject.outputs[branch], subject.present, direction=direction)
        parts.append(smooth(filled, method=method, half_width_frames=half_width)[subject.labelled_frame])
    return np.concatenate(parts)


def _with_thresholds(thresholds: np.ndarray) -> BranchRule:
    return BranchRule(thresholds=tuple(thresholds.tolist()))


def _decide_held_out(
    subjects: Sequence[SubjectOutputs],
    labels: np.ndarray,
    values: np.ndarray,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Return the decisions for each row with thresholds that were tuned on the other folds, uint8 [n, 12]."""
    number = np.repeat(np.arange(len(subjects)), [len(subject.labelled_frame) for subject in subjects])
    decisions = np.zeros(values.shape, np.uint8)
    for outside, inside in splits:
        tuned_on, scored = np.isin(number, outside), np.isin(number, inside)
        rule = _with_thresholds(grid_thresholds(labels[tuned_on], values[tuned_on]))
        decisions[scored] = rule.decide("au", values[scored])
    return decisions
