import contextlib
import itertools
import json
import os
import re

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from data_contracts.details.datasets import OutputsDetails
from data_contracts.details.heads import PostprocessingDetails, TuningFigures
from data_contracts.errors import StoreError
from data_contracts.files.local import LocalFiles
from data_contracts.schemas.faces import FACE_COLUMNS, FACES, FRAMES, SUBJECTS
from data_contracts.schemas.outputs import outputs_dataset
from data_contracts.schemas.predictions import DECISION_COLUMNS, PREDICTIONS
from data_contracts.store.bundles import write_bundle
from data_contracts.store.manifest import UnitKey, to_sealed_json
from data_contracts.store.store import Store
from data_contracts.vocabulary import ACTION_UNITS, BRANCHES_OF_TASK, EXPRESSIONS
from models.decisions.postprocessing import BranchRule, PostProcessing
from models.decisions.smoothing import Smoothing
from tasks.fit.head_selection import ServingHead
from tasks.results import write_predictions
from tasks.results.prediction_folder import (
    DESCRIPTION,
    RECORD,
    describe_others,
    find_predictions,
    noted_folders,
    read_record,
    remove_predictions,
)
from tasks.units import Product, write_product
from tests.details_factory import head_details

SOURCE = "mtcnn-1"
# Frames with a face: all, those in the middle, and none. Names order the clip without a face first.
CLIPS = {"a nobody": [0] * 6, "b half": [0, 1, 1, 0, 1, 0], "c all": [1] * 6}


class Lab:
    """A store with outputs of heads for three clips, and a folder of predictions."""

    def __init__(self, folder):
        self.store, self.out = Store(folder / "store"), folder / "out"
        for clip, present in CLIPS.items():
            rows = len(present)
            columns = {"frame": range(1, rows + 1), "pts": range(rows), "pts_seconds": np.arange(rows) / 25}
            self.write(FRAMES, (("video", clip),), columns | {"keyframe": [True] * rows})

    def write(self, dataset, partitions, columns):
        table = pa.table({f.name: pa.array(columns[f.name], f.type, from_pandas=True) for f in dataset.schema})
        product = Product(dataset, [table], details=OutputsDetails())
        digits = f"{hash(str(columns)) % 2**32:08x}"
        write_product(self.store, UnitKey(dataset.name, partitions), product, fingerprint=digits * 8, started=0.0)

    def head(self, name, task, branches=None, clips=tuple(CLIPS), rule=None):
        """Write a head with its outputs and post-processing; return how it serves, and the source of its faces."""
        details = head_details(task, source=SOURCE)
        head = write_bundle(self.store, f"heads/{name}", {}, fingerprint=name * 3, details=details)
        columns = outputs_dataset(BRANCHES_OF_TASK[task], has_backbone=bool(rule and rule.has_gate))
        for clip in clips:
            present = np.array(CLIPS[clip], bool)
            # The frame decides the largest probability: of frame 1 the first class, and so on.
            values = {c.name: np.where(present, 0.1, np.nan) for c in columns.columns[2:]}
            for row, column in enumerate(list(values)[: len(present)]):
                values[column][row] = 0.6 if present[row] else np.nan
            if rule and rule.has_gate:
                # The backbone is certain of Sadness in the first half.
                values["backbone_p_sadness"] = np.where(present, [0.9, 0.9, 0.9, 0.3, 0.3, 0.3], np.nan)
            place = (("head", name), ("source", SOURCE), ("subject", clip))
            self.write(columns, place, values | {"frame": range(1, len(present) + 1), "has_face": present})
        if rule is None:
            return ServingHead(head, branches or BRANCHES_OF_TASK[task]), SOURCE
        text = json.dumps({"postprocessing": rule.to_dict()}).encode()
        details = PostprocessingDetails(head=name, task=task, tuning="default", figures=TuningFigures())
        tuned = write_bundle(
            self.store, f"postprocessing/{name}-1", {"postprocessing.json": text}, fingerprint="t", details=details
        )
        return ServingHead(head, branches or BRANCHES_OF_TASK[task], tuned), SOURCE

    def show_faces(self, clip):
        """Store two faces in each frame that shows the subject, whose face is the smaller one, rank 1."""
        frames = [number for number, present in enumerate(CLIPS[clip], 1) for _ in range(2 if present else 1)]
        seen = [bool(CLIPS[clip][number - 1]) for number in frames]
        rank = [number == before for before, number in itertools.pairwise([0, *frames])]
        side = np.where(rank, 20.0, 30.0)
        left = np.array(frames) + 100.0 * np.array(rank)
        faces = {
            "frame": frames,
            "face": [int(r) if s else None for r, s in zip(rank, seen, strict=True)],
            "status": ["face" if s else "no_face" for s in seen],
            "subject": [None] * len(frames),
            "landmarks_xy_px": [[x + n for n in range(10)] if s else None for x, s in zip(left, seen, strict=True)],
            "probability": np.where(seen, 0.9 + 0.05 * np.array(rank), np.nan),
            "crop_jpeg": [b"" if s else None for s in seen],
        }
        for name, values in zip(("x1", "y1", "x2", "y2"), (left, left, left + side, left + 2 * side), strict=True):
            faces[f"box_{name}_px"] = np.where(seen, values, np.nan)
        self.write(FACES, (("source", SOURCE), ("video", clip)), faces)
        found = [n for n, s in enumerate(seen) if s]
        subjects = {name: [faces[name][n] for n in found] for name in ("frame", "face")}
        subjects |= {"track": [int(rank[n]) for n in found], "subject": [clip if rank[n] else None for n in found]}
        self.write(SUBJECTS, (("source", SOURCE), ("video", clip)), subjects)

    def predict(self, *heads, clips=tuple(CLIPS), missing_faces="null", out=None):
        """Write predictions; return when each file of the folder was written."""
        out = out or self.out
        paths, self.failures = write_predictions.write_predictions(
            self.store, sorted(clips), heads=heads, people="main", missing_faces=missing_faces, out=out
        )
        assert [path.name for path in paths] == [
            f"{clip}.{end}" for clip in sorted({*clips} - self.failures.keys()) for end in ("parquet", "csv")
        ]
        return {path: path.stat().st_mtime_ns for path in paths}

    def table(self, clip):
        return pl.read_parquet(self.out / f"{clip}.parquet")


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


