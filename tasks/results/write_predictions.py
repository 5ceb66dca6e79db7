"""Write per-frame predictions of videos: decisions and probabilities of every head, with the time in seconds."""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data_contracts.details.datasets import OutputsDetails
from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError, StoreError
from data_contracts.files.inputs import FileState, file_state
from data_contracts.files.locations import Location
from data_contracts.schemas.dataset import check_schema
from data_contracts.schemas.outputs import OUTPUT_COLUMNS
from data_contracts.schemas.predictions import PREDICTIONS
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import (
    ACTION_UNITS,
    BRANCHES,
    BRANCHES_OF_TASK,
    DIMENSIONS,
    EXPRESSIONS,
    SHORT_TRACK_FRAMES,
    BranchName,
    MissingFaces,
    People,
)
from models.decisions.postprocessing import BranchRule, PostProcessing
from models.decisions.subject_outputs import SubjectOutputs
from models.engines.progress import track
from tasks.fit.head_selection import ServingHead
from tasks.fit.predict_outputs import read_subject, to_backbone, to_outputs
from tasks.fit.stored_heads import rule_of
from tasks.fit.subject_features import frame_rates
from tasks.results.face_columns import read_person_faces, read_subject_faces
from tasks.results.prediction_folder import (
    BranchSettings,
    PredictionRecord,
    PredictionSettings,
    note_folder,
    prediction_files,
    read_record,
    read_settings,
    states_in,
    write_description,
    write_record,
)

# 2: the same columns in every file, and their metadata.
# 3: person, box, landmarks, probability and size of the face.
CODE_VERSION = 3


@dataclass(frozen=True)
class _HeadOutputs:
    """A head with its branches and post-processing, and its outputs of all videos."""

    serving: ServingHead
    source: str
    people: People
    units: Mapping[UnitKey, Manifest]

    @classmethod
    def find(cls, store: Store, serving: ServingHead, source: str, people: People) -> "_HeadOutputs":
        dataset = "outputs" if people == "main" else "person_outputs"
        units = store.manifests(dataset, head=serving.head.name, source=source)
        return cls(serving, source, people, units)

    def of(self, video: str) -> StoredUnit | None:
        dataset, item = ("outputs", "subject") if self.people == "main" else ("person_outputs", "video")
        key = UnitKey(dataset, (("head", self.serving.head.name), ("source", self.source), (item, video)))
        return StoredUnit(key, self.units[key]) if key in self.units else None


# The outputs of each head of one video.
_OutputsOfVideo = Sequence[tuple[_HeadOutputs, StoredUnit]]


@dataclass(frozen=True)
class _Inputs:
    """What the predictions of all videos are made from. ``frames``, ``videos``: units of these datasets."""

    heads: Sequence[_HeadOutputs]
    frames: Mapping[UnitKey, Manifest]
    videos: Mapping[UnitKey, Manifest]
    missing_faces: MissingFaces

    def outputs_of(self, video: str) -> _OutputsOfVideo:
        """Return the outputs of every head; nothing if one has none."""
        found = [(one, unit) for one in self.heads if (unit := one.of(video))]
        return found if len(found) == len(self.heads) else []

    def frames_of(self, video: str) -> StoredUnit | None:
        """Return the unit with the time stamps."""
        key = UnitKey("frames", (("video", video),))
        return StoredUnit(key, self.frames[key]) if key in self.frames else None

    def settings_name(self) -> str:
        """Return eight digits that differ between heads and settings."""
        settings = [[*fingerprint_head(one.serving), one.serving.branches, one.source] for one in self.heads]
        people = [one.people for one in self.heads]
        return fingerprint(version=CODE_VERSION, missing_faces=self.missing_faces, heads=settings, people=people)[:8]

    def fingerprint_of(self, video: str) -> str:
        """Return the hash of everything that the predictions of a video depend on."""
        outputs, frames = self.outputs_of(video), self.frames_of(video)
        return fingerprint(
            version=CODE_VERSION,
            missing_faces=self.missing_faces,
            people=[one.people for one, _ in outputs],
            frames=frames.manifest.identity if frames else None,
            outputs=[[*fingerprint_head(one.serving), unit.manifest.fingerprint] for one, unit in outputs],
        )


