import pyarrow as pa
import pytest

from data_contracts.details.datasets import FeaturesDetails, LabelsDetails
from data_contracts.errors import InputError
from data_contracts.schemas.labels import LABELS
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from tasks.fit.subject_features import FeaturesVariant
from tasks.fit.subject_split import describe_other_lengths, describe_seen, seen_subjects, split_subjects
from tasks.units import Product, write_product


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


def test_labels_of_a_copy_with_another_frame_rate_are_named(tmp_path):
    """The number of frames of crops without a video is unknown."""
    frames, known = {"same": 100, "twice": 200, "half": 50, "crops": 50}, {"crops": "last crop"}
    rows = [{"row": n, "subject": name, "frame": n + 1} for name in ("Same.mp4", *frames, "other") for n in range(101)]
    store, key = Store(tmp_path), UnitKey("labels", (("task", "va"), ("set", "train")))
    product = Product(LABELS, [pa.Table.from_pylist(rows, schema=LABELS.schema)])
    unit = StoredUnit(key, write_product(store, key, product, fingerprint="f" * 64, started=0.0))

    def features(name):
        details = FeaturesDetails(
            first_frame=1, frame_count=frames[name], frames_known_from=known.get(name), backbone_name="b"
        )
        return [StoredUnit(key, Manifest("f", "f", "p", 0, frames[name], details=details.to_json()))]

    variant = FeaturesVariant("b", "mtcnn", {name: features(name) for name in frames})
    line = describe_other_lengths(store, unit, {name: name for name in frames}, variant)
    assert line.startswith("the labels of 2 subjects end far from the end of the video (")
    assert "half: 101 of 50 frames" in line and "twice: 101 of 200 frames" in line
    assert describe_other_lengths(store, unit, {"Same.mp4": "same"}, variant) == ""
