"""Weights of blends, from folds of videos.

They are chosen by ensemble selection (Caruana et al. 2004, Ensemble selection from libraries of models): beginning
with none, the head that improves the metric most is added again and again, and a weight is the share of the additions.
They are therefore at least 0 and sum to 1. The selection runs once without each fold of videos. The weights are the
mean of these runs; each fold keeps those that were chosen without its videos, so that its outputs are held out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName
from models.decisions.blending import Weights, blend_subject
from models.decisions.recipes import PostProcessingRecipe
from models.decisions.smoothing import Smoothing, interpolate_missing, smooth_outputs
from models.decisions.subject_outputs import SubjectOutputs, labelled_subjects, published_rows
from models.decisions.thresholds import optimal_thresholds
from models.engines.progress import report_progress
from models.heads.metrics import has_label, main_score, score_branches
from models.tuning.folds import FOLDS, split_by_video
from models.tuning.tuning import Fold, Tuned, tune_postprocessing

_ADDITIONS = 20
# Selection sees smoothed outputs, because these are decided: over two seconds, unless the recipe has one window.
_SMOOTHING = Smoothing("mean", 25)
# Neighbouring frames are alike, so that some of the rows are enough.
_MOST_ROWS = 40_000


@dataclass(frozen=True)
class FoldWeights:
    """Subjects of a fold of videos, and the weights that were chosen without them."""

    subjects: tuple[str, ...]
    weights: Weights


@dataclass(frozen=True)
class ChosenWeights:
    """Weights for new videos, and those of each fold."""

    weights: Weights
    folds: tuple[FoldWeights, ...]


def choose_weights(
    subjects: Sequence[Sequence[SubjectOutputs]], *, task: TaskName, recipe: PostProcessingRecipe, folds: int = FOLDS
) -> ChosenWeights:
    """Choose the weights of the members of a blend.

    Args:
        subjects: each one's outputs of every member, with the same labels.
        task: of the heads.
        recipe: of the post-processing, whose rows are scored.
        folds: number of them; videos stay together. A single video has no folds: weights are chosen on it.

    Raises:
        ValueError: no subject has a label.
    """
    known = {one.name for one in labelled_subjects([members[0] for members in subjects], task)}
    subjects = sorted((one for one in subjects if one[0].name in known), key=lambda one: one[0].name)
    names = [members[0].name for members in subjects]
    splits = split_by_video(names, folds)
    chosen: list[dict[BranchName, tuple[float, ...]]] = [{} for _ in splits or (None,)]
    for branch in BRANCHES_OF_TASK[task]:
        labels, outputs = _rows_of(subjects, branch, recipe)
        for number, of_fold in enumerate(chosen):
            report_progress("choosing weights of {}: fold {} of {}", branch, number + 1, len(chosen))
            tuned_on = splits[number][0] if splits else np.arange(len(subjects))
            of_fold[branch] = _select(branch, [labels[at] for at in tuned_on], [outputs[at] for at in tuned_on])
    means = {
        branch: tuple(float(value) for value in np.mean([of_fold[branch] for of_fold in chosen], axis=0))
        for branch in BRANCHES_OF_TASK[task]
    }
    kept = [
        FoldWeights(tuple(names[at] for at in scored), of_fold)
        for (_, scored), of_fold in zip(splits, chosen, strict=False)
    ]
    return ChosenWeights(means, tuple(kept))


def selection_smoothing(recipe: PostProcessingRecipe, branch: BranchName) -> Smoothing:
    """Return the smoothing of the outputs that weights are chosen on."""
    tried = recipe.smoothings_of(branch)
    return tried[0] if len(tried) == 1 else _SMOOTHING


def _rows_of(
    subjects: Sequence[Sequence[SubjectOutputs]], branch: BranchName, recipe: PostProcessingRecipe
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return labels [n, ...] and smoothed outputs of the members [M, n, K] at some labelled rows of each subject."""
    smoothing = selection_smoothing(recipe, branch)
    rows = sum(len(members[0].labelled_frame) for members in subjects)
    every = max(rows // _MOST_ROWS, 1)
    labels, outputs = [], []
    for members in subjects:
        # A subject that a member does not know has the mean of the others.
        mean = blend_subject(members, {branch: [1.0] * len(members)})
        if recipe.scored_rows == "published":
            mean = published_rows(mean)
        used = mean.labelled_frame[::every]
        of_members = []
        for one in members:
            has_any = bool(one.present.any())
            source, present = (one.outputs, one.present) if has_any else (mean.outputs, mean.present)
            filled = interpolate_missing(source[branch], present)
            smoothed = smooth_outputs(branch, filled, smoothing, frames_per_second=one.frames_per_second)
            of_members.append(_padded(smoothed, used))
        labels.append(mean.labels[branch][::every])
        outputs.append(np.stack(of_members))
    return labels, outputs


def _padded(values: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return the values of frames, [n, K]; those after the last one have the last value."""
    return values[np.minimum(frames, len(values) - 1)]


def _select(branch: BranchName, labels: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> tuple[float, ...]:
    """Return the weights with the best score, by ensemble selection; equal ones if nothing is labelled."""
    truth, values = np.concatenate(labels), np.concatenate(outputs, axis=1)
    known = has_label(branch, truth) & np.isfinite(values).all(axis=(0, 2))
    truth, values = truth[known], values[:, known].astype(np.float64)
    members = len(values)
    if not len(truth):
        return (1 / members,) * members
    counts, total = np.zeros(members), np.zeros(values.shape[1:])
    alone = [_score(branch, truth, one) for one in values]
    for added in range(1, _ADDITIONS + 1):
        scores = [_score(branch, truth, (total + one) / added) for one in values]
        # Of equal blends, the one with more of the better head.
        best = max(range(members), key=lambda number: (scores[number], alone[number]))
        counts[best] += 1
        total += values[best]
    return tuple((counts / _ADDITIONS).tolist())


def _score(branch: BranchName, labels: np.ndarray, values: np.ndarray) -> float:
    """Return the main metric of outputs: action units with their best thresholds, expressions without class bias."""
    if branch == "expr":
        return main_score(branch, labels, values.argmax(axis=1))
    if branch == "au":
        return main_score(branch, labels, (values >= optimal_thresholds(labels, values)).astype(np.int8))
    return main_score(branch, labels, values)


def hold_out(
    tuned: Tuned, subjects: Sequence[Sequence[SubjectOutputs]], chosen: ChosenWeights, *, recipe: PostProcessingRecipe
) -> Tuned:
    """Return the tuned post-processing with the rules of its folds and its held-out score as for a blend.

    Neither the weights nor the rule that decide a video were chosen with it: each fold is decided by the rule that is
    tuned on the other videos, whose outputs are blended with the weights of this fold.
    """
    task, folds = tuned.postprocessing.task, []
    labels: dict[BranchName, list[np.ndarray]] = {branch: [] for branch in BRANCHES_OF_TASK[task]}
    decisions: dict[BranchName, list[np.ndarray]] = {branch: [] for branch in BRANCHES_OF_TASK[task]}
    for fold in chosen.folds:
        blended = [blend_subject(members, fold.weights) for members in subjects]
        others = [one for one in blended if one.name not in fold.subjects]
        rule = tune_postprocessing(others, task=task, recipe=recipe, folds=1).postprocessing
        folds.append(Fold(fold.subjects, rule))
        for one in blended:
            scored = published_rows(one) if recipe.scored_rows == "published" else one
            for branch, decided in one.decide(rule).items() if one.name in fold.subjects else ():
                labels[branch].append(scored.labels[branch])
                decisions[branch].append(decided[scored.labelled_frame])
    if not folds:
        return replace(tuned, held_out=None, folds=())
    joined = [{branch: np.concatenate(found) for branch, found in one.items()} for one in (labels, decisions)]
    return replace(tuned, held_out=score_branches(*joined), folds=tuple(folds))
