from dataclasses import replace

import numpy as np
import pytest

from data_contracts.vocabulary import ACTION_UNITS, video_of_subject
from models.decisions.recipes import (
    DEFAULT,
    PAPER,
    PAPER_MTL,
    ClassBias,
    get_postprocessing_recipe,
    registered_smoothings,
)
from models.decisions.smoothing import Smoothing, interpolate_missing, smooth
from models.decisions.subject_outputs import SubjectOutputs, published_rows
from models.heads.metrics import MAIN_METRIC, main_score, score_branch
from models.tuning.folds import has_several_subjects_of_a_video, split_by_video
from models.tuning.tuning import tune_postprocessing


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
    tuned = tune_postprocessing(subjects(6), task=task, recipe=DEFAULT)
    assert tuned.tuned[metric] > tuned.untuned[metric]
    assert tuned.untuned[metric] < tuned.held_out[metric] <= tuned.tuned[metric] + 0.02


def test_in_sample_scores_are_those_of_the_rule():
    data = subjects(3)
    tuned = tune_postprocessing(data, task="mtl", recipe=DEFAULT)
    for branch in ("expr", "va", "au"):
        decided = [s.decide(tuned.postprocessing)[branch] for s in data]
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
    tuned = tune_postprocessing(data, task="expr", recipe=DEFAULT)
    assert tuned.held_out["macro_f1"] < tuned.tuned["macro_f1"] - 0.02


def test_paper_uses_fixed_windows_and_thresholds_of_unsmoothed_outputs():
    rules = tune_postprocessing(subjects(3), task="au", recipe=PAPER).postprocessing.rules
    assert rules["au"].smoothings == (Smoothing("median", 7),)
    assert all(round(value * 10) == pytest.approx(value * 10) for value in rules["au"].thresholds)
    rules = tune_postprocessing(subjects(3), task="mtl", recipe=PAPER_MTL).postprocessing.rules
    assert {rule.smoothings for rule in rules.values()} == {(Smoothing(),)}
    assert rules["expr"].class_bias == (0.0,) * 8


def test_order_of_subjects_does_not_matter_and_one_subject_has_no_held_out_score():
    data = subjects(4)
    first, second = (tune_postprocessing(d, task="expr", recipe=DEFAULT) for d in (data, data[::-1]))
    assert first == second
    assert tune_postprocessing(data[:1], task="expr", recipe=DEFAULT).held_out is None
    with pytest.raises(ValueError, match="found none"):
        tune_postprocessing([], task="expr", recipe=DEFAULT)


def test_folds_never_separate_two_subjects_of_a_video():
    names = sorted(f"v{n:02d}{side}" for n in range(11) for side in (("_left", "_right") if n % 3 == 0 else ("",)))
    splits = split_by_video(names, 5)
    assert len(splits) == 5 and sorted(at for _, inside in splits for at in inside) == list(range(len(names)))
    for outside, inside in splits:
        videos = [{video_of_subject(names[at]) for at in part} for part in (outside, inside)]
        assert not videos[0] & videos[1] and 2 <= len(inside) <= 4


def test_folds_of_videos_with_one_subject_each_are_those_of_earlier_versions():
    for count in (2, 4, 5, 23, 76):
        names = sorted(f"s{n:02d}{('', '_left', '_right')[n % 3]}" for n in range(count))
        names[0] = "s_left"  # its video sorts before the others, the subject after them
        names.sort()
        found = {tuple(inside) for _, inside in split_by_video(names, 5)}
        assert found == {tuple(range(fold, count, 5)) for fold in range(min(5, count))}
        assert not has_several_subjects_of_a_video(names)
    assert has_several_subjects_of_a_video(["a", "x_left", "x_right"])
    composed, decomposed = "\u00e9_left", "e\u0301_right"
    assert has_several_subjects_of_a_video([composed, decomposed])


