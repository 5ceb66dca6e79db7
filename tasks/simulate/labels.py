"""Labels of a simulated data set, drawn for all tasks from one latent process per subject."""

from dataclasses import dataclass

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS, BranchName
from tasks.simulate.plan import SimulatedSubject, SimulationPlan, take_runs

_STREAM = 3


@dataclass(frozen=True, eq=False)
class SubjectLabels:
    """Annotations of one subject as they are distributed, with their noise and invalid values.

    Attributes:
        branches: expr int8 [frames] (0 to 7), va float32 [frames, 2] (-1 to 1), au int8 [frames, 12] (0 or 1). Invalid:
            -1, NaN, -1. Only tasks whose training or validation set contains the subject.
        mtl_frames: frame of each row of the multi-task list, int32 [rows], ascending; repeated names included. The
            test set has rows too.
        mtl: labels of these rows, as ``branches``; all invalid for the test set. A row has one valid label at least.
    """

    branches: dict[BranchName, np.ndarray]
    mtl_frames: np.ndarray
    mtl: dict[BranchName, np.ndarray]


def draw_labels(plan: SimulationPlan, subject: SimulatedSubject) -> SubjectLabels:
    """Draw the labels of one subject. Equal plans give equal labels."""
    random = np.random.default_rng([plan.seed, _STREAM, subject.number])
    count, missing = subject.frames, plan.missing(subject)
    full: dict[BranchName, np.ndarray] = {
        "expr": random.integers(0, 8, count).astype(np.int8),
        "va": random.uniform(-1, 1, (count, 2)).astype(np.float32),
        "au": random.integers(0, 2, (count, len(ACTION_UNITS))).astype(np.int8),
    }
    branches = {}
    for branch in subject.labelled:
        branches[branch] = np.full_like(full[branch], np.nan if branch == "va" else -1)
        for allowed, valid in (
            (~missing, subject.labelled[branch]),
            (missing, subject.labelled_without_crop[branch]),
        ):
            rows = take_runs(random, allowed, valid, 400)
            branches[branch][rows] = full[branch][rows]
    frames = take_runs(random, ~missing, subject.mtl_rows - subject.mtl_rows_without_crop - subject.mtl_repeated, 30)
    again = random.choice(frames, subject.mtl_repeated, replace=False)
    frames = np.sort(
        np.concatenate([frames, again, take_runs(random, missing, subject.mtl_rows_without_crop, 30)])
    ).astype(np.int32)
    mtl = {branch: values[frames].copy() for branch, values in full.items()}
    if subject.sets.get("mtl") == "test":
        for branch, values in mtl.items():
            values[:] = np.nan if branch == "va" else -1
    return SubjectLabels(branches, frames + 1, mtl)