class WrittenPredictions(NamedTuple):
    """Paths of all files with predictions of the requested videos, and why those of other videos could not be written.

    ``failures``: video -> cause.
    """

    paths: list[Location]
    failures: dict[str, str]


def write_predictions(
    store: Store,
    videos: Sequence[str],
    *,
    heads: Sequence[tuple[ServingHead, str]],
    people: People,
    missing_faces: MissingFaces,
    out: Location,
) -> WrittenPredictions:
    """Write ``<video>.parquet`` and ``<video>.csv`` for every video with outputs of all heads.

    Files that were written from the same outputs and have not changed since are not written again. Files of other
    videos in ``out`` are written again if their outputs are in the store, so that all files of a folder agree; not if
    their faces are of another variant, as those with and without stored crops.

    Args:
        heads: each head with the faces variant of its outputs.
        people: the subject of each video, or all persons.
        missing_faces: what frames without a face carry.

    Raises:
        StoreError: ``out`` cannot be written to.
    """
    found = [_HeadOutputs.find(store, one, source, people) for one, source in heads]
    inputs = _Inputs(found, store.manifests("frames"), store.manifests("videos"), missing_faces)
    target = Store(out)
    record, known = read_record(target), read_settings(target)
    if is_noted := bool(record):
        note_folder(store, target)
    before, existing = dict(record), states_in(out)
    name = inputs.settings_name()
    latest = next((one for one in known if one.name == name), None)
    paths: list[Location] = []
    # Files with faces of another variant stay.
    sources = {source for _, source in heads}
    kept = {name, *(one.name for one in known if one.sources and one.sources != sources)}
    others = _unchanged_files(record, existing, without=kept)
    requested, failures = dict.fromkeys(videos), dict[str, str]()
    try:
        for video in track(requested | dict.fromkeys(others), "writing predictions: {} videos"):
            if not inputs.outputs_of(video):
                continue
            names, made_from = prediction_files(video), inputs.fingerprint_of(video)
            wanted = PredictionRecord(made_from=made_from, files=tuple(map(existing.get, names)), settings=name)
            if record.get(video) != wanted:
                latest = latest or _settings_of(store, name, inputs)
                if not is_noted:
                    note_folder(store, target)
                    is_noted = True
                try:
                    table = _table(store, inputs, video, latest)
                    _write_files(table, target, names)
                except StoreError:
                    raise
                except InputError as error:
                    # The outputs are damaged, or the name is too long for the folder.
                    failures[video] = str(error)
                    continue
                record[video] = replace(wanted, files=tuple(file_state(out / file) for file in names))
            if video in requested:
                paths += [out / file for file in names]
        if latest is None and any(one.settings == name for one in record.values()):
            latest = _settings_of(store, name, inputs)
    finally:
        if record != before:
            write_record(target, record)
        if latest is not None:
            write_description(target, record, [latest, *(one for one in known if one.name != name)])
    return WrittenPredictions(paths, failures)


def _unchanged_files(
    record: Mapping[str, PredictionRecord], existing: Mapping[str, FileState], *, without: Collection[str]
) -> list[str]:
    """Return the recorded videos whose files nobody has changed or deleted, ``without`` those of some settings."""
    return [
        video
        for video, one in record.items()
        if one.settings not in without and one.files == tuple(map(existing.get, prediction_files(video)))
    ]


def fingerprint_head(serving: ServingHead) -> list[object]:
    """Return what decisions depend on besides the outputs: head, post-processing and branches."""
    tuned = serving.postprocessing
    return [serving.head.fingerprint, tuned.fingerprint if tuned else None, serving.branches]


