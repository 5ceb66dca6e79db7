"""The summary of a folder of predictions: a row per video and person, computed from the prediction files."""

import io
import json
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.files.inputs import FileState
from data_contracts.files.locations import location
from data_contracts.schemas.dataset import check_schema
from data_contracts.schemas.predictions import SUMMARY
from data_contracts.store.store import Store
from data_contracts.vocabulary import ACTION_UNITS, DIMENSIONS, EXPRESSIONS
from models.engines.progress import track
from tasks.results.prediction_folder import (
    SUMMARY_TABLE,
    prediction_files,
    read_record,
    replace_table,
    states_in,
)

_FILE = f"{SUMMARY_TABLE}.parquet"
# Columns that a summary needs. Files of earlier versions lack some of them.
_PERSON = ("person", "is_short_track")
_NEEDED = (*_PERSON, "time_seconds", "has_face", "face_size_px", "expression", *DIMENSIONS, *ACTION_UNITS)
# In the metadata of the summary: video -> state of the file that its rows were computed from, as JSON.
_STATES = b"states"
_FILES_AT_ONCE = 16
# Earlier versions wrote predictions of one person, without a column for it.
_ONLY_PERSON = 1


def update_summary(target: Store) -> tuple[pa.Table, list[str]]:
    """Write the summary of a folder if a prediction file was added, changed or removed; read only those files again.

    Returns:
        The table (``SUMMARY``) and a line for each file that cannot be read; its video is left out.
    """
    states = _states_of(target)
    before, known = _read(target)
    same = [video for video, state in states.items() if known.get(video) == state]
    changed = [video for video in states if video not in set(same)]
    if not changed and set(known) == set(states):
        return before, []
    tables = [before.filter(pc.is_in(before["video"], pa.array(same, pa.string())))]
    problems, unread = [], set()
    for start in track(range(0, len(changed), _FILES_AT_ONCE), "summarizing predictions: {} parts"):
        some = changed[start : start + _FILES_AT_ONCE]
        names = [prediction_files(video)[0] for video in some]
        for video, name, data in zip(some, names, target.files.read_many(names), strict=True):
            try:
                tables.append(summarize(video, _read_predictions(data)))
            except (pa.ArrowException, OSError, ValueError) as error:
                # Arrow reports damaged pages as an OSError.
                cause = str(error).splitlines()[0]
                problems.append(f"{target.locate(name)}: expected predictions, got: {cause}; delete it and run again")
                unread.add(video)
    table = pa.concat_tables(tables).sort_by([("video", "ascending"), ("person", "ascending")])
    _write(target, table, {video: state for video, state in states.items() if video not in unread})
    return table, problems


def remove_from_summary(target: Store, videos: Collection[str]) -> None:
    """Remove the rows of videos from the summary of a folder."""
    table, states = _read(target)
    if table.num_rows and not states.keys().isdisjoint(videos):
        rows = table.filter(pc.invert(pc.is_in(table["video"], pa.array(sorted(videos), pa.string()))))
        _write(target, rows, {video: state for video, state in states.items() if video not in videos})


def summarize(video: str, predictions: pa.Table) -> pa.Table:
    """Return one row (``SUMMARY``) per person of a table of predictions with the columns that a summary needs."""
    is_person = pc.is_valid(predictions["person"])
    if pc.any(is_person).as_py():
        predictions = predictions.filter(is_person)
    persons = predictions["person"].combine_chunks()
    rows = [_row(video, predictions.filter(_equal(persons, one)), one) for one in pc.unique(persons).to_pylist()]
    return check_schema(pa.Table.from_pylist(rows, schema=SUMMARY.schema), SUMMARY)


def _equal(persons: pa.Array, person: int | None) -> pa.Array:
    return pc.is_null(persons) if person is None else pc.fill_null(pc.equal(persons, person), False)


def _row(video: str, table: pa.Table, person: int | None) -> dict[str, object]:
    time = pc.min_max(table["time_seconds"]).as_py()
    row: dict[str, object] = {
        "video": video,
        "person": person,
        "frames": table.num_rows,
        "seconds": None if time["min"] is None else time["max"] - time["min"],
        "face_share": pc.mean(pc.cast(table["has_face"], pa.float64())).as_py(),
        "face_size_px": pc.mean(table["face_size_px"]).as_py(),
        "is_short_track": pc.any(table["is_short_track"]).as_py(),
    }
    decided = pc.drop_null(table["expression"].combine_chunks())
    counts = dict(zip(*(part.to_pylist() for part in pc.value_counts(decided).flatten()), strict=True))
    row |= {
        f"share_{name.lower()}": counts.get(name, 0) / len(decided) if len(decided) else None for name in EXPRESSIONS
    }
    for name in DIMENSIONS:
        bounds = pc.min_max(table[name]).as_py()
        mean = pc.mean(table[name]).as_py()
        row |= {f"{name}_mean": mean, f"{name}_min": bounds["min"], f"{name}_max": bounds["max"]}
    return row | {f"rate_{name.lower()}": pc.mean(table[name]).as_py() for name in ACTION_UNITS}


def _read_predictions(data: bytes) -> pa.Table:
    file = pq.ParquetFile(io.BytesIO(data))
    names = set(file.schema_arrow.names)
    if missing := [name for name in ("has_face", "expression") if name not in names]:
        raise ValueError(f"a file without the column {missing[0]}")
    table = file.read(columns=[name for name in _NEEDED if name in names])
    missing_columns = {
        "person": pa.array([_ONLY_PERSON] * table.num_rows, pa.int32()),
        "is_short_track": pa.nulls(table.num_rows, pa.bool_()),
    }
    for name in _NEEDED:
        if name not in names:
            column = missing_columns.get(name, pa.nulls(table.num_rows, pa.float64()))
            table = table.append_column(name, column)
    if not table.num_rows:
        raise ValueError("a file without rows")
    return table


def _states_of(target: Store) -> dict[str, FileState]:
    """Return the state of the Parquet file of each recorded video."""
    record = read_record(target)
    files = states_in(location(target.root)) if record else {}
    found = {video: files.get(prediction_files(video)[0]) for video in record}
    return {video: state for video, state in sorted(found.items()) if state is not None}


def _read(target: Store) -> tuple[pa.Table, Mapping[str, FileState]]:
    """Return the summary that a folder has, and the states of the files that it was computed from."""
    empty = SUMMARY.schema.empty_table()
    data = target.files.read_many([_FILE])[0]
    if not data:
        return empty, {}
    try:
        table = pq.read_table(io.BytesIO(data))
        states = json.loads((table.schema.metadata or {})[_STATES])
        known = {str(video): FileState(*state) for video, state in states.items()}
        return check_schema(table, SUMMARY), known
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError):
        # It was changed, or written by another program or version.
        return empty, {}


def _write(target: Store, table: pa.Table, states: Mapping[str, Sequence[object]]) -> None:
    metadata = {
        **(SUMMARY.schema.metadata or {}),
        _STATES: json.dumps({v: list(s) for v, s in states.items()}).encode(),
    }
    replace_table(target, SUMMARY_TABLE, table.replace_schema_metadata(metadata))