@pytest.fixture
def expr(lab):
    return lab.head("expr-1", "expr")


def test_every_frame_has_a_row_and_no_other_files_are_left(lab, expr):
    for path in lab.predict(expr):
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
        assert table["frame"].to_list() == list(range(1, 7))
        assert table["time_seconds"].to_list() == [n / 25 for n in range(6)]
        assert table.columns == PREDICTIONS.schema.names
        assert table["has_face"].to_list() == [bool(face) for face in CLIPS[path.stem]]
    assert {path.name for path in lab.out.iterdir()} == {path.name for path in lab.predict(expr)} | {
        RECORD,
        DESCRIPTION,
    }


@pytest.mark.parametrize("tasks", [["expr"], ["va", "au"], ["mtl"], ["au", "va", "expr"]])
def test_globs_over_clips_with_and_without_faces_have_one_schema(lab, tasks):
    heads = [lab.head(f"{task}-1", task) for task in tasks]
    lab.predict(*heads)
    rows = sum(map(len, CLIPS.values()))
    faces = sum(map(sum, CLIPS.values()))
    served = {branch for task in tasks for branch in BRANCHES_OF_TASK[task]}
    of_branch = {"expr": "expression", "va": "arousal", "au": "AU26"}
    known = {branch: faces if branch in served else 0 for branch in of_branch}

    schemas = [pq.read_schema(path) for path in sorted(lab.out.glob("*.parquet"))]
    assert all(schema.equals(PREDICTIONS.schema) for schema in schemas)
    dataset = ds.dataset(sorted(map(str, lab.out.glob("*.parquet"))), schema=PREDICTIONS.schema)
    assert dataset.count_rows() == rows

    table = pl.read_parquet(lab.out / "*.parquet")
    assert {branch: table[column].count() for branch, column in of_branch.items()} == known
    names = ", ".join(f"count({column})" for column in of_branch.values())
    with duckdb.connect() as connection:
        for pattern in ("*.parquet", "*.csv"):
            counted = connection.execute(f"select count(*), {names} from '{lab.out}/{pattern}'").fetchone()
            assert counted == (rows, *known.values()), pattern
    text = pl.scan_csv(lab.out / "*.csv").collect()
    assert text.columns == table.columns and len(text) == rows


