"""Outputs and labels of one subject, and the labelled rows that scores depend on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        labelled_frame: int [n], 0-based index into the T frames for each row of the labels.
        labels: branch -> labels of n rows; -1 or NaN: unlabelled.
        frames_per_second: of the video.
        backbone: the backbone's own expressions, as ``postprocessing.backbone_expressions`` returns them; None if
            they are not known.
    """

    name: str
    outputs: dict[BranchName, np.ndarray]
    present: np.ndarray
    labelled_frame: np.ndarray
    labels: dict[BranchName, np.ndarray]
    frames_per_second: float = NOMINAL_FRAMES_PER_SECOND
    backbone: np.ndarray | None = None

    def decide(self, rule: PostProcessing) -> dict[BranchName, np.ndarray]:
        """Return the decisions of a rule for all frames."""
        return rule.apply(self.outputs, self.present, frames_per_second=self.frames_per_second, backbone=self.backbone)

    def smooth(self, rule: PostProcessing) -> dict[BranchName, np.ndarray]:
        """Return the smoothed outputs of a rule for all frames."""
        return rule.smooth(self.outputs, self.present, frames_per_second=self.frames_per_second)


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
