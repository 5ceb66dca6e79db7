"""A folder of predictions: its files, the record of what they were made from, and the description for its readers."""

import importlib.metadata
import io
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from data_contracts.details.records import LeftOut, Record
from data_contracts.errors import InputError, StoreError, counted, first_names, is_missing_file
from data_contracts.files.inputs import FileState, file_state, list_many, reading_inputs
from data_contracts.files.local import UNFINISHED
from data_contracts.files.locations import Location, location
from data_contracts.schemas.dataset import Column
from data_contracts.schemas.predictions import PREDICTIONS
from data_contracts.store.manifest import from_sealed_json, to_sealed_json
from data_contracts.store.store import Store
from data_contracts.vocabulary import ANNOTATED_SUFFIX, MissingFaces, People
from tasks.results.annotated_copies import annotated_file, drop_annotated

# In the store: list of the folders that predictions were written to, so that a video can be forgotten in all of them.
_FOLDERS = "_prediction_folders.json"
# In the folder of predictions: hash of the inputs of each subject, and the state of its files.
RECORD = ".affwild2_predictions.json"
# In the folder of predictions, for its readers: the columns, and the heads and settings of the files.
DESCRIPTION = "predictions.json"
# In the folder of predictions, each as Parquet and CSV: a row per video and person, and a row per face of an image.
# Patterns such as ``FOLDER/*.parquet`` leave out their sub-folder.
SUMMARY_TABLE, IMAGES_TABLE = "tables/summary", "tables/images"
_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True, kw_only=True)
class BranchSettings(Record):
    """How the columns of one branch were computed: its head, the features of the head, and the post-processing.

    Attributes:
        head, head_fingerprint, recipe, kind: as in the store.
        backbone: name of the network that computed the features; of a blend all of them, separated by commas.
        features: features variant, which names the backbone with a digest of its weights; the same.
        faces: faces variant.
        postprocessing, postprocessing_fingerprint: None if the decisions were not tuned.
        smoothing: in words, as in ``mean of 15 frames``.
        window_frames: width of the window, if an earlier version wrote the predictions; ``smoothing`` is the method.
        class_bias: values added to the log-probabilities of expressions before the largest is chosen.
        thresholds: an action unit is active at its threshold and above.
        gate_level: probability above which the backbone's own expression is chosen; None: never.
        slopes, offsets: calibration of probabilities, a line in their logits (one of expressions, or one per action
            unit); None: not calibrated.
    """

    head: str
    head_fingerprint: str
    recipe: str
    kind: str
    backbone: str
    features: str
    faces: str
    postprocessing: str | None = None
    postprocessing_fingerprint: str | None = None
    smoothing: str = "none"
    window_frames: LeftOut[int] = 1
    class_bias: LeftOut[dict[str, float] | None] = None
    thresholds: LeftOut[dict[str, float] | None] = None
    gate_level: LeftOut[float | None] = None
    slopes: LeftOut[tuple[float, ...] | None] = None
    offsets: LeftOut[tuple[float, ...] | None] = None


@dataclass(frozen=True, kw_only=True)
class PredictionSettings(Record):
    """The settings of prediction files.

    Attributes:
        name: eight digits that differ between settings.
        missing_faces: what frames without a face carry.
        people: whose faces they predict.
        expr, va, au: settings of each branch; None if no head serves it, and its columns are null.
        affwild2_version: version that wrote them. Another version alone does not make predictions outdated.
    """

    name: str
    missing_faces: MissingFaces
    expr: BranchSettings | None = None
    va: BranchSettings | None = None
    au: BranchSettings | None = None
    people: LeftOut[People] = "main"
    affwild2_version: str = field(default_factory=lambda: importlib.metadata.version("affwild2"))

    @property
    def sources(self) -> set[str]:
        """Faces variants of the outputs."""
        return {one.faces for one in (self.expr, self.va, self.au) if one}

    def without_sources(self) -> "PredictionSettings":
        """Return the settings that files with and without stored crops have in common."""
        expr, va, au = (one and replace(one, faces="") for one in (self.expr, self.va, self.au))
        return replace(self, name="", affwild2_version="", expr=expr, va=va, au=au)


@dataclass(frozen=True, kw_only=True)
class PredictionRecord(Record):
    """Record of the predictions of one subject: hash of all inputs, and the state of each file when it was written.

    ``settings``: name of their settings; empty if an earlier version wrote them.
    """

    made_from: str
    files: tuple[FileState | None, ...]
    settings: LeftOut[str] = ""


