"""The calls of notebooks, on a store of the tests and on predictions with two persons."""

import builtins
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import affwild2
from data_contracts.schemas.dataset import check_schema
from data_contracts.schemas.predictions import PREDICTIONS

STORE = Path(__file__).parents[1] / "data" / "store_34a2ed4" / "store"


@pytest.fixture(scope="module")
def store():
    return affwild2.open_store(STORE)


def write_predictions(path, *, persons=(1, 2), count=30, **others):
    """Write a file in which the second person is seen more often than the first, and has no face in the middle."""
    person = np.repeat(persons, count)
    seen = np.concatenate([np.arange(count) < count // 3, (np.arange(count) < 10) | (np.arange(count) > 14)])
    values = {"person": person, "frame": np.tile(np.arange(1, count + 1), len(persons))}
    values |= {"time_seconds": (values["frame"] - 1) / 25, "has_face": seen[: len(person)]} | others
    columns = {}
    for field in PREDICTIONS.schema:
        if field.name in values:
            columns[field.name] = pa.array(values[field.name], field.type)
        elif field.name.startswith("p_") or field.name in ("valence", "arousal"):
            columns[field.name] = pa.array(np.full(len(person), 0.125), field.type, mask=~seen[: len(person)])
        else:
            columns[field.name] = pa.nulls(len(person), field.type)
    pq.write_table(check_schema(pa.table(columns), PREDICTIONS), path)


@pytest.fixture
def folder(tmp_path):
    write_predictions(tmp_path / "clip.parquet")
    write_predictions(tmp_path / "validation01.parquet", persons=(1,))
    (tmp_path / "predictions.json").write_text("{}")
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"image": ["a"]}), tmp_path / "tables/images.parquet")
    return tmp_path


def test_importing_loads_no_heavy_library():
    heavy = {"torch", "bokeh", "matplotlib", "pandas", "polars", "prefect", "distributed", "rich"}
    code = f"import affwild2, sys; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_features_of_chosen_subjects(store):
    table = store.features(["validation01", "train02_left"])
    assert table.column_names == ["subject", "frame", "has_face", "embedding", "logits"]
    assert table["subject"].unique().to_pylist() == ["validation01", "train02_left"]
    first = table.filter(pa.compute.equal(table["subject"], "validation01"))
    assert first["frame"].to_pylist() == list(range(1, len(first) + 1))
    assert table.schema.field("embedding").type.list_size == 1280
    few = store.features("train01", embeddings=False, backbone="emotion_lite0", source="mtcnn")
    assert few.column_names == ["subject", "frame", "has_face", "logits"]
    assert len(store.features(embeddings=False)) == 72


def test_labels_of_a_task(store):
    table = store.labels("expr")
    assert table.column_names == ["set", "row", "subject", "frame", "expression"]
    assert table["set"].unique().to_pylist() == ["train", "validation"]
    assert len(table) == 48
    frame = store.labels("mtl", set="train", subjects="train01", to="polars")
    assert isinstance(frame, pl.DataFrame) and frame["subject"].unique().to_list() == ["train01"]
    assert {"expression", "valence", "AU26"} < set(frame.columns)


def test_outputs_and_heads(store):
    heads = store.heads(to="polars")
    assert heads["task"].to_list() == ["expr", "mtl"] and heads["untuned"].is_not_null().all()
    outputs = store.outputs("expr", subjects="train01")
    assert outputs.column_names[:4] == ["subject", "frame", "has_face", "p_neutral"]
    assert outputs.equals(store.outputs(heads["head"][0], subjects=["train01"]))
    contents = store.contents(to="polars")
    assert contents.filter(pl.col("dataset") == "outputs")["rows"].to_list() == [72, 72]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.outputs(), "expected one head, found expr-.*, mtl-.*; choose one with head="),
        (lambda s: s.outputs("va"), "expected one head named 'va', found: expr-default-2f76ae44, mtl-default-"),
        (lambda s: s.features("train1"), "got 'train1'; found: train01, "),
        (lambda s: s.features(backbone="b0"), "expected one backbone named 'b0', found: emotion_lite0-a65c9139"),
        (lambda s: s.features(source="cropped"), "expected one source named 'cropped', found: mtcnn-b3f6ef21"),
        (lambda s: s.labels("va"), "expected labels of va, found expr train, expr validation, mtl train, mtl val"),
        (lambda s: s.labels("valence"), "task 'valence': expected one of expr, va, au, mtl"),
        (lambda s: s.labels("expr", set="test"), "set 'test': expected one of train, validation"),
        (lambda s: s.heads(to="numpy"), "to='numpy': expected 'arrow', 'pandas' or 'polars'"),
    ],
)
def test_wrong_names_are_refused_with_those_that_exist(store, call, message):
    with pytest.raises(affwild2.InputError, match=message):
        call(store)


def test_a_missing_library_is_one_clear_line(store, monkeypatch):
    real = builtins.__import__

    def without_polars(name, *args, **kwargs):
        if name == "polars":
            raise ModuleNotFoundError("No module named 'polars'", name="polars")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", lambda name: without_polars(name))
    with pytest.raises(ModuleNotFoundError, match=r"^polars is not installed .* use to='arrow'$"):
        store.heads(to="polars")


def test_reading_a_damaged_file_changes_nothing(tmp_path):
    import shutil

    shutil.copytree(STORE, tmp_path / "store")
    (part,) = (tmp_path / "store").glob("outputs/head=expr*/*/subject=train01/part-*.parquet")
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 0xFF
    part.write_bytes(data)
    opened = affwild2.open_store(tmp_path / "store")
    with pytest.raises(affwild2.InputError, match=rf"{re.escape(part.name)}: expected a complete Parquet file"):
        opened.outputs("expr", subjects="train01")
    assert len(list(part.parent.glob("_manifest-*.json"))) == 1
    assert len(opened.outputs("expr", subjects="validation01")) == 12


