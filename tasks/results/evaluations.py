"""Evaluate heads on their validation subjects: counts per subject, from the outputs and labels of the store.

Nothing is fitted or tuned again. Decisions are those of the stored rules.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_contracts.challenge.names import match_names
from data_contracts.details.datasets import LabelsDetails
from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.errors import InputError, counted, first_names
from data_contracts.store.bundles import Bundle, read_file
from data_contracts.store.manifest import StoredUnit
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName, normalize_name, video_of_subject
from models.decisions.evaluation import Interval, Metrics, bootstrap_intervals, count_rows, metrics_of_counts
from models.decisions.postprocessing import PostProcessing, untuned_postprocessing
from models.decisions.subject_outputs import SubjectOutputs, published_rows
from models.heads.metrics import MAIN_METRIC
from tasks.fit.predict_outputs import read_subject
from tasks.fit.stored_heads import RULE_FILE, load_postprocessing
from tasks.fit.subject_features import frame_rates
from tasks.fit.tune_postprocessing import join_labels, recipe_of

UNTUNED, POST_PROCESSED, IN_SAMPLE, HELD_OUT = "untuned", "post-processed", "in-sample", "held-out"
# A stored score has this many digits in common with one of the same outputs and labels.
_SAME = 1e-4


@dataclass(frozen=True)
class Evaluation:
    """A head on its validation subjects.

    Attributes:
        rows: subjects with their outputs and the labels of the scored rows, by name.
        rules: kind of score (as the constants of this module) -> name of each subject -> the rule that decides it.
        rule: the post-processing of ``in-sample`` or ``post-processed`` decisions.
        notes: what a reader has to know about the scores.
    """

    head: Bundle
    task: TaskName
    rows: Sequence[SubjectOutputs]
    rules: Mapping[str, Mapping[str, PostProcessing]]
    rule: PostProcessing
    notes: Sequence[str] = field(default_factory=list)

    @functools.cached_property
    def counts(self) -> dict[str, dict[BranchName, np.ndarray]]:
        """Kind of score -> branch -> counts of each subject, [S, ...], as ``count_rows`` returns them."""
        return {kind: _count(self.rows, of_subject) for kind, of_subject in self.rules.items()}

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects."""
        return [one.name for one in self.rows]

    @property
    def best_kind(self) -> str:
        """The kind of score that says most about other videos: held-out, else post-processed, else in-sample."""
        return next(kind for kind in (HELD_OUT, POST_PROCESSED, IN_SAMPLE) if kind in self.rules)

    def counts_of_videos(self, kind: str) -> dict[BranchName, np.ndarray]:
        """Return the counts of each video, [V, ...], in the order of the first subjects of videos."""
        numbers: dict[str, int] = {}
        of_subject = [numbers.setdefault(normalize_name(video_of_subject(s)), len(numbers)) for s in self.subjects]
        summed = {}
        for branch, counts in self.counts[kind].items():
            summed[branch] = np.zeros((len(numbers), *counts.shape[1:]))
            np.add.at(summed[branch], of_subject, counts)
        return summed

    def intervals(self, kind: str) -> dict[str, Interval]:
        """Return every metric with its bootstrap interval over videos."""
        counts = self.counts_of_videos(kind)
        return bootstrap_intervals(join_counts(counts), joined_metrics(counts))


def join_counts(counts: Mapping[BranchName, np.ndarray]) -> np.ndarray:
    """Return the counts of several branches, [V, ...] each, as one array [V, n]."""
    return np.concatenate([values.reshape(len(values), -1) for values in counts.values()], axis=1)


def joined_metrics(counts: Mapping[BranchName, np.ndarray]) -> Callable[[np.ndarray], Metrics]:
    """Return the function from sums of joined counts [n, ...] to the metrics of all branches; of three, with p_mtl."""

    def metrics(sums: np.ndarray) -> Metrics:
        found: Metrics = {}
        at = 0
        for branch, values in counts.items():
            size = int(np.prod(values.shape[1:]))
            found |= metrics_of_counts(branch, sums[:, at : at + size].reshape(len(sums), *values.shape[1:]))
            at += size
        if len(counts) == 3:
            found["p_mtl"] = np.sum([found[MAIN_METRIC[branch]] for branch in counts], axis=0)
        return found

    return metrics


