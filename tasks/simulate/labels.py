"""Labels of a simulated data set, drawn for all tasks from the latent state of a subject.

An expression is the largest of eight sums of evidence, class bias and the annotators' noise, whose marginal
distribution is a Gumbel distribution: the probability of a class given the state is a softmax. An action unit is
present where evidence plus Gaussian noise exceeds its threshold. Valence and arousal are squashed sums of evidence and
Gaussian noise. All noise is correlated in time, because annotators err for a while.

Biases and thresholds are calibrated such that classes and action units have the published frequencies among the valid
labels with a crop in the training set. The evidence of the validation subjects of EXPR is shifted such that their
classes have the published frequencies.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from data_contracts.vocabulary import BRANCHES, BranchName
from tasks.simulate import published
from tasks.simulate.latent import AU, EXPR, VA, LatentState, draw_state
from tasks.simulate.plan import SimulatedSubject, SimulationPlan, plan_simulation, take_runs

# Number of the code of everything that is drawn; a folder of another number is refused.
CODE_VERSION = 4
_VALID_STREAM, _MTL_STREAM = 3, 5
# Mean lengths in frames of the runs of valid labels, and of chosen rows of the multi-task list.
_VALID_RUN, _MTL_RUN = 800, 30

# Evidence of an expression relative to the annotators' noise; noise of action units, valence and arousal relative to
# their evidence. Nothing is published; the values leave the published scores well below what is attainable.
EXPR_SCALE, AU_NOISE, VA_NOISE = 3.0, 0.45, 0.60
# Valence and arousal are tanh(centre + spread * evidence).
VA_CENTRE, VA_SPREAD = np.array([0.12, 0.25], np.float32), np.array([0.42, 0.30], np.float32)
_TOLERANCE, _MOST_ROUNDS = 0.002, 500


@dataclass(frozen=True, eq=False)
class LabelRule:
    """Calibrated values: class bias [8], shift of the evidence of validation subjects [8], thresholds of units [12]."""

    bias: np.ndarray
    validation_shift: np.ndarray
    thresholds: np.ndarray


@dataclass(frozen=True, eq=False)
class SubjectLabels:
    """Annotations of one subject as they are distributed, with their noise and invalid values.

    Attributes:
        branches: expr int8 [frames] (0 to 7), va float32 [frames, 2] (-1 to 1), au int8 [frames, 12] (0 or 1). Invalid:
            -1, NaN, -1. Only tasks whose training or validation set contains the subject.
        mtl_frames: frame of each row of the multi-task list, int32 [rows], ascending; repeated names included. The
            test set has rows too.
        mtl: labels of these rows, as ``branches``; all invalid for the test set. Other rows have one valid label at
            least.
    """

    branches: dict[BranchName, np.ndarray]
    mtl_frames: np.ndarray
    mtl: dict[BranchName, np.ndarray]


def draw_labels(plan: SimulationPlan, subject: SimulatedSubject) -> SubjectLabels:
    """Draw the labels of one subject. Equal plans give equal labels.

    The first call for a plan calibrates its label rule, which takes half a minute at scale 1.
    """
    rule = label_rule(plan.scale, plan.seed)
    return labels_of_state(plan, subject, shifted_state(plan, subject, rule), rule)


def shifted_state(plan: SimulationPlan, subject: SimulatedSubject, rule: LabelRule) -> LatentState:
    """Return the latent state of a subject, shifted if it belongs to the validation set of EXPR."""
    latent = draw_state(plan.seed, subject)
    if subject.sets.get("expr") == "validation":
        latent.state[:, EXPR] += rule.validation_shift.astype(np.float32)
    return latent


def labels_of_state(
    plan: SimulationPlan, subject: SimulatedSubject, latent: LatentState, rule: LabelRule
) -> SubjectLabels:
    """Return the labels that a latent state leads to."""
    full = _full_labels(latent, rule)
    missing = plan.missing(subject)
    branches = {}
    for branch in subject.labelled:
        rows = valid_rows(plan, subject, missing, branch)
        branches[branch] = np.full_like(full[branch], np.nan if branch == "va" else -1)
        branches[branch][rows] = full[branch][rows]
    random = np.random.default_rng([plan.seed, _MTL_STREAM, subject.number])
    own = subject.mtl_rows - subject.mtl_rows_without_crop - subject.mtl_repeated
    frames = take_runs(random, ~missing, own, _MTL_RUN)
    again = random.choice(frames, subject.mtl_repeated, replace=False)
    without = take_runs(random, missing, subject.mtl_rows_without_crop, _MTL_RUN)
    frames = np.sort(np.concatenate([frames, again, without])).astype(np.int32)
    mtl = {branch: values[frames] for branch, values in full.items()}
    _mask_rows(random, mtl, subject.sets.get("mtl", "test"))
    return SubjectLabels(branches, frames + 1, mtl)


def valid_rows(plan: SimulationPlan, subject: SimulatedSubject, missing: np.ndarray, branch: BranchName) -> np.ndarray:
    """Return the rows (frame - 1) with a valid label of one task."""
    random = np.random.default_rng([plan.seed, _VALID_STREAM, subject.number, BRANCHES.index(branch)])
    used = take_runs(random, ~missing, subject.labelled[branch], _VALID_RUN)
    is_valid = np.zeros(len(missing) + 2, np.int8)
    is_valid[used + 1] = 1
    edges = np.flatnonzero(np.diff(missing.astype(np.int8), prepend=0, append=0))
    gaps = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    random.shuffle(gaps)
    # Annotators see no crops: gaps between two valid labels come first, then those beside one.
    gaps.sort(key=lambda gap: is_valid[gap[0]] + is_valid[gap[1] + 1], reverse=True)
    without = np.concatenate([np.arange(0), *(np.arange(start, end) for start, end in gaps)])
    return np.concatenate([used, without[: subject.labelled_without_crop[branch]]])


def _mask_rows(random: np.random.Generator, mtl: dict[BranchName, np.ndarray], set_name: str) -> None:
    count = len(mtl["expr"])
    valid = np.zeros((count, len(BRANCHES)), bool)
    if set_name != "test":
        shares, every = published.MTL_AVAILABLE[set_name], np.ones(count, bool)
        for branch in ("expr", "au"):
            rows = take_runs(random, every, round(shares[branch] * count), _VALID_RUN)
            valid[rows, BRANCHES.index(branch)] = True
        # Every row of the list has a label.
        column = BRANCHES.index("va")
        labelled = np.asarray(valid.any(axis=1))
        valid[~labelled, column] = True
        more = round(shares["va"] * count) - int((~labelled).sum())
        valid[take_runs(random, labelled, more, _VALID_RUN), column] = True
    for column, branch in enumerate(BRANCHES):
        mtl[branch][~valid[:, column]] = np.nan if branch == "va" else -1


def _full_labels(latent: LatentState, rule: LabelRule) -> dict[BranchName, np.ndarray]:
    return {
        "expr": (_expression_sums(latent, slice(None)) + rule.bias).argmax(axis=1).astype(np.int8),
        "va": np.round(affect_values(latent.state[:, VA] + VA_NOISE * latent.noise[:, VA]), 3),
        "au": (_unit_sums(latent, slice(None)) > rule.thresholds).astype(np.int8),
    }


def affect_values(evidence: np.ndarray) -> np.ndarray:
    """Return valence and arousal, float32 [n, 2], for evidence with noise."""
    return np.tanh(VA_CENTRE + VA_SPREAD * evidence).astype(np.float32)


def _expression_sums(latent: LatentState, rows: np.ndarray | slice) -> np.ndarray:
    uniform = np.clip(ndtr(latent.noise[rows, EXPR].astype(np.float64)), 1e-12, 1 - 1e-12)
    gumbel = -np.log(-np.log(uniform))
    return np.asarray(EXPR_SCALE * latent.state[rows, EXPR] + gumbel, np.float32)


def _unit_sums(latent: LatentState, rows: np.ndarray | slice) -> np.ndarray:
    return np.asarray(latent.state[rows, AU] + AU_NOISE * latent.noise[rows, AU], np.float32)


@functools.lru_cache(maxsize=4)
def label_rule(scale: float, seed: int) -> LabelRule:
    """Calibrate biases and thresholds on the valid labels with a crop of the plan with this scale and seed."""
    plan = plan_simulation(scale, seed)
    sums: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "au": []}
    for subject in plan.subjects:
        expr_set = subject.sets.get("expr")
        if expr_set == "test" and subject.sets.get("au") != "train":
            continue
        latent, missing = draw_state(seed, subject), plan.missing(subject)
        if expr_set in ("train", "validation"):
            rows = valid_rows(plan, subject, missing, "expr")
            sums[expr_set].append(_expression_sums(latent, rows[~missing[rows]]))
        if subject.sets.get("au") == "train":
            rows = valid_rows(plan, subject, missing, "au")
            sums["au"].append(_unit_sums(latent, rows[~missing[rows]]))
    train, validation, units = (np.concatenate(sums[name]) for name in ("train", "validation", "au"))
    bias = _calibrated(train, np.array(published.EXPRESSION_COUNTS["train"], float), start=np.zeros(8))
    shift = _calibrated(validation, np.array(published.EXPRESSION_COUNTS["validation"], float), start=bias) - bias
    shares = np.array(published.AU_TRAIN_COUNTS) / published.LABELS["au", "train"].used
    thresholds = [np.quantile(column, 1 - share) for column, share in zip(units.T, shares, strict=True)]
    return LabelRule(bias.astype(np.float32), shift / EXPR_SCALE, np.array(thresholds, np.float32))


def _calibrated(sums: np.ndarray, counts: np.ndarray, *, start: np.ndarray) -> np.ndarray:
    """Return the bias with which the largest of ``sums + bias`` has the given relative counts, or almost."""
    wanted, bias = counts / counts.sum() * len(sums), start.copy()
    tolerance = np.maximum(_TOLERANCE * wanted, 1)
    best, smallest, step = bias.copy(), np.inf, 0.9
    for _ in range(_MOST_ROUNDS):
        found = np.bincount((sums + bias.astype(np.float32)).argmax(axis=1), minlength=len(counts))
        error = float((np.abs(found - wanted) / tolerance).max())
        if error < smallest:
            best, smallest = bias.copy(), error
        if smallest <= 1:
            break
        bias += step * np.log((wanted + 0.5) / (found + 0.5))
        # Few runs of labels change at once: smaller steps find what larger ones skip.
        step = max(step * 0.985, 0.02)
    return best - best.mean()
