"""What the product's own readers find in the files of a simulated data set."""

import numpy as np
import pytest

from data_contracts.challenge.annotations import read_annotations
from data_contracts.challenge.editions import EDITIONS, TASKS_OF_EDITION
from data_contracts.challenge.layout import find_data
from data_contracts.challenge.test_lists import read_test_list
from data_contracts.vocabulary import ACTION_UNITS, BRANCHES, is_simulated_subject
from tasks.challenge_files import list_file, sample_file
from tasks.fit.subject_features import label_arrays
from tasks.simulate import published
from tasks.simulate.challenge_data import write_challenge_data
from tasks.simulate.labels import SubjectLabels
from tasks.simulate.plan import plan_simulation

SETS = ("train", "validation")


def random_labels(random, count):
    """Return labels of frames, some of them invalid, with values that need all digits of 32 bits."""
    va = random.uniform(-1, 1, (count, 2)).astype(np.float32)
    va[::7] = va[::7].round(3)
    va[1::9] = (-1, 1)
    va[random.random(count) < 0.2] = np.nan
    expr = random.integers(-1, 8, count).astype(np.int8)
    au = random.integers(0, 2, (count, len(ACTION_UNITS))).astype(np.int8)
    au[random.random(count) < 0.2] = -1
    return {"expr": expr, "va": va, "au": au}


def label_subjects(plan):
    """Return labels for every subject of the plan, drawn without a model."""
    for subject in plan.subjects:
        random = np.random.default_rng([plan.seed, subject.number])
        full = random_labels(random, subject.frames)
        branches = {task: full[task] for task in BRANCHES if subject.sets.get(task) in SETS}
        frames = np.sort(random.choice(subject.frames, subject.mtl_rows)).astype(np.int32)
        yield subject, SubjectLabels(branches, frames + 1, {task: values[frames] for task, values in full.items()})


@pytest.fixture(scope="module", params=[(0.001, 3), (0.004, 11), (0.0023, 2**32 - 1)], ids=str)
def written(request, tmp_path_factory):
    plan = plan_simulation(*request.param)
    root = tmp_path_factory.mktemp("data")
    labelled = dict((subject.name, (subject, labels)) for subject, labels in label_subjects(plan))
    write_challenge_data(root, plan, labelled.values())
    return root, plan, labelled


def test_reading_returns_the_arrays_that_were_written_in_every_edition(written):
    root, _, labelled = written
    compared = 0
    for edition in EDITIONS:
        layout = find_data(root / edition)
        for task in set(TASKS_OF_EDITION[edition]) & set(BRANCHES):
            for set_name in SETS:
                found = read_annotations(layout.annotations_of(task), task=task, set_name=set_name)
                assert found.faults == ()
                names, values = np.array(found.table["subject"].to_pylist()), label_arrays(found.table)[task]
                wanted = {name for name, (subject, _) in labelled.items() if subject.sets.get(task) == set_name}
                assert set(names) == wanted
                for name in wanted:
                    np.testing.assert_array_equal(values[names == name], labelled[name][1].branches[task])
                    compared += 1
    assert compared > 20


def test_multi_task_lists_keep_repeated_names_and_masks(written):
    root, plan, labelled = written
    for edition, set_name in [("abaw3", "train"), ("abaw3", "validation"), ("abaw4", "train"), ("abaw7", "validation")]:
        folder = find_data(root / edition).annotations_of("mtl")
        table = read_annotations(folder, task="mtl", set_name=set_name).table
        found, wanted = label_arrays(table), {task: [] for task in BRANCHES}
        keys = []
        for subject, labels in labelled.values():
            if subject.sets.get("mtl") == set_name:
                has_crop = ~plan.missing(subject)[labels.mtl_frames - 1]
                kept = has_crop | (edition == "abaw3")
                keys += [(subject.name, frame) for frame in labels.mtl_frames[kept].tolist()]
                for task in BRANCHES:
                    wanted[task].append(labels.mtl[task][kept])
        assert list(zip(table["subject"].to_pylist(), table["frame"].to_pylist(), strict=True)) == keys
        assert len(set(keys)) < len(keys)
        for task in BRANCHES:
            np.testing.assert_array_equal(found[task], np.concatenate(wanted[task]))


def test_lists_and_sample_files_name_the_test_subjects_and_all_their_frames(written):
    root, plan, _ = written
    assert all(is_simulated_subject(subject.name) for subject in plan.subjects)
    for edition in EDITIONS:
        for task in TASKS_OF_EDITION[edition]:
            subjects = plan.of_set(task, "test")
            wanted = read_test_list(list_file(root / edition, edition, task))
            assert wanted.choose_edition(task) in (edition, "abaw3", "abaw7")
            assert set(wanted.subjects) == {subject.name for subject in subjects}
            if task == "mtl":
                rows = sum(subject.mtl_rows for subject in subjects)
                later = round(rows * published.MTL_LATER_TEST_ROWS / published.MTL_TEST_ROWS)
                assert len(wanted.images) == (rows if edition == "abaw3" else later)
                assert wanted.rows_by == "frame"
            elif path := sample_file(root / edition, edition, task):
                sample = read_test_list(path)
                assert sample.choose_edition(task) == edition
                assert len(sample.images) == sum(subject.frames for subject in subjects)
                assert sample.content_task == task


def test_values_of_sample_files_are_those_of_each_edition(written):
    root, _, _ = written
    rows = {
        edition: sample_file(root / edition, edition, "va").read_text().splitlines()[1].partition(",")[2]
        for edition in ("abaw5", "abaw6", "abaw8")
    }
    assert rows == {"abaw5": "", "abaw6": "0.5,-0.5", "abaw8": "0.5,-0.5"}
    last = list_file(root / "abaw7", "abaw7", "mtl").read_text().splitlines()[-1]
    assert last.endswith(".jpg,")


def test_repeated_calls_write_the_same_bytes(written, tmp_path):
    root, plan, labelled = written
    write_challenge_data(tmp_path, plan, labelled.values())
    write_challenge_data(tmp_path, plan, labelled.values())
    files = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert all((root / path).read_bytes() == (tmp_path / path).read_bytes() for path in files)