def prediction_files(subject: str) -> list[str]:
    """Return the names of the files with the predictions of a subject."""
    return [f"{subject}{suffix}" for suffix in _SUFFIXES]


def read_record(target: Store) -> dict[str, PredictionRecord]:
    """Read the record of each subject with predictions in a folder; empty if there is none."""
    values = from_sealed_json(target.files.read_many([RECORD])[0]) or {}
    return {subject: PredictionRecord.from_json(one) for subject, one in values.items()}


def is_damaged(target: Store) -> bool:
    """Return whether the record of a folder exists but cannot be read."""
    data = target.files.read_many([RECORD])[0]
    return bool(data) and from_sealed_json(data) is None


def write_record(target: Store, record: Mapping[str, PredictionRecord]) -> None:
    """Write the records of a folder of predictions into this folder."""
    target.write_alone(RECORD, to_sealed_json({subject: one.to_json() for subject, one in record.items()}))


def states_in(folder: Location) -> dict[str, FileState]:
    """Return the state of each file in a folder, by name; empty if there is no such folder."""
    try:
        return list_many([folder])[0].files
    except FileNotFoundError:
        return {}


def read_settings(target: Store) -> list[PredictionSettings]:
    """Read the settings of the files in a folder, the latest first; empty without a readable description."""
    try:
        found = json.loads(target.files.read_many([DESCRIPTION])[0])["settings"]
        return [PredictionSettings.from_json(one) for one in found if "missing_faces" in one]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def write_description(
    target: Store, record: Mapping[str, PredictionRecord], settings: Sequence[PredictionSettings]
) -> None:
    """Write the description of the files in a folder if it has changed, or remove it with the last file.

    ``settings``: the known ones, the latest first.
    """
    if not record:
        target.remove(DESCRIPTION)
        return
    subjects = Counter(one.settings for one in record.values())
    known = {one.name: one.to_json() for one in settings}
    values = {
        "about": "Predictions of affwild2: a Parquet file and a CSV file per video, with a row per person and frame.",
        "columns": [_describe_column(column) for column in PREDICTIONS.columns],
        "settings": [
            known.get(name, {"name": name, "written_by": "an earlier version"}) | {"subjects": subjects[name]}
            for name in sorted(subjects, key=[*known, *subjects].index)
        ],
    }
    text = json.dumps(values, indent=1).encode() + b"\n"
    if target.files.read_many([DESCRIPTION])[0] != text:
        target.write_alone(DESCRIPTION, text)


def replace_table(target: Store, name: str, table: pa.Table) -> None:
    """Write ``NAME.parquet`` and ``NAME.csv``; remove both if the table has no rows."""
    for file in prediction_files(name):
        if not table.num_rows:
            target.remove(file)
            continue
        sink = io.BytesIO()
        if file.endswith(".csv"):
            pa_csv.write_csv(table, sink, pa_csv.WriteOptions(quoting_style="needed"))
        else:
            pq.write_table(table, sink)
        target.write_alone(file, sink.getvalue())


def _describe_column(column: Column) -> dict[str, str]:
    described = {"name": column.name, "type": str(column.type), "unit": column.unit, "range": column.value_range}
    return described | {"meaning": column.meaning}


def describe_others(target: Store) -> str | None:
    """Return a line about files in a folder whose settings are not the latest; None if there is no such file.

    Files that have changed since they were written are not counted: another program may have written them.
    """
    record, settings, files = read_record(target), read_settings(target), states_in(location(target.root))
    latest = {one.name for one in settings if one.without_sources() == settings[0].without_sources()}
    others = sorted(
        subject
        for subject, one in record.items()
        if one.settings not in latest
        and any(
            state and files.get(file) == state
            for file, state in zip(prediction_files(subject), one.files, strict=False)
        )
    )
    if not others:
        return None
    earlier = any(not record[subject].settings for subject in others)
    what = "an earlier version, with other columns" if earlier else "other heads or settings"
    return (
        f"note: {counted(len(others), 'subject')} in {target.root} with predictions of {what} "
        f"({first_names(others)}), which {DESCRIPTION} there lists; score "
        "their videos again, or delete their files"
    )


def describe_rewritten(target: Store, before: Mapping[str, PredictionRecord], requested: Collection[str]) -> str | None:
    """Return a line about subjects whose files a run wrote again besides the ``requested`` files; None without any."""
    after = read_record(target)
    changed = [subject for subject, one in before.items() if subject in after and after[subject] != one]
    others = [subject for subject in changed if not set(requested).intersection(prediction_files(subject))]
    if not others:
        return None
    return f"note: {counted(len(others), 'other subject')} in {target.root} written again with these heads and settings"