def test_two_people_of_one_video_do_not_help_each_other():
    """Both people of a video have the same labels, so a rule tuned on one of them overfits to the other."""
    random = np.random.default_rng(2)
    data = []
    for video in range(6):
        expr = random.integers(0, 8, 60)
        for side in ("_left", "_right"):
            noise = np.full((60, 8), 1 / 8, "f4") + random.normal(0, 0.01, (60, 8)).astype("f4")
            data.append(
                SubjectOutputs(f"{video}{side}", {"expr": noise}, np.ones(60, bool), np.arange(60), {"expr": expr})
            )
    tuned = tune_postprocessing(data, task="expr", recipe=PAPER)
    # Each of the five rules for the held-out score was tuned without all people of one or two videos.
    left_out = [{video_of_subject(name) for name in fold.subjects} for fold in tuned.folds]
    assert sorted(map(len, left_out)) == [1, 1, 1, 1, 2] and len(set.union(*left_out)) == 6
    one_video = tune_postprocessing(data[:2], task="expr", recipe=PAPER)
    assert one_video.held_out is None


@pytest.mark.parametrize("task", ["expr", "va", "au", "mtl"])
def test_scores_of_all_candidates_are_kept(task):
    recipe = DEFAULT.replace(selection="in_sample", shrinkage=False)
    tuned = tune_postprocessing(subjects(4), task=task, recipe=recipe)
    for branch, rule in tuned.postprocessing.rules.items():
        of_branch = [one for one in tuned.candidates if one.branch == branch]
        windows = [one for one in of_branch if one.step == "smoothing"]
        assert tuple(w.smoothing for w in windows) == registered_smoothings()
        if branch != "expr":
            assert (max(windows, key=lambda one: one.score).smoothing,) == rule.smoothings
        last = max(one.score for one in of_branch if one.step != "threshold")
        assert last == pytest.approx(tuned.tuned[MAIN_METRIC[branch]], abs=1e-6)
        assert len([one for one in of_branch if one.step == "class bias"]) == (8 * 9 if branch == "expr" else 0)
        thresholds = {(one.name, one.value): one.score for one in of_branch if one.step == "threshold"}
        if branch == "au":
            for name, value in zip(ACTION_UNITS, rule.thresholds, strict=True):
                of_unit = [score for (unit, _), score in thresholds.items() if unit == name]
                assert len(of_unit) == 10 and thresholds[name, value] == max(of_unit)
                assert thresholds[name, value] == pytest.approx(tuned.tuned[f"f1_{name}"])
        else:
            assert not thresholds


def test_fixed_settings_are_the_only_candidates_of_the_paper():
    tuned = tune_postprocessing(subjects(3), task="au", recipe=PAPER)
    windows = [one for one in tuned.candidates if one.step == "smoothing"]
    assert [one.smoothing for one in windows] == [Smoothing("median", 7)]
    thresholds = [one for one in tuned.candidates if one.step == "threshold"]
    assert len(thresholds) == 9 * 12 and {one.smoothing for one in thresholds} == {Smoothing()}


def test_a_fold_without_labels_of_a_branch_is_tuned_on_the_others():
    data = subjects(2)
    data[0].labels["au"] = np.full((120, 12), -1)
    assert tune_postprocessing(data, task="mtl", recipe=DEFAULT).held_out is not None


@pytest.mark.parametrize(("task", "direction"), [("expr", "published"), ("au", "published"), ("mtl", "linear")])
def test_paper_fills_gaps_as_published_where_the_paper_smooths(task, direction):
    paper = tune_postprocessing(
        subjects(3), task=task, recipe=get_postprocessing_recipe("paper", task=task)
    ).postprocessing
    assert paper.direction == direction
    assert tune_postprocessing(subjects(3), task=task, recipe=DEFAULT).postprocessing.direction == "linear"


def test_scores_of_the_paper_depend_on_the_direction():
    """Smoothing sees the filled frames, although they are not scored."""
    data = subjects(4)
    smoothed, labels = [], []
    for one in (published_rows(each) for each in data):
        filled = interpolate_missing(one.outputs["va"], one.present, direction="published")
        smoothed.append(smooth(filled, method="mean", half_width_frames=7)[one.labelled_frame])
        labels.append(one.labels["va"])
    expected = main_score("va", np.concatenate(labels), np.clip(np.concatenate(smoothed), -1, 1))
    assert tune_postprocessing(data, task="va", recipe=PAPER).tuned["mean_ccc"] == pytest.approx(expected, abs=1e-12)