def _settings_of(store: Store, name: str, inputs: _Inputs) -> PredictionSettings:
    branches: dict[BranchName, BranchSettings] = {}
    for one in inputs.heads:
        rules = rule_of(store, one.serving).rules
        branches |= {branch: _settings_of_branch(one, branch, rules[branch]) for branch in one.serving.branches}
    expr, va, au = map(branches.get, BRANCHES)
    return PredictionSettings(
        name=name, missing_faces=inputs.missing_faces, expr=expr, va=va, au=au, people=inputs.heads[0].people
    )


def _settings_of_branch(one: _HeadOutputs, branch: BranchName, rule: BranchRule) -> BranchSettings:
    head, tuned = HeadDetails.of(one.serving.head), one.serving.postprocessing
    features = {head.backbone: head.backbone_name} | {of.backbone: of.backbone_name for of in head.members}
    return BranchSettings(
        head=one.serving.head.name,
        head_fingerprint=one.serving.head.fingerprint,
        recipe=head.recipe,
        kind=head.kind,
        backbone=", ".join(dict.fromkeys(features.values())),
        features=", ".join(features),
        faces=one.source,
        postprocessing=tuned.name if tuned else None,
        postprocessing_fingerprint=tuned.fingerprint if tuned else None,
        smoothing=rule.describe_smoothing(),
        gate_level=rule.gate_level,
        slopes=rule.scaling.slopes if rule.scaling else None,
        offsets=rule.scaling.offsets if rule.scaling else None,
        class_bias=dict(zip(EXPRESSIONS, rule.class_bias, strict=True)) if branch == "expr" else None,
        thresholds=dict(zip(ACTION_UNITS, rule.thresholds, strict=True)) if branch == "au" else None,
    )


def _write_files(table: pa.Table, target: Store, names: Sequence[str]) -> None:
    with target.files.replacing(names[0]) as file:
        pq.write_table(table, file)
    with target.files.replacing(names[1]) as file:
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(quoting_style="needed"))


def _table(store: Store, inputs: _Inputs, video: str, settings: PredictionSettings) -> pa.Table:
    rate = frame_rates(store, [video], videos=inputs.videos)[video]
    columns_of = _subject_columns if settings.people == "main" else _person_columns
    columns = columns_of(store, inputs.outputs_of(video), settings, rate)
    frame = columns["frame"].to_numpy()
    columns["time_seconds"] = _time_seconds(store, int(frame.max(initial=0)), inputs.frames_of(video)).take(
        pa.array(frame - 1)
    )
    columns |= {name: pa.nulls(len(frame)) for name in PREDICTIONS.schema.names if name not in columns}
    table = check_schema(pa.table(columns), PREDICTIONS)
    return table.replace_schema_metadata({**table.schema.metadata, "settings": json.dumps(settings.to_json())})


def _subject_columns(
    store: Store, outputs: _OutputsOfVideo, settings: PredictionSettings, frames_per_second: float
) -> dict[str, pa.Array]:
    """Return the columns of the subject, one row per frame."""
    columns: dict[str, pa.Array] = {}
    has_face: np.ndarray = np.zeros(0, bool)
    for one, unit in outputs:
        rule, branches = rule_of(store, one.serving), BRANCHES_OF_TASK[HeadDetails.of(one.serving.head).task]
        subject = read_subject(store, unit, branches, frames_per_second=frames_per_second, has_gate=rule.has_gate)
        has_face = has_face | subject.present if len(has_face) else subject.present
        columns |= decision_columns(rule, subject, one.serving.branches, settings.missing_faces)
    count = len(has_face)
    columns["frame"] = pa.array(np.arange(1, count + 1, dtype=np.int32))
    columns["has_face"] = pa.array(has_face)
    first, unit = outputs[0]
    columns |= read_subject_faces(store, source=first.source, subject=unit.key.value("subject"), has_face=has_face)
    if has_face.any():
        columns["person"] = pa.array(np.ones(count, np.int32))
        columns["is_short_track"] = pa.array(np.full(count, has_face.sum() < SHORT_TRACK_FRAMES))
    return columns


