"""Blends: weighted means of the outputs of several heads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from data_contracts.vocabulary import BranchName
from models.decisions.smoothing import interpolate_missing
from models.decisions.subject_outputs import SubjectOutputs
from models.heads.head import BranchConfig, Head, HeadConfig
from models.heads.sequences import SubjectSequence

# Branch -> weight of each member.
Weights = Mapping[BranchName, Sequence[float]]


def blend(
    members: Sequence[tuple[np.ndarray, Mapping[BranchName, np.ndarray]] | None], weights: Weights, frames: int
) -> tuple[np.ndarray, dict[BranchName, np.ndarray]]:
    """Return (present bool [T], branch -> float32 [T, K]), the weighted mean of the outputs of members.

    A frame has outputs if a member has. There, those of a member without are interpolated between its nearest frames
    with outputs. Members without any outputs of the subject are left out, and the other weights grow in proportion; if
    these are all 0, they are equal.

    Args:
        members: (present, outputs) of each member from frame 1 on, of any length; None: no outputs of this subject.
        weights: of each member.
        frames: T; longer members are cut, and shorter ones have no outputs at the end.
    """
    usual: dict[int, tuple[np.ndarray, Mapping[BranchName, np.ndarray]]] = {}
    for number, member in enumerate(members):
        if member is not None and member[0][:frames].any():
            usual[number] = member
    present = np.zeros(frames, bool)
    for has_outputs, _ in usual.values():
        present[: len(has_outputs)] |= has_outputs[:frames]
    outputs = {}
    for branch, of_members in weights.items():
        left = np.array([of_members[number] for number in usual], np.float64)
        left = left / left.sum() if left.sum() > 0 else np.full(len(left), 1 / max(len(left), 1))
        total: np.ndarray | None = None
        for weight, (has_outputs, values) in zip(left, usual.values(), strict=True):
            here = np.zeros(frames, bool)
            here[: len(has_outputs)] = has_outputs[:frames]
            own = np.full((frames, values[branch].shape[1]), np.nan, np.float32)
            own[: len(has_outputs)] = values[branch][:frames]
            own = own if here[present].all() else interpolate_missing(own, here)
            total = weight * own if total is None else total + weight * own
        if total is None:
            total = np.full((frames, next(m[1][branch].shape[1] for m in members if m is not None)), np.nan)
        total[~present] = np.nan
        outputs[branch] = total.astype(np.float32)
    return present, outputs


def blend_subject(members: Sequence[SubjectOutputs], weights: Weights) -> SubjectOutputs:
    """Blend the outputs of a subject; its labels and number of frames are those of the first member."""
    first = members[0]
    parts = [(one.present, one.outputs) for one in members]
    present, outputs = blend(parts, weights, len(first.present))
    return replace(first, present=present, outputs=outputs)


class BlendedHead:
    """Heads on the same features as one head: the weighted mean of their outputs.

    Attributes:
        config: of a head that takes what all members take.
        works_on: ``sequences`` if a member does; see ``Head``.
    """

    def __init__(self, members: Sequence[Head], weights: Weights) -> None:
        """Blend heads of one task that were fitted on the same features."""
        first = members[0].config
        names = {branch.features for one in members for branch in one.config.branches.values()}
        features = names.pop() if len(names) == 1 else "both"
        branches = {branch: BranchConfig(features, 0) for branch in first.branches}
        self.config = HeadConfig(first.task, first.embedding_size, first.logits_size, 1, branches)
        self.works_on = "sequences" if any(one.works_on == "sequences" for one in members) else "rows"
        self._members, self._weights = tuple(members), weights

    def predict_sequence(self, sequence: SubjectSequence) -> dict[BranchName, np.ndarray]:
        """Return the weighted mean of the members' outputs; see ``Head``."""
        found = [one.predict_sequence(sequence) for one in self._members]
        return {
            branch: np.einsum("m,mtk->tk", np.array(of, np.float32), np.stack([one[branch] for one in found]))
            for branch, of in self._weights.items()
        }


AnyHead = Head | BlendedHead
