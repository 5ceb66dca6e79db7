import numpy as np
import pyarrow as pa
import pytest

from data_contracts.details.datasets import SubjectsDetails
from data_contracts.errors import InputError
from data_contracts.schemas.faces import SUBJECTS
from data_contracts.schemas.features import features_dataset
from data_contracts.schemas.labels import LABELS
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from tasks.fit.subject_features import find_features, label_arrays, read_faces_seen, read_features
from tasks.fit.subject_split import SubjectSplit
from tasks.fit.training_rows import gather_rows, gather_sequences

DATASET = features_dataset(4, ("a", "b"))
SPLIT = SubjectSplit({"train": {"s1": "s1", "s2": "s2"}})


def add_features(store, subject, frames, has_face, *, backbone="net-1", source="mtcnn-1", part="00000"):
    frames, has_face = np.asarray(frames, np.int32), np.asarray(has_face)
    values = np.repeat(frames, 4).astype(np.float16)
    missing = pa.array(~has_face)
    embedding = pa.FixedSizeListArray.from_arrays(
        pa.array(values), type=DATASET.schema.field("embedding").type, mask=missing
    )
    logits = pa.FixedSizeListArray.from_arrays(
        pa.array(values.reshape(-1, 4)[:, :2].ravel().astype("f4")),
        type=DATASET.schema.field("logits").type,
        mask=missing,
    )
    table = pa.Table.from_arrays([pa.array(frames), pa.array(has_face), embedding, logits], schema=DATASET.schema)
    key = UnitKey("features", (("backbone", backbone), ("source", source), ("subject", subject)), part)
    written = store.write_unit(key, DATASET, [table], fingerprint="f" * 64)
    store.finish_unit(key, Manifest("f" * 64, "f" * 64, *written))


def labels(rows):
    names = LABELS.schema.names
    return pa.Table.from_pylist([dict.fromkeys(names) | row for row in rows], schema=LABELS.schema)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    add_features(store, "s1", [1, 2, 3], [True, False, True])
    add_features(store, "s1", [4, 5], [True, True], part="00001")
    add_features(store, "s2", [1, 2], [True, True])
    return store


def test_parts_are_one_run_of_frames(store):
    variant = find_features(store)
    blocks = list(read_features(store, variant, "s1"))
    assert np.concatenate([b[0] for b in blocks]).tolist() == [1, 2, 3, 4, 5]
    embeddings = np.concatenate([b[2] for b in blocks])
    assert embeddings.shape == (5, 4) and embeddings[[0, 2, 4], 0].tolist() == [1, 3, 5]
    assert read_faces_seen(store, variant, "s1").tolist() == [1, 3, 4, 5]


def test_embeddings_that_no_head_takes_are_not_read_or_stored(store, tmp_path):
    variant = find_features(store)
    blocks = list(read_features(store, variant, "s1", with_embeddings=False))
    assert [(block[2].shape, block[2].strides) for block in blocks] == [((3, 4), (0, 0)), ((2, 4), (0, 0))]
    for block, expected in zip(blocks, read_features(store, variant, "s1"), strict=True):
        for column in (0, 1, 3):
            np.testing.assert_array_equal(block[column][block[1]], expected[column][block[1]])
    table = labels([{"row": n, "subject": "s1", "frame": n + 1, "expression": 1} for n in range(5)])
    rows, _ = gather_rows(
        store, variant, {"train": table}, task="expr", split=SPLIT, folder=tmp_path, with_embeddings=False
    )
    assert rows.embeddings.shape == (4, 4) and rows.logits[:, 0].tolist() == [1, 3, 4, 5]


def test_files_of_rows_are_deleted_while_they_are_mapped(store, tmp_path):
    table = labels([{"row": n, "subject": "s1", "frame": n + 1, "expression": 1} for n in range(5)])
    variant = find_features(store)
    (tmp_path / "rows").mkdir()
    given = {"task": "expr", "split": SPLIT, "folder": tmp_path / "rows"}
    rows, _ = gather_rows(store, variant, {"train": table}, **given)
    (sequence,), _ = gather_sequences(store, variant, {"train": table}, **given)
    assert isinstance(rows.embeddings, np.memmap) and isinstance(sequence.embeddings, np.memmap)
    assert rows.embeddings[:, 0].tolist() == [1, 3, 4, 5] and sequence.embeddings[:, 0].tolist() == [1, 0, 3, 4, 5]
    assert list((tmp_path / "rows").iterdir()) == []