def note_folder(store: Store, target: Store) -> None:
    """Add a folder to the list in the store, before its first prediction is written.

    A folder without a record gets an empty one first: a place that refuses it never enters the list, and no process
    that is killed leaves predictions in a folder that the list does not name.

    Raises:
        StoreError: the folder or the store cannot be written to.
    """
    known = noted_folders(store)
    if target.root not in known:
        if not read_record(target):
            write_record(target, {})
        store.write_bytes(_FOLDERS, to_sealed_json({"folders": [*known, target.root]}))


def noted_folders(store: Store) -> list[str]:
    """Return all folders that predictions from this store were written to.

    Raises:
        StoreError: the list is damaged. Without it, ``forget`` would miss predictions.
    """
    data = store.files.read_many([_FOLDERS])[0]
    values = from_sealed_json(data)
    if data and values is None:
        raise StoreError(
            f"{store.locate(_FOLDERS)}: expected the list of folders with predictions, got a damaged file; delete it, "
            "then name each folder once: affwild2 forget NAME --out FOLDER, or score into it again"
        )
    return list((values or {}).get("folders", []))


def drop_folder(store: Store, place: str) -> None:
    """Remove a folder of predictions from the list in the store."""
    known = noted_folders(store)
    if place in known:
        store.write_bytes(_FOLDERS, to_sealed_json({"folders": [name for name in known if name != place]}))


def open_folder(place: str) -> Store:
    """Open a folder that should hold predictions, or the record of those that were removed.

    An empty folder may be the mount point of a disk, so it is not taken for one without predictions.

    Raises:
        InputError: one line with the cause.
    """
    expected = f"{place}: expected a folder of predictions"
    target = Store(place)
    if not target.is_local:
        target.check_reachable()
    try:
        if target.files.read_many([RECORD])[0] or list_predictions(target):
            return target
        found = "a folder without them" if target.list_folder("") else "an empty folder"
    except OSError as error:
        raise InputError(f"{expected}, got: {error.strerror or error}") from error
    if target.is_local and os.path.isfile(place):
        found = "a file"
    elif not target.exists(""):
        found = "nothing there"
    raise InputError(f"{expected}, found {found}")


def list_predictions(target: Store) -> list[str]:
    """Return the names of all files in a folder that can be predictions of videos, recorded or not."""
    return [name for name in target.list_folder("") if name.endswith((*_SUFFIXES, ANNOTATED_SUFFIX))]


@dataclass(frozen=True)
class Predictions:
    """Predictions of some subjects in one folder: names of their files, and the subjects in the folder's record."""

    target: Store
    subjects: Sequence[str]
    files: list[str]
    size_bytes: int
    recorded: list[str]


def find_predictions(target: Store, subjects: Sequence[str]) -> Predictions:
    """Return the files of these subjects in a folder of predictions, and their records.

    Files with such a name are included even if another program wrote them.
    """
    recorded = set(subjects) & set(read_record(target))
    names = [name for one in subjects for name in (*prediction_files(one), annotated_file(one))]
    places = {name: location(target.locate(name)) for name in names}
    found = {name: size for name, place in places.items() if (size := _size_of(place)) >= 0}
    return Predictions(target, subjects, list(found), sum(found.values()), sorted(recorded))


def _size_of(place: Location) -> int:
    """Return the size of a file in bytes; -1 if there is none. Without permission to look, raise an error instead."""
    if isinstance(place, Path):
        try:
            return place.lstat().st_size
        except OSError as error:
            if is_missing_file(error):
                return -1
            raise
    with reading_inputs(place):
        return file_state(place).size_bytes


def remove_predictions(found: Predictions) -> None:
    """Remove the files, then their records."""
    for name in found.files:
        found.target.remove(name)
    drop_annotated(found.target, found.subjects)
    if is_damaged(found.target):
        # It may contain the names. The next run writes these predictions again, with a new record.
        found.target.remove(RECORD)
    if found.recorded:
        record = read_record(found.target)
        record = {name: entry for name, entry in record.items() if name not in found.recorded}
        write_record(found.target, record)
        write_description(found.target, record, read_settings(found.target))
    if found.target.is_local:
        found.target.remove_folder(UNFINISHED)