def test_every_file_names_its_columns_heads_and_version(lab):
    rule = PostProcessing(
        "expr", rules={"expr": BranchRule((Smoothing("mean", 2),), class_bias=(0, 0, 0, 0, 0, 0, 0, 0.5))}
    )
    lab.predict(lab.head("expr-1", "expr", rule=rule), lab.head("mtl-1", "mtl", branches=("va",)))
    schema = pq.read_schema(lab.out / "b half.parquet")
    for field in schema:
        described = {key.decode(): value.decode() for key, value in field.metadata.items()}
        assert len(described["meaning"]) > 5
        assert described.keys() & {"range", "unit"} or pa.types.is_boolean(field.type)
    assert schema.field("time_seconds").metadata[b"unit"] == b"s"
    assert b"may differ from the largest probability" in schema.field("expression").metadata[b"meaning"]
    settings = json.loads(schema.metadata[b"settings"])
    assert settings["missing_faces"] == "null" and settings["affwild2_version"] and settings["au"] is None
    assert settings["va"]["head"] == "mtl-1" and settings["va"]["head_fingerprint"] == "mtl-1" * 3
    of_expr = settings["expr"]
    assert (of_expr["head"], of_expr["postprocessing"], of_expr["backbone"]) == ("expr-1", "expr-1-1", "net")
    assert (of_expr["smoothing"], of_expr["class_bias"]["Other"]) == ("mean of 5 frames", 0.5)
    described = json.loads((lab.out / DESCRIPTION).read_text())
    assert described["settings"] == [settings | {"subjects": 3}]
    assert [column["name"] for column in described["columns"]] == schema.names


def test_a_gate_prefers_the_backbone_where_it_is_certain(lab):
    rule = PostProcessing("expr", rules={"expr": BranchRule(gate_level=0.8)})
    lab.predict(lab.head("expr-1", "expr", rule=rule), missing_faces="interpolate")
    assert lab.table("c all")["expression"].to_list() == ["Sadness"] * 3 + ["Fear", "Happiness", "Sadness"]
    assert lab.table("b half")["expression"].to_list() == ["Sadness"] * 3 + ["Disgust", "Happiness", "Happiness"]
    settings = json.loads(pq.read_schema(lab.out / "c all.parquet").metadata[b"settings"])
    assert settings["expr"]["gate_level"] == 0.8


def test_rows_show_where_the_face_of_the_subject_is(lab, expr):
    for clip in CLIPS:
        lab.show_faces(clip)
    lab.predict(expr, missing_faces="interpolate")
    half = lab.table("b half")
    assert half["person"].to_list() == [1] * 6 and half["is_short_track"].all()
    assert [x is not None for x in half["box_x1_px"]] == half["has_face"].to_list()
    seen = half.filter("has_face")
    assert seen["box_x1_px"].to_list() == [102.0, 103.0, 105.0] and seen["box_y2_px"].to_list() == [142.0, 143.0, 145.0]
    assert seen["left_eye_x_px"].to_list() == [102.0, 103.0, 105.0] and seen["right_mouth_y_px"][0] == 111.0
    assert seen["probability"].to_list() == pytest.approx([0.95] * 3)
    assert seen["face_size_px"].to_list() == pytest.approx([(20 * 40) ** 0.5] * 3)
    names = ["person", "is_short_track", *(column.name for column in FACE_COLUMNS)]
    assert lab.table("a nobody")[names].null_count().sum_horizontal()[0] == 6 * len(names)


def test_class_bias_decides_another_class_than_the_largest_probability(lab):
    rule = PostProcessing("expr", rules={"expr": BranchRule(class_bias=(0, 0, 0, 0, 0, 0, 0, 9))})
    lab.predict(lab.head("expr-1", "expr", rule=rule))
    table = lab.table("c all")
    assert set(table["expression"]) == {"Other"} and table["p_neutral"][0] > table["p_other"][0]


def test_frames_without_a_face_carry_null_or_interpolated_values(lab, expr):
    au = lab.head("au-1", "au")
    without = lab.predict(expr, au)
    table = lab.table("b half")
    for column in ("expression", "p_anger", "AU1", "p_au1"):
        assert [value is not None for value in table[column]] == [bool(face) for face in CLIPS["b half"]]
    interpolated = lab.predict(expr, au, missing_faces="interpolate")
    assert all(interpolated[path] > without[path] for path in without)
    filled = lab.table("b half")
    assert filled["has_face"].to_list() == table["has_face"].to_list()
    assert filled["expression"].to_list() == [EXPRESSIONS[n] for n in (1, 1, 2, 2, 4, 4)]
    assert filled["p_disgust"][3] == pytest.approx((0.6 + 0.1) / 2) and filled["AU1"].null_count() == 0
    with_face = table.filter("has_face").drop("time_seconds")
    assert with_face.equals(filled.filter("has_face").drop("time_seconds"))
    decisions = [column.name for column in DECISION_COLUMNS]
    assert len(decisions) == 35 and lab.table("a nobody")[decisions].null_count().sum_horizontal()[0] == 6 * 35
    assert lab.predict(expr, au, missing_faces="interpolate") == interpolated


