"""The plan of a simulated data set."""

import numpy as np
import pytest

from data_contracts.errors import InputError
from data_contracts.vocabulary import BRANCHES
from tasks.simulate import published
from tasks.simulate.labels import draw_labels
from tasks.simulate.plan import plan_simulation, split_total, take_runs


def test_the_full_scale_has_the_published_counts() -> None:
    plan = plan_simulation(1, seed=3)

    assert len(plan.subjects) == published.SUBJECTS
    containers = {subject.video: subject.container_count for subject in plan.subjects}
    assert len(containers) == published.VIDEOS
    assert sum(containers.values()) == published.CONTAINER_FRAMES
    assert sum(subject.frames - subject.missing_count for subject in plan.subjects) == published.CROPS
    sizes = {task: tuple(len(plan.of_set(task, name)) for name in ("train", "validation", "test")) for task in BRANCHES}
    assert sizes == {"expr": (248, 70, 228), "va": (341, 71, 152), "au": (296, 105, 141)}
    assert sum(subject.frames for subject in plan.of_set("expr", "test")) == published.EXPR_TEST_ROWS
    assert sum(subject.frames for subject in plan.of_set("au", "test")) == published.AU_TEST_ROWS
    for (task, name), labels in published.LABELS.items():
        subjects = plan.of_set(task, name)  # type: ignore[arg-type]
        assert sum(subject.labelled[task] for subject in subjects) == labels.used
        assert sum(subject.labelled_without_crop[task] for subject in subjects) == labels.missed
    assert sum(subject.mtl_rows for subject in plan.of_set("mtl", "test")) == published.MTL_TEST_ROWS
    assert (len(plan.of_set("mtl", "test")), len(plan.of_set("mtl", "train") + plan.of_set("mtl", "validation"))) == (
        82,
        307,
    )


def test_the_container_counts_have_the_published_quirks() -> None:
    videos = {subject.video: subject for subject in plan_simulation(1, seed=3).subjects}
    beyond = np.array([video.last_crop - video.container_count for video in videos.values()])

    for low, high, count in published.CROPS_BEYOND_CONTAINER:
        assert np.sum((low <= beyond) & (beyond <= high)) == pytest.approx(count, abs=3)
    assert beyond.min() == -458


@pytest.mark.parametrize("scale", [0.001, 0.03])
def test_a_small_scale_has_every_kind_of_subject(scale: float) -> None:
    plan = plan_simulation(scale, seed=0)

    assert plan.frames == pytest.approx(published.FRAMES * scale, rel=0.06)
    for task in (*BRANCHES, "mtl"):
        assert all(plan.of_set(task, name) for name in ("train", "validation", "test"))  # type: ignore[arg-type]
    sides = [subject.name.rsplit("_", 1)[-1] for subject in plan.subjects if "_" in subject.name]
    assert sides.count("left") == sides.count("right") > 0
    by_video: dict[str, set[tuple[str, ...]]] = {}
    for subject in plan.subjects:
        by_video.setdefault(subject.video, set()).add(tuple(sorted(f"{t}{s}" for t, s in subject.sets.items())))
    assert all(len(sets - {()}) <= 2 for sets in by_video.values())


def test_missing_crops_and_labels_follow_the_plan() -> None:
    plan = plan_simulation(0.003, seed=1)
    for subject in plan.subjects:
        missing = plan.missing(subject)
        assert len(missing) == subject.frames
        assert missing.sum() == subject.missing_count
        assert np.flatnonzero(~missing)[-1] + 1 == subject.last_crop
        labels = draw_labels(plan, subject)
        assert set(labels.branches) == set(subject.labelled)
        for branch, values in labels.branches.items():
            valid = np.isfinite(values[:, 0]) if branch == "va" else (values.reshape(len(values), -1) >= 0).all(axis=1)
            assert (valid & ~missing).sum() == subject.labelled[branch]
            assert (valid & missing).sum() == subject.labelled_without_crop[branch]
        assert len(labels.mtl_frames) == subject.mtl_rows
        assert len(set(labels.mtl_frames.tolist())) == subject.mtl_rows - subject.mtl_repeated


def test_plans_repeat_and_depend_on_the_seed() -> None:
    assert plan_simulation(0.002, seed=5) == plan_simulation(0.002, seed=5)
    assert plan_simulation(0.002, seed=5) != plan_simulation(0.002, seed=6)


@pytest.mark.parametrize("scale", [0, 0.0001, 1.5, float("nan")])
def test_a_scale_out_of_range_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match=r"--scale .*expected 0\.001 to 1"):
        plan_simulation(scale, seed=0)


def test_split_total_respects_limits() -> None:
    assert split_total(10, [1, 1, 8], [9, 9, 5]) == [3, 2, 5]
    assert split_total(100, [1, 2], [3, 4]) == [3, 4]
    assert sum(split_total(7, [0, 0, 0], [5, 5, 5])) == 7


@pytest.mark.parametrize("count", [0, 1, 7, 2_000, 8_999, 9_000])
def test_take_runs_takes_the_wanted_number_in_long_runs(count: int) -> None:
    allowed = np.arange(10_000) % 100 >= 10
    taken = take_runs(np.random.default_rng(count), allowed, count, 400)

    assert len(np.unique(taken)) == len(taken) == count
    assert (np.diff(taken) > 0).all() and allowed[taken].all()
    # Positions that are not allowed do not end a run.
    runs = 1 + np.count_nonzero(np.diff(np.searchsorted(np.flatnonzero(allowed), taken)) > 1)
    assert runs == max(min(round(count / 400), round((9_000 - count) / 40)), 1)
