"""Heads fitted on simulated features compare as the published ones do.

Margins are those between the lowest and the highest of two seeds of a fit, on one data set. Few subjects are in it, and
other data sets of this size differ more.
"""

from functools import cache

import numpy as np
import pytest

from data_contracts.vocabulary import BranchName
from models.decisions.recipes import DEFAULT
from models.decisions.smoothing import smooth
from models.decisions.subject_outputs import SubjectOutputs
from models.heads.fitting import fit_seeds
from models.heads.metrics import MAIN_METRIC, main_score
from models.heads.recipes import Features
from models.heads.rows import TrainingRows
from models.heads.sequences import SubjectSequence
from models.recipes.registry import find_recipe
from models.tuning.tuning import Tuned, tune_postprocessing
from tasks.simulate.attainable import attainable_scores
from tasks.simulate.features import BACKBONES, draw_features
from tasks.simulate.labels import draw_labels, label_rule, shifted_state
from tasks.simulate.plan import plan_simulation

pytestmark = pytest.mark.service

SCALE, SEED, FIT_SEEDS = 0.05, 0, 2
# Fit on one frame of this number: neighbouring frames are alike. Linear heads on scores need the steps of all frames.
EVERY, EVERY_OF_VA_SCORES = 4, 1
HIDDEN = {("expr", "embeddings"): 128, ("au", "embeddings"): 128}


@cache
def features(backbone: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    plan, rule = plan_simulation(SCALE, SEED), label_rule(SCALE, SEED)
    return {
        subject.name: draw_features(BACKBONES[backbone], SEED, subject, shifted_state(plan, subject, rule).state)
        for subject in plan.subjects
        if {"train", "validation"} & set(subject.sets.values())
    }


@cache
def fitted(backbone: str, task: BranchName, chosen: Features) -> list[list[SubjectOutputs]]:
    """Fit recipe ``paper`` once per seed; return the outputs of the validation subjects of each."""
    plan, known = plan_simulation(SCALE, SEED), features(backbone)
    step = EVERY_OF_VA_SCORES if (task, chosen) == ("va", "scores") else EVERY
    data: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {"train": [], "validation": []}
    outputs = []
    for subject in plan.subjects:
        if (set_name := subject.sets.get(task)) in data:
            (embeddings, logits), labels = known[subject.name], draw_labels(plan, subject).branches[task]
            every = step if set_name == "train" else 1
            data[set_name].append((embeddings[::every], logits[::every], labels[::every]))
            if set_name == "validation":
                outputs.append(
                    (
                        subject.name,
                        SubjectSequence(embeddings, logits, np.ones(len(labels), bool), np.arange(len(labels)) / 30),
                        labels,
                    )
                )
    rows = {}
    for name, parts in data.items():
        embeddings, logits, labels = (np.concatenate(one) for one in zip(*parts, strict=True))
        rows[name] = TrainingRows(embeddings, logits, {task: labels})
    recipe = (
        find_recipe("paper")
        .variant(task)
        .replace(features=chosen, hidden_units=HIDDEN.get((task, chosen), 0), epochs=20)
    )
    found = []
    for seed in range(FIT_SEEDS):
        head = fit_seeds(rows["train"], rows["validation"], task=task, recipe=recipe, first_seed=seed).head
        found.append(
            [
                SubjectOutputs(
                    name, head.predict_sequence(one), np.ones(len(one), bool), np.arange(len(one)), {task: labels}
                )
                for name, one, labels in outputs
            ]
        )
    return found


def smoothed(task: BranchName, subjects: list[SubjectOutputs], half_width: int) -> float:
    values = np.concatenate(
        [smooth(one.outputs[task], method="mean", half_width_frames=half_width) for one in subjects]
    )
    decided = values if task == "va" else values.argmax(axis=1) if task == "expr" else (values >= 0.5).astype(np.int8)
    return main_score(task, np.concatenate([one.labels[task] for one in subjects]), decided)


def scores(backbone: str, task: BranchName, chosen: Features, half_width: int = 0) -> list[float]:
    """Return the score of each seed, with thresholds of 0.5."""
    return [smoothed(task, one, half_width) for one in fitted(backbone, task, chosen)]


def tuned(task: BranchName) -> list[Tuned]:
    chosen: Features = "scores" if task == "va" else "embeddings"
    return [tune_postprocessing(one, task=task, recipe=DEFAULT) for one in fitted("simulated_enet_b0", task, chosen)]


def margin(better: list[float], worse: list[float]) -> float:
    """Return by how much more than the spread of the seeds the worst of one beats the best of another."""
    spread = max(max(one) - min(one) for one in (better, worse))
    return min(better) - max(worse) - spread


@pytest.mark.parametrize("task", ["expr", "au"])
def test_embeddings_beat_scores_for_expressions_and_action_units(task):
    assert margin(scores("simulated_enet_b0", task, "embeddings"), scores("simulated_enet_b0", task, "scores")) > 0


def test_scores_beat_embeddings_for_valence_and_arousal():
    assert margin(scores("simulated_enet_b0", "va", "scores"), scores("simulated_enet_b0", "va", "embeddings")) > 0


@pytest.mark.parametrize(("task", "chosen"), [("expr", "embeddings"), ("va", "scores")])
def test_wide_windows_help_expressions_valence_and_arousal(task, chosen):
    none, narrow, wide = (scores("simulated_enet_b0", task, chosen, width) for width in (0, 5, 50))

    assert all(c > b + 0.01 and b > a + 0.005 for a, b, c in zip(none, narrow, wide, strict=True))


def test_narrow_windows_help_action_units_and_wide_ones_do_not():
    none, narrow, wide = (scores("simulated_enet_b0", "au", "embeddings", width) for width in (0, 3, 50))

    assert all(b > a + 0.003 and a > c + 0.01 for a, b, c in zip(none, narrow, wide, strict=True))


def test_tuned_thresholds_overfit():
    for one in tuned("au"):
        assert one.held_out is not None
        assert one.tuned["mean_f1"] > one.held_out["mean_f1"] + 0.003


def test_the_best_backbone_for_expressions_is_b0():
    best = min(scores("simulated_enet_b0", "expr", "embeddings"))

    assert best > max(scores("simulated_enet_b2", "expr", "embeddings"))


@pytest.mark.parametrize("task", ["expr", "va", "au"])
def test_no_tuned_head_reaches_the_best_attainable_score(task):
    best = attainable_scores(plan_simulation(SCALE, SEED), label_rule(SCALE, SEED))[task]["validation"]

    assert all(one.tuned[MAIN_METRIC[task]] < best[MAIN_METRIC[task]] for one in tuned(task))