def test_only_outdated_files_are_written_again(lab, expr, monkeypatch):
    first = lab.predict(expr)
    assert lab.predict(expr) == first
    changed, gone = sorted(first)[0], sorted(first)[2]
    content = {path: path.read_bytes() for path in first}
    changed.write_bytes(b"edited by hand")
    gone.unlink()
    second = lab.predict(expr)
    assert {path for path in first if first[path] != second[path]} == set(sorted(first)[:4])
    assert {path: path.read_bytes() for path in first} == content
    (lab.out / RECORD).write_text("{}")
    (lab.out / DESCRIPTION).unlink()
    third = lab.predict(expr)
    assert all(third[path] > second[path] for path in first)
    monkeypatch.setattr(write_predictions, "CODE_VERSION", write_predictions.CODE_VERSION + 1)
    assert all(stamp > third[path] for path, stamp in lab.predict(expr).items())


def test_a_lost_description_is_written_again_and_predictions_are_not(lab, expr):
    first = lab.predict(expr)
    text = (lab.out / DESCRIPTION).read_bytes()
    (lab.out / DESCRIPTION).write_text("{")
    assert lab.predict(expr) == first and (lab.out / DESCRIPTION).read_bytes() == text


def test_files_with_other_heads_are_written_again_or_reported(lab, expr):
    lab.predict(expr)
    assert describe_others(Store(lab.out)) is None
    other = lab.head("expr-2", "expr", clips=["b half", "c all"])
    lab.predict(other, clips=["c all"])
    heads = {clip: json.loads(pq.read_schema(lab.out / f"{clip}.parquet").metadata[b"settings"]) for clip in CLIPS}
    assert {clip: one["expr"]["head"] for clip, one in heads.items()} == {
        "a nobody": "expr-1",
        "b half": "expr-2",
        "c all": "expr-2",
    }
    line = describe_others(Store(lab.out))
    assert line.startswith(f"note: 1 subject in {lab.out} with predictions of other heads or settings (a nob")
    settings = json.loads((lab.out / DESCRIPTION).read_text())["settings"]
    assert [(one["expr"]["head"], one["subjects"]) for one in settings] == [("expr-2", 2), ("expr-1", 1)]
    (lab.out / "a nobody.parquet").unlink()
    (lab.out / "a nobody.csv").write_text("a table of another program")
    assert describe_others(Store(lab.out)) is None
    lab.predict(lab.head("expr-3", "expr"), clips=["c all"])
    assert not (lab.out / "a nobody.parquet").exists(), "a file that the user deleted stays deleted"


def test_predictions_of_an_earlier_version_get_the_columns_of_today(lab, expr):
    lab.predict(expr)
    record = json.loads((lab.out / RECORD).read_text())
    for one in record.values():
        if isinstance(one, dict):
            del one["settings"]
            one["made_from"] = "0" * 64
    write = {subject: one for subject, one in record.items() if isinstance(one, dict)}
    (lab.out / RECORD).write_bytes(to_sealed_json(write))
    (lab.out / DESCRIPTION).unlink()
    elsewhere = Lab(lab.out.parent / "other")
    elsewhere.predict(elsewhere.head("expr-1", "expr", clips=["c all"]), clips=["c all"], out=lab.out)
    line = describe_others(Store(lab.out))
    assert "note: 2 subjects in " in line and "of an earlier version, with other columns (a nobody, b half)" in line
    lab.predict(expr, clips=["c all"])
    assert describe_others(Store(lab.out)) is None and len(read_record(Store(lab.out))) == 3


def test_subjects_without_outputs_of_every_head_keep_their_predictions(lab, expr):
    first = lab.predict(expr)
    with pytest.raises(AssertionError):
        lab.predict(expr, lab.head("va-1", "va", clips=["c all"]))
    changed = {path.stem for path, stamp in first.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"c all"}


def test_damaged_outputs_of_a_video_leave_the_predictions_of_others(lab, expr):
    (part,) = (lab.out.parent / "store/outputs").glob("head=*/source=*/subject=b%20half/part-*.parquet")
    data = part.read_bytes()
    part.write_bytes(data[:8] + bytes(100) + data[108:])
    lab.predict(expr)
    assert re.search(r"subject=b%20half: part-.*run the same command again", lab.failures["b half"])
    written = {path.stem for path in lab.out.glob("*.parquet")}
    assert written == set(read_record(Store(lab.out))) == {"a nobody", "c all"}


