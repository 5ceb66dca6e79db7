"""Outputs and labels of one subject, the decisions of a rule, and the labelled rows that scores depend on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_contracts.vocabulary import BranchName, TaskName
from models.decisions.postprocessing import PostProcessing
from models.decisions.smoothing import NOMINAL_FRAMES_PER_SECOND


@dataclass(frozen=True, eq=False)
class SubjectOutputs:
    """One subject's outputs and labels.

    Attributes:
        outputs: branch -> float32 [T, K], NaN where the face is not present.
        present: bool [T], whether the frame shows the subject's face.
        labelled_frame: int [n], 0-based index into the T frames for each row of the labels; empty without labels.
        labels: branch -> labels of n rows; -1 or NaN: unlabelled.
        frames_per_second: of the video.
        backbone: the backbone's own expressions, as ``postprocessing.backbone_expressions`` returns them; None if
            they are not known.
    """

    name: str
    outputs: dict[BranchName, np.ndarray]
    present: np.ndarray
    labelled_frame: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: dict[BranchName, np.ndarray] = field(default_factory=dict)
    frames_per_second: float = NOMINAL_FRAMES_PER_SECOND
    backbone: np.ndarray | None = None

    def smooth(self, rule: PostProcessing) -> dict[BranchName, np.ndarray]:
        """Return the smoothed outputs of a rule for all frames, float32 [T, K]."""
        return rule.smooth(self.outputs, self.present, frames_per_second=self.frames_per_second)

    def decide(
        self, rule: PostProcessing, smoothed: dict[BranchName, np.ndarray] | None = None
    ) -> dict[BranchName, np.ndarray]:
        """Return the decisions of a rule for all frames; see ``BranchRule.decide``.

        ``smoothed``: as ``smooth`` returns them, if the caller has them.
        """
        smoothed = self.smooth(rule) if smoothed is None else smoothed
        backbone = None
        if rule.has_gate and self.backbone is not None:
            backbone = rule.smooth_backbone(self.backbone, self.present, frames_per_second=self.frames_per_second)
        return {branch: one.decide(branch, smoothed[branch], backbone) for branch, one in rule.rules.items()}


def rows_without_face(subject: SubjectOutputs) -> np.ndarray:
    """Return which labelled rows are in frames that do not show the face, bool [n]."""
    return ~subject.present[subject.labelled_frame]


def published_rows(subject: SubjectOutputs) -> SubjectOutputs:
    """Return the subject with the labelled rows that the published code scores. Smoothing still sees all frames.

    These are the rows that show its face. If any action unit of a row is unlabelled, all of them are (A3 c36, c76).
    """
    kept = ~rows_without_face(subject)
    labels = {branch: values[kept] for branch, values in subject.labels.items()}
    if "au" in labels:
        is_whole = (labels["au"] >= 0).all(axis=1, keepdims=True)
        labels["au"] = np.where(is_whole, labels["au"], labels["au"].dtype.type(-1))
    return replace(subject, labelled_frame=subject.labelled_frame[kept], labels=labels)


def labelled_subjects(subjects: Sequence[SubjectOutputs], task: TaskName) -> list[SubjectOutputs]:
    """Return the subjects with labelled rows, by name.

    Raises:
        ValueError: there is none.
    """
    found = [subject for subject in sorted(subjects, key=lambda one: one.name) if len(subject.labelled_frame)]
    if not found:
        raise ValueError(f"{task}: expected subjects with outputs and labels, found none")
    return found