def test_a_subject_without_its_last_segment_is_left_out_and_named(store):
    key = UnitKey("subjects", (("source", "mtcnn-1"), ("video", "s1")))
    details = SubjectsDetails(subjects=("s1",), segments=3).to_json()
    written = store.write_unit(key, SUBJECTS, [], fingerprint="f" * 64)
    store.finish_unit(key, Manifest("f" * 64, "f" * 64, *written, details=details))
    variant = find_features(store)
    assert list(variant.subjects) == ["s2"] and variant.incomplete == ("s1",)
    assert variant.describe_incomplete() == (
        "warning: features net-1 mtcnn-1: 1 subject was extracted only in part and left out (s1); run extract again"
    )
    add_features(store, "s1", [6], [True], part="00002")
    variant = find_features(store)
    assert list(variant.subjects) == ["s1", "s2"] and variant.describe_incomplete() is None


def test_rows_are_those_with_label_and_face_and_the_rest_is_counted(store, tmp_path):
    rows = [
        {"row": 0, "subject": "s2", "frame": 2, "expression": 7},
        {"row": 1, "subject": "s1", "frame": 5, "expression": 1},
        {"row": 2, "subject": "s1", "frame": 5, "expression": 2},
        {"row": 3, "subject": "s1", "frame": 2, "expression": 3},
        {"row": 4, "subject": "s1", "frame": 1, "expression": None},
        {"row": 5, "subject": "s9", "frame": 1, "expression": 4},
        {"row": 6, "subject": "s1", "frame": 3, "expression": 5},
    ]
    (tmp_path / "scratch").mkdir()
    found, (coverage,) = gather_rows(
        store, find_features(store), {"train": labels(rows)}, task="expr", split=SPLIT, folder=tmp_path / "scratch"
    )
    assert found.labels["expr"].tolist() == [5, 1, 2, 7]
    assert found.embeddings[:, 0].tolist() == [3, 5, 5, 2] and found.logits[:, 1].tolist() == [3, 5, 5, 2]
    assert (coverage.labelled, coverage.used, coverage.labelled_without_face, coverage.unlabelled) == (6, 4, 2, 1)
    assert coverage.subjects_without_features == 1 and coverage.faces_without_label == 3


def test_sequences_have_all_frames_and_labels_where_a_face_is_present(store, tmp_path):
    rows = [
        {"row": 0, "subject": "s1", "frame": 5, "expression": 1},
        {"row": 1, "subject": "s1", "frame": 5, "expression": 2},
        {"row": 2, "subject": "s1", "frame": 2, "expression": 3},
        {"row": 3, "subject": "s1", "frame": 3, "expression": 5},
    ]
    (tmp_path / "scratch").mkdir()
    (found,), (coverage,) = gather_sequences(
        store, find_features(store), {"train": labels(rows)}, task="expr", split=SPLIT, folder=tmp_path / "scratch"
    )
    assert found.present.tolist() == [True, False, True, True, True]
    assert found.labels["expr"].tolist() == [-1, -1, 5, -1, 2] and np.isnan(found.labels["va"]).all()
    assert found.embeddings[:, 0].tolist() == [1, 0, 3, 4, 5] and found.logits.dtype == np.float32
    assert found.labelled(("expr",)).tolist() == [2, 4] and coverage.used == 3
    np.testing.assert_allclose(found.seconds, np.arange(5) / 30)  # the store has no video


def test_nothing_to_use_is_one_line(store, tmp_path):
    rows = labels([{"row": 0, "subject": "s9", "frame": 1, "expression": 4}])
    with pytest.raises(InputError, match="no features for: s9"):
        gather_rows(store, find_features(store), {"train": rows}, task="expr", split=SPLIT, folder=tmp_path)


def test_labels_become_arrays_with_gaps():
    arrays = label_arrays(labels([{"row": 0, "subject": "s", "frame": 1, "valence": 0.5, "arousal": 0.25, "AU4": 1}]))
    assert arrays["expr"].tolist() == [-1] and arrays["va"].tolist() == [[0.5, 0.25]]
    assert arrays["au"].tolist() == [[-1, -1, 1] + [-1] * 9]


def test_several_variants_must_be_told_apart(store):
    add_features(store, "s1", [1], [True], backbone="net-2")
    with pytest.raises(
        InputError, match=r"several match any.*: --features-variant net-1 --source mtcnn-1; --features-variant net-2"
    ):
        find_features(store)
    assert find_features(store, backbone="net-2").backbone == "net-2"
    with pytest.raises(InputError, match="none matches"):
        find_features(store, source="cropped")