def test_a_name_that_is_too_long_leaves_the_predictions_of_others(lab, expr, monkeypatch):
    """Names of data files in the store are shorter than those of predictions."""
    whole = write_predictions._write_files

    def write(table, target, names):
        whole(table, target, [f"{'x' * 300}.parquet"] if names[0] == "b half.parquet" else names)

    monkeypatch.setattr(write_predictions, "_write_files", write)
    lab.predict(expr)
    assert "expected a shorter name" in lab.failures["b half"]
    assert set(read_record(Store(lab.out))) == {"a nobody", "c all"}


def test_forgotten_subjects_leave_the_description(lab, expr):
    lab.predict(expr)
    target = Store(lab.out)
    remove_predictions(find_predictions(target, ["a nobody"]))
    assert json.loads((lab.out / DESCRIPTION).read_text())["settings"][0]["subjects"] == 2
    remove_predictions(find_predictions(target, ["b half", "c all"]))
    assert not (lab.out / DESCRIPTION).exists()


def test_files_written_before_an_error_are_not_written_again(lab, expr, monkeypatch):
    whole, files = write_predictions._write_files, []

    def full_disk_at_the_second(table, target, names):
        files.extend(names)
        if len(files) > 2:
            raise OSError(28, os.strerror(28))
        whole(table, target, names)

    with monkeypatch.context() as patch:
        patch.setattr(write_predictions, "_write_files", full_disk_at_the_second)
        with pytest.raises(OSError, match="No space"):
            lab.predict(expr)
    stamps = {lab.out / name: (lab.out / name).stat().st_mtime_ns for name in files[:2]}
    assert lab.predict(expr).items() >= stamps.items()


def test_thresholds_of_action_units_are_recorded(lab):
    rule = PostProcessing("au", rules={"au": BranchRule(thresholds=(0.05, *[0.9] * 11))})
    lab.predict(lab.head("au-1", "au", rule=rule))
    table = lab.table("c all")
    assert table["AU1"].to_list() == [1] * 6 and table["AU2"].to_list() == [0] * 6
    settings = json.loads(pq.read_schema(lab.out / "c all.parquet").metadata[b"settings"])
    assert settings["au"]["thresholds"] == dict(zip(ACTION_UNITS, [0.05, *[0.9] * 11], strict=True))


def test_a_folder_that_refuses_predictions_is_not_listed(lab, expr):
    lab.out.mkdir()
    (lab.out / ".unfinished").write_text("a file where the folder for unfinished files would be")
    with pytest.raises(StoreError, match="expected a folder that can be written"):
        lab.predict(expr)
    assert noted_folders(lab.store) == []
    (lab.out / ".unfinished").unlink()
    lab.predict(expr)
    assert noted_folders(lab.store) == [str(lab.out)]


def test_a_folder_without_new_predictions_is_not_listed(lab, expr):
    written = write_predictions.write_predictions(
        lab.store, [], heads=[expr], people="main", missing_faces="null", out=lab.out
    )
    assert written == ([], {})
    assert noted_folders(lab.store) == [] and not lab.out.exists()


def test_a_killed_run_leaves_no_predictions_in_a_folder_that_is_not_listed(lab, expr, monkeypatch):
    """End at each file that is written, before and after it appears."""
    write, calls = LocalFiles.replacing, {}

    @contextlib.contextmanager
    def replacing(files, path):
        calls["left"] -= 1
        if calls["left"] == 0:
            raise KeyboardInterrupt
        with write(files, path) as file:
            yield file

    monkeypatch.setattr(LocalFiles, "replacing", replacing)
    for number in range(1, 20):
        calls["left"], out = number, lab.out / str(number)
        try:
            lab.predict(expr, out=out)
            break
        except KeyboardInterrupt:
            assert str(out) in noted_folders(lab.store) or not list(out.glob("[a-z]*")), number
    assert 8 < number < 19, "the loop ends at every file"


def test_a_damaged_list_of_folders_is_reported_instead_of_forgotten(lab, expr):
    lab.predict(expr)
    path = f"{lab.store.root}/_prediction_folders.json"
    with open(path, "a") as file:
        file.write("x")
    with pytest.raises(StoreError, match=f"{path}: expected the list of folders with predictions, got a damaged file"):
        lab.predict(expr, out=lab.out / "other")
