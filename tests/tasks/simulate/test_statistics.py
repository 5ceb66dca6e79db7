"""Labels of a simulated data set: published statistics, correlations, and best attainable scores."""

from functools import cache

import numpy as np
import pytest

from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS
from models.heads.metrics import has_label, main_score
from tasks.simulate.attainable import attainable_scores
from tasks.simulate.labels import SubjectLabels, draw_labels, label_rule
from tasks.simulate.plan import SimulatedSubject, SimulationPlan, plan_simulation
from tests.benchmarks.simulated_statistics import compare_with_published

SCALE, SEED = 0.01, 4


@cache
def drawn() -> tuple[SimulationPlan, list[tuple[SimulatedSubject, SubjectLabels]]]:
    plan = plan_simulation(SCALE, SEED)
    return plan, [(subject, draw_labels(plan, subject)) for subject in plan.subjects]


def test_a_small_scale_has_the_published_statistics():
    found = compare_with_published(drawn()[0])

    assert len(found) > 40
    assert [one for one in found if not one.is_close] == []


def test_a_wrong_number_is_not_close():
    one = next(one for one in compare_with_published(drawn()[0]) if one.name == "expr train: Happiness")

    assert one.is_close
    assert one.published is not None
    assert not type(one)(one.name, one.published, one.published * 1.2, one.tolerance, one.source).is_close


@pytest.mark.service
def test_the_full_scale_has_the_published_statistics():
    assert [one for one in compare_with_published(plan_simulation(1, SEED)) if not one.is_close] == []


def test_tasks_are_correlated_as_faces_are():
    expr, va, au = [], [], []
    for _, labels in drawn()[1]:
        if set(labels.branches) == {"expr", "va", "au"}:
            rows = np.all([has_label(branch, values) for branch, values in labels.branches.items()], axis=0)
            for values, branch in ((expr, "expr"), (va, "va"), (au, "au")):
                values.append(labels.branches[branch][rows])
    expressions, affect, units = np.concatenate(expr), np.concatenate(va), np.concatenate(au)
    happy, sad = (expressions == EXPRESSIONS.index(name) for name in ("Happiness", "Sadness"))

    assert affect[happy, 0].mean() > affect[:, 0].mean() + 0.1 > affect[sad, 0].mean() + 0.2
    for name in ("AU6", "AU12"):
        active = units[:, ACTION_UNITS.index(name)]
        assert active[happy].mean() > 1.5 * active.mean()


def test_runs_of_an_expression_last_for_seconds():
    """Videos of this scale have 480 frames, a tenth of those of scale 1."""
    found = {one.name: one.simulated for one in compare_with_published(drawn()[0])}

    assert found["expressions: median run, frames"] > 30
    assert found["expressions: mean run, frames"] > 60


def test_a_gap_without_crops_between_two_labels_is_labelled():
    labelled = []
    for subject, labels in drawn()[1]:
        if "expr" in labels.branches:
            valid, missing = labels.branches["expr"] >= 0, drawn()[0].missing(subject)
            edges = np.flatnonzero(np.diff(missing.astype(int), prepend=0, append=0))
            inner = [(a, b) for a, b in edges.reshape(-1, 2) if a > 0 and b < len(valid) and valid[a - 1] and valid[b]]
            labelled += [valid[a:b].all() for a, b in inner]

    assert len(labelled) > 5
    assert np.mean(labelled) > 0.5


def test_labels_change_slowly():
    changes = [np.diff(labels.branches["expr"]) != 0 for _, labels in drawn()[1] if "expr" in labels.branches]
    valence = [labels.branches["va"][:, 0] for _, labels in drawn()[1] if "va" in labels.branches]
    now, later = (np.concatenate([one[part] for one in valence]) for part in (slice(-1), slice(1, None)))
    known = ~np.isnan(now + later)

    assert np.concatenate(changes).mean() < 0.1
    assert np.corrcoef(now[known], later[known])[0, 1] > 0.99


def test_equal_seeds_give_equal_labels():
    plan, labels = drawn()
    again = draw_labels(plan_simulation(SCALE, SEED), plan.subjects[3])
    other = draw_labels(plan_simulation(SCALE, SEED + 1), plan_simulation(SCALE, SEED + 1).subjects[3])

    assert {name: values.tobytes() for name, values in again.branches.items()} == {
        name: values.tobytes() for name, values in labels[3][1].branches.items()
    }
    assert again.mtl_frames.tobytes() == labels[3][1].mtl_frames.tobytes()
    assert other.branches.get("va", np.zeros(0)).tobytes() != again.branches.get("va", np.ones(1)).tobytes()


def test_best_attainable_scores_are_between_chance_and_perfect():
    found = attainable_scores(drawn()[0], label_rule(SCALE, SEED))

    metrics = {"expr": "macro_f1", "va": "mean_ccc", "au": "mean_f1", "mtl": "p_mtl"}
    for task, metric in metrics.items():
        for set_name in ("train", "validation"):
            assert 0.45 < found[task][set_name][metric] / (3 if task == "mtl" else 1) < 0.97, (task, set_name)


def test_knowing_the_labels_of_other_frames_does_not_beat_the_best_attainable_score():
    """The noise of labels lasts: repeating the class that is most frequent in a subject is a strong rule without it."""
    plan, labels = drawn()
    best = attainable_scores(plan, label_rule(SCALE, SEED))["expr"]["validation"]["macro_f1"]
    truth, repeated = [], []
    for subject, one in labels:
        if subject.sets.get("expr") == "validation":
            valid = one.branches["expr"][one.branches["expr"] >= 0]
            truth.append(valid)
            repeated.append(np.full(len(valid), np.bincount(valid, minlength=8).argmax()))

    assert main_score("expr", np.concatenate(truth), np.concatenate(repeated)) < best