def test_paper_scores_no_action_unit_of_a_partly_labelled_row():
    data, partial, without = subjects(3), [], []
    for one in data:
        units = one.labels["au"].copy()
        units[::3, 4] = -1
        partial.append(replace(one, labels=one.labels | {"au": units}))
        kept = np.arange(len(units)) % 3 > 0
        labels = {branch: values[kept] for branch, values in one.labels.items()}
        without.append(replace(one, labelled_frame=one.labelled_frame[kept], labels=labels))
    found, expected = (tune_postprocessing(each, task="au", recipe=PAPER) for each in (partial, without))
    assert found.figures() == expected.figures() and found.postprocessing == expected.postprocessing
    loose = tune_postprocessing(partial, task="au", recipe=DEFAULT)
    assert loose.figures() != tune_postprocessing(without, task="au", recipe=DEFAULT).figures()


BEST = DEFAULT.replace(
    class_bias=ClassBias(2.0, 41, 3),
    spaces=("probability", "logit"),
    smoothing_per_unit=True,
    selection="held_out",
    shrinkage=True,
    gate_levels=(0.5, 0.9),
    calibration=True,
)


def test_everything_together_serves_all_branches():
    data = [replace(one, backbone=one.outputs["expr"]) for one in subjects(4, frames=60)]
    # A subject without any face has labels, and no outputs.
    nothing = {branch: np.full_like(values, np.nan) for branch, values in data[0].outputs.items()}
    faceless = replace(data[0], outputs=nothing, present=np.zeros(60, bool), backbone=nothing["expr"])
    data.append(replace(faceless, name="s4"))
    tuned = tune_postprocessing(data, task="mtl", recipe=BEST)
    assert tuned.held_out["p_mtl"] > tuned.untuned["p_mtl"]
    assert set(tuned.calibration) == {"expr", "au"} and {one.branch for one in tuned.coverage} == {"expr", "au"}
    for branch, one in tuned.calibration.items():
        assert one.after < one.before, branch
    # Rules that are applied to whole subjects give the scores of the search, which knows labelled rows only.
    for branch in ("expr", "va", "au"):
        decided = np.concatenate([one.decide(tuned.postprocessing)[branch] for one in data])
        found = score_branch(branch, np.concatenate([one.labels[branch] for one in data]), decided)
        assert found == pytest.approx({name: tuned.tuned[name] for name in found}, abs=1e-3)
    with pytest.raises(ValueError, match="expressions of the backbone"):
        tune_postprocessing(subjects(3, frames=60), task="expr", recipe=BEST)


def test_shrinkage_and_held_out_selection_keep_noise_out_of_the_bias():
    """Without any relation to the labels, a class bias that is fitted in-sample has large values."""
    random = np.random.default_rng(5)
    data = []
    for n in range(8):
        p = random.dirichlet(np.full(8, 5.0), 60).astype("f4")
        data.append(
            SubjectOutputs(f"s{n}", {"expr": p}, np.ones(60, bool), np.arange(60), {"expr": random.integers(0, 8, 60)})
        )
    search = {"class_bias": ClassBias(2.0, 41, 3), "smoothings": {"expr": (Smoothing(),)}}
    plain, shrunk = (
        tune_postprocessing(data, task="expr", recipe=one.replace(**search)).postprocessing.rules["expr"].class_bias
        for one in (DEFAULT.replace(selection="in_sample", shrinkage=False), BEST.replace(gate_levels=()))
    )
    assert np.ptp(plain) > 0.3 and np.ptp(shrunk) < 0.5 * np.ptp(plain)


def test_windows_in_seconds_depend_on_the_frame_rate():
    """Videos of 60 frames per second need twice as many frames in a window as videos of 30."""
    data = subjects(6)
    fast = [replace(one, frames_per_second=60.0) for one in data]
    found = [tune_postprocessing(one, task="va", recipe=DEFAULT).postprocessing.rules["va"] for one in (data, fast)]
    widths = [rule.smoothings[0].half_width_frames(rate) for rule, rate in zip(found, (30, 60), strict=True)]
    assert found[0] != found[1] and abs(widths[0] - widths[1]) <= 0.3 * widths[0]