def test_predictions_of_a_folder(folder):
    predictions = affwild2.open_predictions(folder)
    assert predictions.videos == ["clip", "validation01"]
    table = predictions.load()
    assert table.column_names == ["video", *PREDICTIONS.schema.names] and len(table) == 90
    of_person = predictions.load("clip", person=2, to="polars")
    assert len(of_person) == 30 and of_person["person"].unique().to_list() == [2]
    for wrong, message in (("clp", "got 'clp'; found: clip"), (["clip", "x"], "got 'x'; found: clip, validation01")):
        with pytest.raises(affwild2.InputError, match=message):
            predictions.load(wrong)
    with pytest.raises(affwild2.InputError, match=r"expected a person of clip, got 3; found: 1, 2"):
        predictions.load("clip", person=3)
    with pytest.raises(affwild2.InputError, match=r"expected tables/summary.parquet, found none"):
        predictions.summary()
    with pytest.raises(affwild2.InputError, match=r"expected predictions \(VIDEO.parquet\)"):
        affwild2.open_predictions(folder / "nothing")


def test_the_summary_is_read_as_it_was_written(folder):
    pq.write_table(pa.table({"video": ["clip"], "person": [1]}), folder / "tables/summary.parquet")
    predictions = affwild2.open_predictions(folder)
    assert predictions.summary(to="polars").rows() == [("clip", 1)]
    assert predictions.videos == ["clip", "validation01"]


def test_files_of_earlier_versions_are_read_beside_others(folder):
    table = pq.read_table(folder / "clip.parquet")
    pq.write_table(table.drop_columns(["person", "box_x1_px"]).slice(0, 30), folder / "old.parquet")
    table = affwild2.open_predictions(folder).load(["old", "clip"])
    assert table["person"].null_count == 30 and len(table) == 90


def test_the_timeline_shows_the_person_who_is_seen_most(folder, tmp_path):
    timeline = affwild2.open_predictions(folder).plot("clip")
    assert repr(timeline) == "Timeline of clip, person 2"
    values, expressions, units = timeline.figure.axes[:3]
    (valence, arousal) = (line.get_ydata() for line in values.get_lines()[:2])
    assert np.isnan(valence[12]) and valence[20] == 0.125 and len(arousal) == 30
    assert [text.get_text() for text in expressions.get_legend().get_texts()] == list(affwild2.EXPRESSIONS)
    assert [text.get_text() for text in units.get_yticklabels()] == list(affwild2.ACTION_UNITS)
    # Frames 11 to 15 show no face.
    (shade,) = [patch for patch in values.patches if patch.get_alpha() == 0.35]
    np.testing.assert_allclose(shade.get_bbox().intervalx, [10 / 25, 15 / 25])
    data, size = timeline._repr_png_()
    assert data.startswith(b"\x89PNG") and size["width"] == 950
    timeline.save(tmp_path / "timeline.svg")
    assert "<svg" in (tmp_path / "timeline.svg").read_text()
    with pytest.raises(affwild2.InputError, match="expected the name of a video, got none; found: clip, valid"):
        affwild2.open_predictions(folder).plot()


def test_labels_are_drawn_beside_predictions(folder, store):
    timeline = affwild2.open_predictions(folder).plot("validation01", labels=store)
    values, expressions, _ = timeline.figure.axes[:3]
    assert [text.get_text() for text in expressions.get_yticklabels()][:2] == ["label", "decided"]
    # The store has labels of expressions only for this video.
    assert len(values.get_legend().get_texts()) == 2


def test_predictions_without_values_are_drawn_as_a_message(folder):
    write_predictions(folder / "empty.parquet", persons=(1,), has_face=np.zeros(30, bool))
    path = folder / "empty.parquet"
    table = pq.read_table(path)
    kept = ["person", "frame", "time_seconds", "has_face"]
    names = [name for name in table.column_names if name not in kept]
    for name in names:
        table = table.set_column(table.column_names.index(name), name, pa.nulls(30, table.schema.field(name).type))
    pq.write_table(table, path)
    (axes,) = affwild2.open_predictions(folder).plot("empty").figure.axes
    assert "no predictions" in axes.texts[0].get_text()


def test_images_are_no_videos(folder):
    predictions = affwild2.open_predictions(folder)
    assert predictions.images().to_pydict() == {"image": ["a"]}
    for path in folder.glob("*.parquet"):
        path.unlink()
    only_images = affwild2.open_predictions(folder)
    assert only_images.videos == []
    with pytest.raises(affwild2.InputError, match="expected the name of a video, got none; found: none"):
        only_images.plot()
    (folder / "tables/images.parquet").rename(folder / "clip.parquet")
    with pytest.raises(affwild2.InputError, match=r"expected tables/images.parquet, found none"):
        affwild2.open_predictions(folder).images()


def test_scoring_refuses_a_wrong_request_with_the_message_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFWILD2_LOG_FORMAT", "json")
    with pytest.raises(affwild2.InputError, match=r"nothing.mp4: expected a .*, found nothing there"):
        affwild2.score(tmp_path / "nothing.mp4", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(affwild2.InputError, match=r"1 failed; first: .*broken.mp4: expected a readable video"):
        affwild2.score(tmp_path / "broken.mp4", out=tmp_path / "out")
