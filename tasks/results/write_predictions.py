"""Write per-frame predictions of videos: decisions and probabilities of every head, with the time in seconds."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data_contracts.files.inputs import FileState, file_state, list_many
from data_contracts.files.local import UNFINISHED
from data_contracts.files.locations import Location
from data_contracts.schemas import OUTPUT_COLUMNS
from data_contracts.store.details import HeadDetails, Record
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, UnitKey, from_sealed_json, to_sealed_json
from data_contracts.store.store import Store
from data_contracts.vocabulary import ACTION_UNITS, BRANCHES_OF_TASK, DIMENSIONS, EXPRESSIONS, BranchName
from tasks.fit.head_selection import ServingHead
from tasks.fit.predict_outputs import read_outputs

if TYPE_CHECKING:
    from models.decisions.postprocessing import PostProcessing

CODE_VERSION = 1
# In the store: list of the folders that predictions were written to, so that a video can be forgotten in all of them.
_FOLDERS = "_prediction_folders.json"
# In the folder of predictions: hash of the inputs of each subject, and the state of its files.
RECORD = ".affwild2_predictions.json"

Units = dict[UnitKey, Manifest]


@dataclass(frozen=True, kw_only=True)
class PredictionRecord(Record):
    """Record of the predictions of one subject: hash of all inputs, and the state of each file when it was written."""

    made_from: str
    files: tuple[FileState | None, ...]


@dataclass(frozen=True)
class _HeadOutputs:
    """A head with its branches and post-processing, and its outputs of all subjects."""

    serving: ServingHead
    source: str
    units: Units

    def of(self, subject: str) -> tuple[UnitKey, Manifest] | None:
        head = self.serving.head.name
        key = UnitKey("outputs", (("head", head), ("source", self.source), ("subject", subject)))
        return (key, self.units[key]) if key in self.units else None


def write_predictions(
    store: Store, subjects: Sequence[str], *, heads: Sequence[tuple[ServingHead, str]], out: Location
) -> list[Location]:
    """Write ``<subject>.parquet`` and ``<subject>.csv`` for every subject with outputs; return all paths.

    Files that were written from the same outputs and have not changed since are not written again. ``heads``: each head
    with the faces variant of its outputs. Columns: frame, time_seconds, has_face, and per branch that a head serves the
    decisions (expression by name, valence and arousal, action units 0 or 1) and smoothed probabilities. Frames without
    a face carry interpolated values.

    Raises:
        StoreError: ``out`` cannot be written to.
    """
    found = [
        _HeadOutputs(one, source, store.manifests("outputs", head=one.head.name, source=source))
        for one, source in heads
    ]
    all_frames = store.manifests("frames")
    target = Store(out)
    note_folder(store, target)
    record = read_record(target)
    before, existing = dict(record), _states_in(out)
    paths: list[Location] = []
    try:
        for subject in subjects:
            outputs = [(one, unit) for one in found if (unit := one.of(subject))]
            if not outputs:
                continue
            names = prediction_files(subject)
            frames_key = UnitKey("frames", (("video", subject),))
            frames = frames_key, all_frames.get(frames_key)
            inputs = _fingerprint_inputs(outputs, frames[1])
            wanted = PredictionRecord(made_from=inputs, files=tuple(map(existing.get, names)))
            if record.get(subject) != wanted:
                _write_files(_table(store, outputs, frames), target, names)
                record[subject] = replace(wanted, files=tuple(file_state(out / name) for name in names))
            paths += [out / name for name in names]
    finally:
        if record != before:
            write_record(target, record)
    return paths


def read_record(target: Store) -> dict[str, PredictionRecord]:
    """Read the record of each subject with predictions in a folder; empty if there is none."""
    values = from_sealed_json(target.files.read_many([RECORD])[0]) or {}
    return {subject: PredictionRecord.from_json(one) for subject, one in values.items()}


def write_record(target: Store, record: Mapping[str, PredictionRecord]) -> None:
    """Write the records of a folder of predictions into this folder."""
    target.write_bytes(RECORD, to_sealed_json({subject: one.to_json() for subject, one in record.items()}))
    if target.is_local:
        with contextlib.suppress(OSError):
            os.rmdir(target.locate(UNFINISHED))


def note_folder(store: Store, target: Store) -> None:
    """Add a folder of predictions to the list in the store."""
    known = noted_folders(store)
    if target.root not in known:
        store.write_bytes(_FOLDERS, to_sealed_json({"folders": [*known, target.root]}))


def noted_folders(store: Store) -> list[str]:
    """Return all folders that predictions from this store were written to."""
    return list((from_sealed_json(store.files.read_many([_FOLDERS])[0]) or {}).get("folders", []))


def drop_folder(store: Store, target: Store) -> None:
    """Remove a folder of predictions from the list in the store."""
    known = noted_folders(store)
    if target.root in known:
        store.write_bytes(_FOLDERS, to_sealed_json({"folders": [name for name in known if name != target.root]}))


def prediction_files(subject: str) -> list[str]:
    """Return the names of the files with the predictions of a subject."""
    return [f"{subject}{suffix}" for suffix in (".parquet", ".csv")]


def _fingerprint_inputs(
    outputs: Sequence[tuple[_HeadOutputs, tuple[UnitKey, Manifest]]], frames: Manifest | None
) -> str:
    return fingerprint(
        version=CODE_VERSION,
        frames=frames.identity if frames else None,
        outputs=[[*_fingerprint_head(one.serving), manifest.fingerprint] for one, (_, manifest) in outputs],
    )


def _fingerprint_head(serving: ServingHead) -> list[object]:
    tuned = serving.postprocessing
    # Earlier versions wrote all branches of a head.
    is_whole = set(serving.branches) == set(BRANCHES_OF_TASK[HeadDetails.of(serving.head).task])
    branches = [] if is_whole else [serving.branches]
    return [serving.head.fingerprint, tuned.fingerprint if tuned else None, *branches]


def _states_in(out: Location) -> dict[str, FileState]:
    """Return the state of each file in a folder, by name; empty if there is no such folder."""
    try:
        return list_many([out])[0].files
    except FileNotFoundError:
        return {}


def _write_files(table: pa.Table, target: Store, names: Sequence[str]) -> None:
    with target.files.replacing(names[0]) as file:
        pq.write_table(table, file)
    with target.files.replacing(names[1]) as file:
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(quoting_style="needed"))


def _table(
    store: Store,
    outputs: Sequence[tuple[_HeadOutputs, tuple[UnitKey, Manifest]]],
    frames: tuple[UnitKey, Manifest | None],
) -> pa.Table:
    # Compiled loops and filters take a second to import, so import them only if there is something to write.
    from models.decisions.postprocessing import untuned_postprocessing
    from tasks.results.write_submission import load_postprocessing

    columns: dict[str, pa.Array] = {}
    for one, (key, manifest) in outputs:
        task, tuned = HeadDetails.of(one.serving.head).task, one.serving.postprocessing
        rule = load_postprocessing(store, tuned) if tuned else untuned_postprocessing(task)
        present, values = read_outputs(store, key, manifest, BRANCHES_OF_TASK[task])
        columns["frame"] = pa.array(np.arange(1, len(present) + 1, dtype=np.int32))
        columns["time_seconds"] = _time_seconds(store, len(present), *frames)
        columns["has_face"] = pa.array(present)
        columns |= _decision_columns(rule, present, values, one.serving.branches)
    return pa.table(columns)


def _time_seconds(store: Store, frame_count: int, key: UnitKey, manifest: Manifest | None) -> pa.Array:
    if manifest is None or manifest.rows != frame_count:
        return pa.nulls(frame_count, pa.float64())
    return store.read_unit(key, manifest, columns=["pts_seconds"])["pts_seconds"].combine_chunks()


def _decision_columns(
    rule: "PostProcessing",
    present: np.ndarray,
    outputs: dict[BranchName, np.ndarray],
    branches: Sequence[BranchName],
) -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = {}
    if not present.any():
        return columns
    decisions, smoothed = rule.apply(outputs, present), rule.smooth(outputs, present)
    for branch in branches:
        values = smoothed[branch]
        if branch == "expr":
            columns["expression"] = pa.array(np.array(EXPRESSIONS)[decisions["expr"]])
        elif branch == "va":
            columns |= {name: pa.array(decisions["va"][:, i]) for i, name in enumerate(DIMENSIONS)}
            continue
        else:
            columns |= {name: pa.array(decisions["au"][:, i].astype(np.int8)) for i, name in enumerate(ACTION_UNITS)}
        columns |= {c.name: pa.array(values[:, i]) for i, c in enumerate(OUTPUT_COLUMNS[branch])}
    return columns
