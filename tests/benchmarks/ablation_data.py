"""Simulated rows and validation subjects for the ablation, and fits on them."""

import numpy as np
from ablation_settings import Member

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, Precision, TaskName
from models.decisions.postprocessing import backbone_expressions
from models.decisions.subject_outputs import SubjectOutputs
from models.engines.precision import native_precision
from models.heads.fitting import FittedHead, TrainingData, fit_seeds
from models.heads.head import head_class
from models.heads.rows import TrainingRows
from models.heads.sequences import SubjectSequence
from tasks.fit.subject_features import nominal_seconds
from tasks.simulate.features import BACKBONES, draw_features
from tasks.simulate.labels import SubjectLabels, draw_labels, label_rule, shifted_state
from tasks.simulate.plan import plan_simulation


class SimulatedData:
    """The training and validation subjects of one task, with faces in all frames.

    Attributes:
        train: their features and labels.
        validation: names, features and labels.
    """

    def __init__(self, task: TaskName, *, scale: float, seed: int, backbone: str) -> None:
        """Draw them. ``scale`` and ``seed`` as of the command ``simulate``."""
        plan, rule = plan_simulation(scale, seed), label_rule(scale, seed)
        self._task, self._backbone = task, BACKBONES[backbone]
        self.train: list[SubjectSequence] = []
        self.validation: list[tuple[str, SubjectSequence]] = []
        for subject in plan.subjects:
            if (set_name := subject.sets.get(task)) not in ("train", "validation"):
                continue
            state = shifted_state(plan, subject, rule).state
            embeddings, logits = draw_features(self._backbone, seed, subject, state)
            labels = _labels_of(task, draw_labels(plan, subject), len(logits))
            frames = nominal_seconds(np.arange(1, len(logits) + 1))
            present = np.ones(len(logits), bool)
            sequence = SubjectSequence(embeddings.astype(np.float16), logits, present, frames, labels)
            if set_name == "train":
                self.train.append(sequence)
            else:
                self.validation.append((subject.name, sequence))

    def fit(self, member: Member, seed: int) -> FittedHead:
        """Fit a head with one seed."""
        sets = self.train, [one for _, one in self.validation]
        is_of_rows = head_class(member.recipe.kind).works_on == "rows"
        used: list[TrainingData] = [self._rows(one, member.every) if is_of_rows else one for one in sets]
        precision: Precision = "float32" if member.as_published else native_precision()
        recipe = member.recipe
        return fit_seeds(*used, task=self._task, recipe=recipe, precision=precision, first_seed=seed)

    def _rows(self, sequences: list[SubjectSequence], every: int) -> TrainingRows:
        """Return every n-th frame; of the multi-task lists, which are sparse, all that have a label."""
        branches = BRANCHES_OF_TASK[self._task]
        taken = [
            one[np.isin(np.arange(len(one)), one.labelled(branches))] if self._task == "mtl" else one[::every]
            for one in sequences
        ]
        return TrainingRows(
            np.concatenate([one.embeddings for one in taken]),
            np.concatenate([one.logits for one in taken]),
            {branch: np.concatenate([one.labels[branch] for one in taken]) for branch in branches},
        )

    def subjects(self, outputs: list[dict[BranchName, np.ndarray]]) -> list[SubjectOutputs]:
        """Return the validation subjects with the outputs of a head, one dict each."""
        return [
            SubjectOutputs(
                name,
                of_subject,
                one.present,
                np.arange(len(one)),
                dict(one.labels),
                backbone=backbone_expressions(one.logits, self._backbone.classes),
            )
            for (name, one), of_subject in zip(self.validation, outputs, strict=True)
        ]


def _labels_of(task: TaskName, drawn: SubjectLabels, frames: int) -> dict[BranchName, np.ndarray]:
    """Return the labels of every frame; those of the multi-task list for ``mtl``."""
    if task != "mtl":
        return {task: drawn.branches[task]}
    shapes = {"expr": ((frames,), np.int8), "va": ((frames, 2), np.float32), "au": ((frames, 12), np.int8)}
    labels = {}
    for branch in BRANCHES_OF_TASK["mtl"]:
        shape, kind = shapes[branch]
        labels[branch] = np.full(shape, np.nan if branch == "va" else -1, kind)
        labels[branch][drawn.mtl_frames - 1] = drawn.mtl[branch]
    return labels