def _person_columns(
    store: Store, outputs: _OutputsOfVideo, settings: PredictionSettings, frames_per_second: float
) -> dict[str, pa.Array]:
    """Return the columns of all persons, one row per frame from the first to the last face of each, and after them one
    row for each frame that no person covers.
    """
    columns: dict[str, pa.Array] = {}
    person: np.ndarray = np.zeros(0, np.int32)
    frame, has_face = person, np.zeros(0, bool)
    for one, unit in outputs:
        table = store.read_unit(*unit)
        task, rule = HeadDetails.of(one.serving.head).task, rule_of(store, one.serving)
        person, frame, present = (table[name].to_numpy() for name in ("person", "frame", "has_face"))
        has_face = has_face | present if len(has_face) else present
        values = to_outputs(table, BRANCHES_OF_TASK[task])
        backbone = to_backbone(table) if rule.has_gate else None
        parts = []
        for rows in _slices_of(person):
            of_person = SubjectOutputs(
                name=unit.key.value("video"),
                outputs={branch: array[rows] for branch, array in values.items()},
                present=present[rows],
                frames_per_second=frames_per_second,
                backbone=None if backbone is None else backbone[rows],
            )
            parts.append(decision_columns(rule, of_person, one.serving.branches, settings.missing_faces))
        columns |= {name: pa.concat_arrays([part[name] for part in parts]) for name in (parts[0] if parts else ())}
    first, unit = outputs[0]
    is_covered = np.zeros(OutputsDetails.of(unit.manifest).frame_count + 1, bool)
    is_covered[frame] = True
    uncovered = np.flatnonzero(~is_covered[1:]).astype(np.int32) + 1
    seen = np.bincount(person, weights=has_face)
    columns["person"], columns["is_short_track"] = pa.array(person), pa.array(seen[person] < SHORT_TRACK_FRAMES)
    columns |= read_person_faces(
        store, source=first.source, video=unit.key.value("video"), person=person, frame=frame, has_face=has_face
    )
    columns = {
        name: pa.concat_arrays([values, pa.nulls(len(uncovered), values.type)]) for name, values in columns.items()
    }
    columns["frame"] = pa.array(np.concatenate([frame, uncovered]))
    columns["has_face"] = pa.array(np.concatenate([has_face, np.zeros(len(uncovered), bool)]))
    return columns


def _slices_of(person: np.ndarray) -> list[slice]:
    """Return the rows of each person; they are in order."""
    edges = [0, *(np.flatnonzero(np.diff(person)) + 1).tolist(), len(person)]
    return [slice(start, end) for start, end in itertools.pairwise(edges) if end > start]


def _time_seconds(store: Store, frame_count: int, frames: StoredUnit | None) -> pa.Array:
    if frames is None or frames.manifest.rows != frame_count:
        return pa.nulls(frame_count, pa.float64())
    return store.read_unit(*frames, columns=["pts_seconds"])["pts_seconds"].combine_chunks()


def decision_columns(
    rule: PostProcessing, subject: SubjectOutputs, branches: Sequence[BranchName], missing_faces: MissingFaces = "null"
) -> dict[str, pa.Array]:
    """Return the columns of some branches, one row per frame of a subject or person.

    Values are null in frames without a face, unless ``missing_faces`` says otherwise, and without any face.
    """
    present = subject.present
    known = present if missing_faces == "null" else np.full(len(present), present.any())
    smoothed = subject.smooth(rule)
    decisions = subject.decide(rule, smoothed)
    columns: dict[str, np.ndarray] = {}
    for branch in branches:
        if branch == "expr":
            columns["expression"] = np.array(EXPRESSIONS)[decisions["expr"]]
        elif branch == "va":
            columns |= {name: decisions["va"][:, i] for i, name in enumerate(DIMENSIONS)}
            continue
        else:
            columns |= {name: decisions["au"][:, i].astype(np.int8) for i, name in enumerate(ACTION_UNITS)}
        columns |= {column.name: smoothed[branch][:, i] for i, column in enumerate(OUTPUT_COLUMNS[branch])}
    return {name: pa.array(values, mask=~known) for name, values in columns.items()}
