"""Blends: the mean of outputs, and weights that are chosen without the videos that they are scored on."""

from dataclasses import replace

import numpy as np
import pytest

from models.decisions.blending import blend
from models.decisions.smoothing import Smoothing
from models.decisions.subject_outputs import SubjectOutputs
from models.heads.metrics import mean_ccc
from models.recipes.registry import find_recipe
from models.tuning import blend_weights
from models.tuning.blend_weights import choose_weights, hold_out
from models.tuning.tuning import tune_postprocessing

FRAMES = 60
VA = find_recipe("default").postprocessing_of("va")


def subject(name: str, truth: np.ndarray, noise: float, seed: int) -> SubjectOutputs:
    random = np.random.default_rng(seed)
    values = np.clip(truth + noise * random.standard_normal(truth.shape), -1, 1).astype(np.float32)
    known = np.arange(len(truth))
    return SubjectOutputs(name, {"va": values}, np.ones(len(truth), bool), known, {"va": truth})


def members(noises: tuple[float, ...], videos: int = 6) -> list[list[SubjectOutputs]]:
    """Each subject with the outputs of members that err independently."""
    found = []
    for number in range(videos):
        random = np.random.default_rng(number)
        truth = np.tanh(random.standard_normal((FRAMES, 2))).astype(np.float32)
        seeds = [100 * number + at for at in range(len(noises))]
        found.append([subject(f"v{number}", truth, *pair) for pair in zip(noises, seeds, strict=True)])
    return found


def test_missing_frames_of_a_member_are_interpolated_and_missing_members_left_out():
    first, second = np.array([[0.0], [9], [0.4]], np.float32), np.full((2, 1), 1, np.float32)
    face, all_frames = np.array([True, False, True]), np.ones(2, bool)
    weights = {"va": [0.75, 0.25, 0.0]}
    present, outputs = blend([(face, {"va": first}), (all_frames, {"va": second}), None], weights, 3)
    assert present.tolist() == [True, True, True]
    assert outputs["va"][:, 0] == pytest.approx([0.25, 0.4, 0.55])
    present, outputs = blend([(face, {"va": first}), None, None], weights, 3)
    assert present.tolist() == [True, False, True]
    assert outputs["va"][[0, 2], 0] == pytest.approx([0, 0.4]) and np.isnan(outputs["va"][1, 0])
    # Members with a weight of 0 are all that is left of this subject.
    assert blend([None, None, (face, {"va": first})], weights, 3)[1]["va"][2, 0] == pytest.approx(0.4)
    assert not blend([(np.zeros(3, bool), {"va": first}), None, None], weights, 3)[0].any()


def test_better_members_weigh_more_and_useless_ones_nothing(monkeypatch):
    monkeypatch.setattr(blend_weights, "_SMOOTHING", Smoothing())
    chosen = choose_weights(members((0.3, 0.5, 20.0)), task="va", recipe=VA)
    better, worse, useless = chosen.weights["va"]
    assert better > worse > 0.1 and useless == 0 and sum(chosen.weights["va"]) == pytest.approx(1)
    assert len(chosen.folds) == 5
    assert sorted(name for fold in chosen.folds for name in fold.subjects) == [f"v{number}" for number in range(6)]
    means = np.mean([fold.weights["va"] for fold in chosen.folds], axis=0)
    assert chosen.weights["va"] == pytest.approx(means)


def test_weights_of_a_fold_do_not_depend_on_its_labels(monkeypatch):
    monkeypatch.setattr(blend_weights, "_SMOOTHING", Smoothing())
    subjects = members((0.3, 0.5))
    before = choose_weights(subjects, task="va", recipe=VA)
    turned = [replace(one, labels={"va": -one.labels["va"]}) for one in subjects[0]]
    after = choose_weights([turned, *subjects[1:]], task="va", recipe=VA)
    (fold,) = (number for number, one in enumerate(before.folds) if "v0" in one.subjects)
    assert before.folds[fold] == after.folds[fold] and before.folds != after.folds


def test_the_held_out_score_of_a_blend_beats_its_members_and_is_nested():
    subjects = members((0.4, 0.4))
    chosen = choose_weights(subjects, task="va", recipe=VA)
    weights = {name: fold.weights for fold in chosen.folds for name in fold.subjects}
    blended = [
        replace(one[0], outputs=blend([(m.present, m.outputs) for m in one], weights[one[0].name], FRAMES)[1])
        for one in subjects
    ]
    tuned = hold_out(tune_postprocessing(blended, task="va", recipe=VA), subjects, chosen, recipe=VA)
    alone = [tune_postprocessing([one[at] for one in subjects], task="va", recipe=VA) for at in range(2)]
    assert tuned.held_out["mean_ccc"] > max(one.held_out["mean_ccc"] for one in alone)
    # The stored rules of the folds decide the stored outputs with the same score.
    rules = {name: fold.postprocessing for fold in tuned.folds for name in fold.subjects}
    decided = [one.decide(rules[one.name])["va"] for one in blended]
    truth = np.concatenate([one.labels["va"] for one in blended])
    assert mean_ccc(truth, np.concatenate(decided)) == pytest.approx(tuned.held_out["mean_ccc"])


def test_a_single_video_has_no_folds():
    chosen = choose_weights(members((0.3, 0.5), videos=1), task="va", recipe=VA)
    assert chosen.folds == () and sum(chosen.weights["va"]) == pytest.approx(1)


def test_expressions_and_action_units_are_chosen_by_f1():
    random, known = np.random.default_rng(0), np.arange(FRAMES)
    for task, classes in (("expr", 8), ("au", 12)):
        subjects = []
        for number in range(4):
            label = random.integers(0, 8, FRAMES) if task == "expr" else random.integers(0, 2, (FRAMES, 12))
            is_true = np.eye(8)[label] if task == "expr" else label
            good, bad = (np.clip(0.6 * is_true + 0.2, 0, 1), random.random((FRAMES, classes)))
            subjects.append(
                [
                    SubjectOutputs(
                        f"v{number}",
                        {task: values.astype(np.float32)},
                        np.ones(FRAMES, bool),
                        known,
                        {task: label.astype(np.int8)},
                    )
                    for values in (bad, good)
                ]
            )
        recipe = find_recipe("paper").postprocessing_of(task).replace(smoothings={task: (Smoothing(),)})
        assert choose_weights(subjects, task=task, recipe=recipe).weights[task][1] > 0.9