def evaluate_head(store: Store, head: Bundle, tuned: Bundle, *, all_rows: bool = False) -> Evaluation:
    """Score a head with its stored post-processing on the validation subjects that it was tuned on.

    Rows are those of ``fit``: with the recipe ``paper``, rows that show the face; with ``all_rows``, all labelled rows.

    Raises:
        InputError: labels or outputs of a subject are missing, because they were removed since.
    """
    details = PostprocessingDetails.of(tuned)
    task = details.task
    read = _read_rows(store, head, details)
    recipe = recipe_of(details)
    is_published = recipe.scored_rows == "published" and not all_rows
    rows = [published_rows(one) for one in read] if is_published else read
    rows = sorted((one for one in rows if len(one.labelled_frame)), key=lambda one: one.name)
    if not rows:
        raise InputError(f"{head.name}: expected labelled validation subjects, found none; run fit again")
    rule, names = load_postprocessing(store, tuned), [one.name for one in rows]
    kind = IN_SAMPLE if recipe.is_tuned(task) else POST_PROCESSED
    rules = {UNTUNED: dict.fromkeys(names, untuned_like(rule)), kind: dict.fromkeys(names, rule)}
    notes = []
    folds = _read_folds(store, tuned)
    if kind == IN_SAMPLE and set(names) <= set(folds):
        rules[HELD_OUT] = folds
    elif kind == IN_SAMPLE and details.figures.held_out:
        notes.append(
            "The interval of the held-out score is missing: an earlier version tuned this head and kept no rules of "
            "its folds. The next fit stores them."
        )
    evaluation = Evaluation(head, task, rows, rules, rule, notes)
    notes += _differences(evaluation, details, kind) if not all_rows else []
    return evaluation


def untuned_like(rule: PostProcessing) -> PostProcessing:
    """Return no smoothing, no class bias and thresholds of 0.5, with the rule's way to fill gaps."""
    return PostProcessing(rule.task, rule.direction, untuned_postprocessing(rule.task).rules)


def _differences(evaluation: Evaluation, details: PostprocessingDetails, kind: str) -> list[str]:
    """Return a line if the stored scores are not those of the outputs and labels that the store has now."""
    metric = HeadDetails.of(evaluation.head).figure
    stored = details.figures.of_metric(metric)[1]
    counts = evaluation.counts[kind]
    now = float(joined_metrics(counts)(join_counts(counts).sum(axis=0)[None])[metric][0])
    if stored is None or abs(stored - now) < _SAME:
        return []
    return [
        f"Outputs or labels have changed since this head was tuned: {metric} was {stored:.3f} ({kind}), and is "
        f"{now:.3f} with those of today, which the charts show."
    ]


def _count(rows: Sequence[SubjectOutputs], rules: Mapping[str, PostProcessing]) -> dict[BranchName, np.ndarray]:
    counted: dict[BranchName, list[np.ndarray]] = {}
    for one in rows:
        for branch, decisions in one.decide(rules[one.name]).items():
            counted.setdefault(branch, []).append(count_rows(branch, one.labels[branch], decisions[one.labelled_frame]))
    return {branch: np.stack(counts) for branch, counts in counted.items()}


def _read_rows(store: Store, head: Bundle, tuned: PostprocessingDetails) -> list[SubjectOutputs]:
    # A head that was fitted on both sets has the post-processing of another one, whose outputs it was tuned on.
    scored = tuned.tuned_with or head.name
    task = tuned.task
    labels = {key.value("set"): (key, m) for key, m in store.manifests("labels", task=task).items()}
    if "validation" not in labels:
        raise InputError(
            f"{head.name}: expected the validation labels of {task} in the store, found none; run fit again"
        )
    key, manifest = labels["validation"]
    names = match_names(LabelsDetails.of(manifest).subjects, tuned.subjects)
    source = HeadDetails.of(head).source
    units: dict[str, StoredUnit] = {
        key.value("subject"): StoredUnit(key, one)
        for key, one in store.manifests("outputs", head=scored, source=source).items()
    }
    missing = [subject for subject in tuned.subjects if subject not in units or subject not in names.values()]
    if missing:
        raise InputError(
            f"{head.name}: expected outputs and labels of {counted(len(tuned.subjects), 'validation subject')}, found "
            f"none of {first_names(missing)}; run fit again"
        )
    branches, rates = BRANCHES_OF_TASK[task], frame_rates(store, names.values())
    has_gate = bool(HeadDetails.of(head).gate_classes)
    return join_labels(
        store.read_unit(key, manifest),
        (
            (name, read_subject(store, units[one], branches, frames_per_second=rates[one], has_gate=has_gate))
            for name, one in names.items()
        ),
    )


def _read_folds(store: Store, tuned: Bundle) -> dict[str, PostProcessing]:
    """Return the post-processing that decides each subject in the held-out score; nothing of earlier versions."""
    content = json.loads(read_file(store, tuned, RULE_FILE))
    return {
        subject: PostProcessing.from_dict(fold) for fold in content.get("folds", ()) for subject in fold["subjects"]
    }
