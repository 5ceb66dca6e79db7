"""One subject's features and labels in the order of its frames: what heads predict from, and may be fitted on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from data_contracts.vocabulary import BranchName, ScoreForm
from models.heads.recipes import Features

Labels = Mapping[BranchName, np.ndarray]


def input_width(features: Features, embedding_size: int, logits_size: int) -> int:
    """Return the number of inputs of a head."""
    return {"embeddings": embedding_size, "scores": logits_size, "both": embedding_size + logits_size}[features]


def to_scores(logits: np.ndarray, form: ScoreForm) -> np.ndarray:
    """Return the scores that a head takes, float32 [n, C]: the logits [n, C] of a backbone, or their softmax."""
    logits = np.asarray(logits, np.float32)
    if form == "logits":
        return logits
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def is_labelled(labels: Labels, branches: tuple[BranchName, ...], *, drop_partial_units: bool = False) -> np.ndarray:
    """Return which rows have a label of at least one branch, bool [n].

    ``labels`` as in ``TrainingRows``. With ``drop_partial_units``, action units count only where all are labelled.
    """
    known = np.zeros(len(next(iter(labels.values()))), bool)
    for branch in branches:
        values = labels[branch]
        if branch == "expr":
            known |= values >= 0
        elif branch == "va":
            known |= ~np.isnan(values).any(axis=1)
        else:
            # Unit by unit: one array for all of them would be as large as the labels.
            count = np.zeros(len(values), np.int8)
            for unit in values.T:
                count += unit >= 0
            known |= count >= (values.shape[1] if drop_partial_units else 1)
    return known


@dataclass(frozen=True, eq=False)
class SubjectSequence:
    """One subject's features in the order of its frames, T of them.

    Attributes:
        embeddings: float16 or float32 [T, D]; may be a read-only memory map.
        logits: float32 [T, C]; likewise. Both are 0 where the face is not present, except for heads that work on rows:
            they never get such frames.
        present: bool [T], whether the frame shows the subject's face.
        seconds: float64 [T], time of each frame since the first frame of the video.
        labels: as in ``TrainingRows``, for fitting; empty for prediction.
    """

    embeddings: np.ndarray
    logits: np.ndarray
    present: np.ndarray
    seconds: np.ndarray
    labels: Labels = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = (self.embeddings, self.logits, self.present, self.seconds, *self.labels.values())
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"expected arrays of one length, got {[len(part) for part in parts]} frames")

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, frames: slice | np.ndarray) -> "SubjectSequence":
        """Return a range of frames, or those of a mask, bool [T]."""
        labels = {branch: values[frames] for branch, values in self.labels.items()}
        return SubjectSequence(
            self.embeddings[frames], self.logits[frames], self.present[frames], self.seconds[frames], labels
        )

    def width(self, features: Features) -> int:
        """Return the number of inputs of a head."""
        return input_width(features, self.embeddings.shape[1], self.logits.shape[1])

    def inputs(self, features: Features, scores: ScoreForm) -> np.ndarray:
        """Return the inputs of a head, float32 [T, width]; a copy unless they are float32 already."""
        if features == "both":
            return np.concatenate([self.embeddings, to_scores(self.logits, scores)], axis=1, dtype=np.float32)
        return np.asarray(self.embeddings, np.float32) if features == "embeddings" else to_scores(self.logits, scores)

    def labelled(self, branches: tuple[BranchName, ...], *, drop_partial_units: bool = False) -> np.ndarray:
        """Return the indices of frames with a face and a label of at least one branch, ascending, int [m]."""
        return np.flatnonzero(self.present & is_labelled(self.labels, branches, drop_partial_units=drop_partial_units))
