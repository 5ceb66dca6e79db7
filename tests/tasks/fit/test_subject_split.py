import pytest

from data_contracts.details.datasets import LabelsDetails
from data_contracts.errors import InputError
from data_contracts.store.manifest import Manifest
from tasks.fit.subject_split import describe_seen, seen_subjects, split_subjects


def labels(*subjects):
    return Manifest("f", "f", "p", 0, 0, {}, 0.0, LabelsDetails(subjects=subjects).to_json())


@pytest.mark.parametrize(
    ("train", "validation", "excluded"),
    [
        (("a",), ("b",), ()),
        (("a", "b"), ("b", "c"), ("b",)),
        (("a_left",), ("a_right", "c"), ("a_right",)),
        (("a",), ("a_left", "a_right", "c"), ("a_left", "a_right")),
        (("a_right",), ("a", "c"), ("a",)),
        (("Am\u00e9lie",), ("Ame\u0301lie", "c"), ("Ame\u0301lie",)),
        (("A",), ("a", "c"), ("a",)),
        (("a.mp4",), ("a_left", "c"), ("a_left",)),
    ],
)
def test_validation_subjects_whose_video_is_in_the_training_set_are_excluded(train, validation, excluded):
    split = split_subjects(
        {"train": labels(*train), "validation": labels(*validation)}, task="expr", known=["a", "a_left", "b", "c"]
    )
    assert split.excluded == excluded
    assert not set(split.validation()) & set(excluded)


def test_names_that_differ_only_without_features_in_case_are_two_subjects():
    sets = {"train": labels("A"), "validation": labels("a", "b")}
    assert split_subjects(sets, task="expr", known=["b"]).excluded == ()


def test_sets_that_are_equal_are_refused():
    with pytest.raises(InputError, match=r"all 2 subjects of the validation set.*remove them from one of the two"):
        split_subjects({"train": labels("a", "b"), "validation": labels("a", "b_left")}, task="expr", known=[])


def test_warnings_name_the_subjects():
    assert seen_subjects(["b_left", "x"], ["b_right"]) == ["b_left"]
    line = describe_seen(["b_left"], place="list.txt", others="the training set")
    assert line == "warning: list.txt: 1 subject, or its video, is also in the training set: b_left"
    assert describe_seen([f"s{n}" for n in range(30)], place="p", others="o").endswith("s19, ...")
