from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.files.inputs import file_state
from data_contracts.schemas.predictions import PREDICTIONS, SUMMARY
from data_contracts.store.store import Store
from tasks.results import summary
from tasks.results.prediction_folder import PredictionRecord, prediction_files, read_record, write_record
from tasks.results.summary import remove_from_summary, update_summary


def table_of(rows):
    return pa.Table.from_pylist([{"has_face": True} | row for row in rows], schema=PREDICTIONS.schema)


TWO_PERSONS = table_of(
    [
        {"person": None, "frame": 1, "time_seconds": 0.0, "has_face": False},
        *({"person": 1, "frame": n, "time_seconds": n / 10, "has_face": n < 5} for n in range(2, 6)),
        {"person": 2, "frame": 6, "time_seconds": 0.6, "is_short_track": True}
        | {"face_size_px": 50.0, "expression": "Anger", "valence": -0.5, "AU1": 1},
        {"person": 2, "frame": 7, "time_seconds": 0.7, "is_short_track": True}
        | {"face_size_px": 70.0, "expression": "Fear", "valence": 0.1, "AU1": 0},
        {"person": 2, "frame": 8, "time_seconds": 0.8, "is_short_track": True, "has_face": False},
    ]
)
NOBODY = table_of([{"frame": n, "has_face": False} for n in range(1, 4)])


@pytest.fixture
def target(tmp_path):
    return Store(tmp_path)


def write(target, video, table):
    """Write predictions and their record, as ``write_predictions`` does."""
    pq.write_table(table, target.locate(f"{video}.parquet"))
    states = tuple(file_state(place(target, name)) for name in prediction_files(video))
    write_record(target, read_record(target) | {video: PredictionRecord(made_from=video, files=states)})


def place(target, name):
    return Path(target.locate(name))


def test_each_person_has_one_row_and_a_video_without_any_too(target):
    write(target, "crowd", TWO_PERSONS)
    write(target, "a nobody", NOBODY)
    table, problems = update_summary(target)
    assert not problems and table.schema.names == SUMMARY.schema.names
    nobody, first, second = table.to_pylist()
    assert (nobody["video"], nobody["person"], nobody["frames"], nobody["face_share"]) == ("a nobody", None, 3, 0)
    assert nobody["seconds"] is None and nobody["share_anger"] is None
    assert (first["person"], first["frames"], first["face_share"]) == (1, 4, 0.75)
    assert first["seconds"] == pytest.approx(0.3) and first["valence_mean"] is None and first["rate_au1"] is None
    assert (second["person"], second["is_short_track"], second["face_size_px"]) == (2, True, 60)
    assert (second["share_anger"], second["share_fear"], second["share_neutral"]) == (0.5, 0.5, 0)
    assert [second[f"valence_{kind}"] for kind in ("mean", "min", "max")] == pytest.approx([-0.2, -0.5, 0.1])
    assert second["rate_au1"] == 0.5 and second["rate_au2"] is None
    as_csv = pl.read_csv(target.locate("tables/summary.csv"))
    as_parquet = pl.read_parquet(target.locate("tables/summary.parquet"))
    assert as_csv.columns == as_parquet.columns and len(as_csv) == len(as_parquet) == 3


def test_only_changed_files_are_read_again(target, monkeypatch):
    for video in ("one", "two"):
        write(target, video, TWO_PERSONS)
    update_summary(target)
    read = []
    summarize = summary.summarize
    monkeypatch.setattr(summary, "summarize", lambda video, table: read.append(video) or summarize(video, table))
    written = place(target, "tables/summary.parquet").stat().st_mtime_ns
    assert len(update_summary(target)[0]) == 4 and read == []
    assert place(target, "tables/summary.parquet").stat().st_mtime_ns == written
    write(target, "two", NOBODY)
    assert update_summary(target)[0]["person"].to_pylist() == [1, 2, None] and read == ["two"]
    place(target, "one.parquet").unlink()
    assert update_summary(target)[0]["video"].to_pylist() == ["two"] and read == ["two"]


def test_files_of_earlier_versions_and_damaged_files(target):
    old = TWO_PERSONS.drop_columns(["person", "is_short_track", "face_size_px"])
    write(target, "old", old)
    write(target, "bad", NOBODY)
    place(target, "bad.parquet").write_bytes(b"PAR1 cut")
    table, (line,) = update_summary(target)
    assert table["person"].to_pylist() == [1] and table["frames"].to_pylist() == [8]
    assert line.startswith(f"{target.locate('bad.parquet')}: expected predictions, got: ") and "\n" not in line
    place(target, "tables/summary.parquet").write_bytes(b"damaged")
    assert update_summary(target)[0].equals(table)


def test_forgotten_videos_leave_no_rows_and_no_empty_files(target):
    write(target, "ada", TWO_PERSONS)
    write(target, "two", NOBODY)
    update_summary(target)
    remove_from_summary(target, ["ada", "ada_left"])
    assert pq.read_table(place(target, "tables/summary.parquet"))["video"].to_pylist() == ["two"]
    assert "ada" not in place(target, "tables/summary.csv").read_text()
    assert b"ada" not in place(target, "tables/summary.parquet").read_bytes()
    remove_from_summary(target, ["two"])
    assert not place(target, "tables/summary.csv").exists() and not place(target, "tables/summary.parquet").exists()
