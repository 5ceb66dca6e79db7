import numpy as np
import pytest

from models.decisions.tuning import SubjectOutputs, tune_postprocessing
from models.heads.metrics import score_branch


def subjects(count, *, noise=1.0, seed=0, frames=120):
    """Slow expressions under fast noise: smoothing helps."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        expr = np.repeat(random.integers(0, 8, frames // 20), 20)
        logits = 2 * np.eye(8)[expr] + noise * random.normal(size=(frames, 8))
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        units = np.repeat(random.integers(0, 2, (frames // 20, 12)), 20, axis=0)
        q = np.clip(0.2 + 0.15 * units + 0.1 * random.normal(size=units.shape), 0, 1)
        va = np.repeat(random.uniform(-1, 1, (frames // 20, 2)), 20, axis=0)
        present = random.random(frames) < 0.9
        outputs = {"expr": p, "au": q, "va": va + noise * random.normal(size=va.shape)}
        labels = {"expr": expr, "au": units, "va": va}
        made.append(
            SubjectOutputs(
                f"s{number}",
                {b: np.where(present[:, None], x, np.nan).astype("f4") for b, x in outputs.items()},
                present,
                np.arange(frames),
                labels,
            )
        )
    return made


@pytest.mark.parametrize(("task", "metric"), [("expr", "macro_f1"), ("va", "mean_ccc"), ("au", "mean_f1")])
def test_tuning_helps_and_held_out_score_is_not_above_in_sample_score(task, metric):
    tuned = tune_postprocessing(subjects(6), task=task, setting="default")
    assert tuned.tuned[metric] > tuned.untuned[metric]
    assert tuned.untuned[metric] < tuned.held_out[metric] <= tuned.tuned[metric] + 0.02


def test_in_sample_scores_are_those_of_the_rule():
    data = subjects(3)
    tuned = tune_postprocessing(data, task="mtl", setting="default")
    for branch in ("expr", "va", "au"):
        decided = [tuned.postprocessing.apply(s.outputs, s.present)[branch] for s in data]
        expected = score_branch(branch, np.concatenate([s.labels[branch] for s in data]), np.concatenate(decided))
        assert {name: tuned.tuned[name] for name in expected} == pytest.approx(expected)


def test_held_out_subjects_do_not_influence_their_rule():
    """Labels of pure noise: the in-sample score is above chance, the held-out score is not."""
    random = np.random.default_rng(5)
    data = [
        SubjectOutputs(
            f"s{n}",
            {"expr": np.full((60, 8), 1 / 8, "f4") + random.normal(0, 0.01, (60, 8)).astype("f4")},
            np.ones(60, bool),
            np.arange(60),
            {"expr": random.integers(0, 8, 60)},
        )
        for n in range(6)
    ]
    tuned = tune_postprocessing(data, task="expr", setting="default")
    assert tuned.held_out["macro_f1"] < tuned.tuned["macro_f1"] - 0.02


def test_paper_uses_fixed_windows_and_thresholds_of_unsmoothed_outputs():
    rules = tune_postprocessing(subjects(3), task="au", setting="paper").postprocessing.rules
    assert (rules["au"].method, rules["au"].half_width_frames) == ("median", 7)
    assert all(round(value * 10) == pytest.approx(value * 10) for value in rules["au"].thresholds)
    rules = tune_postprocessing(subjects(3), task="mtl", setting="paper").postprocessing.rules
    assert {rule.method for rule in rules.values()} == {"none"}
    assert rules["expr"].class_bias == (0.0,) * 8


def test_order_of_subjects_does_not_matter_and_one_subject_has_no_held_out_score():
    data = subjects(4)
    first, second = (tune_postprocessing(d, task="expr", setting="default") for d in (data, data[::-1]))
    assert first == second
    assert tune_postprocessing(data[:1], task="expr", setting="default").held_out is None
    with pytest.raises(ValueError, match="found none"):
        tune_postprocessing([], task="expr", setting="default")
