"""The best attainable scores of a simulated data set: decisions that know the latent state of every frame.

The annotators' noise is independent of the state, so no prediction from features knows more about a label than the
state does. Decisions are those that maximise each metric, given the probabilities of the labels:

- expressions: the largest probability after adding a class bias to its logarithm, tuned on the scored labels;
- action units: one threshold per unit, the exact optimum on the scored labels;
- valence and arousal: the expected value, scaled to mean and variance of the scored labels, which maximises the CCC.

Tuning on the scored labels makes the scores upper bounds also of in-sample scores of fitted heads.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.simulations import SIMULATION_FOLDER, SimulationDetails
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK, TASKS, BranchName, SetName, TaskName
from models.decisions.thresholds import optimal_thresholds
from models.engines.progress import track
from models.heads.metrics import has_label, main_score, score_branches
from tasks.simulate.labels import (
    AU_NOISE,
    EXPR_SCALE,
    VA_NOISE,
    LabelRule,
    affect_values,
    labels_of_state,
    shifted_state,
)
from tasks.simulate.latent import AU, EXPR, VA
from tasks.simulate.plan import SimulationPlan
from tasks.units import Files, Job

CODE_VERSION = 5
_SETS: tuple[SetName, ...] = ("train", "validation")
_BIAS_STEPS = np.arange(-4.0, 4.01, 0.25)
_BIAS_ROUNDS = 3
# The class bias is tuned on at most this number of rows, evenly spaced: neighbouring frames are alike.
_ROWS_OF_BIAS = 60_000


@dataclass(frozen=True)
class AttainableArgs:
    """The plan and its label rule."""

    plan: SimulationPlan
    rule: LabelRule


def plan_attainable(plan: SimulationPlan, rule: LabelRule) -> Job[AttainableArgs]:
    """Plan the bundle that describes a simulation and holds its best attainable scores."""
    job_fingerprint = fingerprint(stage="attainable", version=CODE_VERSION, scale=plan.scale, seed=plan.seed)
    return Job(SIMULATION_FOLDER, job_fingerprint, AttainableArgs(plan, rule))


def make(store: Store, job: Job[AttainableArgs]) -> Files:
    """Compute the best attainable scores."""
    given = job.arguments
    details = SimulationDetails(
        scale=given.plan.scale,
        seed=given.plan.seed,
        subjects=len(given.plan.subjects),
        frames=given.plan.frames,
        attainable=attainable_scores(given.plan, given.rule),
    )
    return Files({}, details)


def attainable_scores(plan: SimulationPlan, rule: LabelRule) -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics of the best decisions: task -> set -> metric -> score."""
    known: dict[tuple[TaskName, SetName], list[tuple[dict[BranchName, np.ndarray], dict[BranchName, np.ndarray]]]] = {}
    for subject in track(plan.subjects, "drawing labels: {} subjects"):
        latent = shifted_state(plan, subject, rule)
        labels = labels_of_state(plan, subject, latent, rule)
        for task in TASKS:
            set_name = subject.sets.get(task)
            if set_name not in _SETS:
                continue
            if task == "mtl":
                rows, mine = labels.mtl_frames - 1, labels.mtl
            else:
                rows = np.flatnonzero(has_label(task, labels.branches[task]))
                mine = {task: labels.branches[task][rows]}
            expected = {branch: _expected(branch, latent.state[rows], rule) for branch in mine}
            known.setdefault((task, set_name), []).append((mine, expected))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (task, set_name), parts in sorted(known.items()):
        branches = BRANCHES_OF_TASK[task]
        truth = {branch: np.concatenate([mine[branch] for mine, _ in parts]) for branch in branches}
        expected = {branch: np.concatenate([one[branch] for _, one in parts]) for branch in branches}
        decided = {branch: _decide(branch, truth[branch], expected[branch]) for branch in branches}
        found.setdefault(task, {})[set_name] = score_branches(truth, decided)
    return found


def _expected(branch: BranchName, state: np.ndarray, rule: LabelRule) -> np.ndarray:
    """Return log-probabilities of expressions, expected values, or probabilities of units, given the latent state."""
    if branch == "expr":
        sums = EXPR_SCALE * state[:, EXPR] + rule.bias
        sums -= sums.max(axis=1, keepdims=True)
        return np.asarray(sums - np.log(np.exp(sums).sum(axis=1, keepdims=True)), np.float32)
    if branch == "au":
        return np.asarray(ndtr((state[:, AU] - rule.thresholds) / AU_NOISE), np.float32)
    points, weights = np.polynomial.hermite_e.hermegauss(7)
    values = [affect_values(state[:, VA] + VA_NOISE * np.float32(point)) for point in points]
    return np.tensordot(weights / weights.sum(), np.stack(values), axes=1).astype(np.float32)


def _decide(branch: BranchName, truth: np.ndarray, expected: np.ndarray) -> np.ndarray:
    known = has_label(branch, truth)
    if branch == "va":
        wanted, given = truth[known], expected[known]
        centred = (expected - given.mean(axis=0)) / np.maximum(given.std(axis=0), 1e-9)
        return np.asarray(wanted.mean(axis=0) + wanted.std(axis=0) * centred, np.float32)
    if branch == "au":
        return (expected >= optimal_thresholds(truth[known], expected[known])).astype(np.int8)
    every = max(int(known.sum()) // _ROWS_OF_BIAS, 1)
    return (expected + _best_bias(truth[known][::every], expected[known][::every])).argmax(axis=1)


def _best_bias(labels: np.ndarray, log_probabilities: np.ndarray) -> np.ndarray:
    bias = np.zeros(log_probabilities.shape[1], np.float32)
    best = main_score("expr", labels, log_probabilities.argmax(axis=1))
    for _ in range(_BIAS_ROUNDS):
        for position in range(len(bias)):
            for step in _BIAS_STEPS:
                trial = bias.copy()
                trial[position] = step
                if (score := main_score("expr", labels, (log_probabilities + trial).argmax(axis=1))) > best:
                    bias, best = trial, score
    return bias
