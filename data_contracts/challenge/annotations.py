"""Readers of the organisers' annotation files: EXPR, VA, AU per subject, and the multi-task lists."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa

from data_contracts.challenge.editions import HEADERS, VALUE_COLUMNS
from data_contracts.challenge.test_lists import is_plain_name, names_in_list
from data_contracts.errors import InputError
from data_contracts.files.account import is_harmless
from data_contracts.files.inputs import list_entries, read_lines, reading_inputs
from data_contracts.files.locations import Location
from data_contracts.schemas.labels import LABELS
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS, SetName, TaskName, normalize_name

SET_FOLDERS: dict[SetName, str] = {"train": "Train_Set", "validation": "Validation_Set"}
_SET_FOLDER = re.compile(r"(?P<train>train(ing)?_set)|(?P<validation>val(idation)?_set)", re.IGNORECASE)
# Names in ABAW3, then names in ABAW4 and ABAW7.
MTL_FILES = {
    "train": ("train_set.txt", "training_set_annotations.txt"),
    "validation": ("validation_set.txt", "validation_set_annotations.txt"),
}
_MTL_NAME = re.compile(r"([^/\\]+)/(\d{1,9})\.jpe?g", re.IGNORECASE)
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
_NO_EXPRESSION, _NO_VALUE, _NO_UNIT = -1, -5, -1


@dataclass(frozen=True)
class SkippedFile:
    """An annotation file that was skipped, and a line with the cause."""

    path: Location
    line: str


@dataclass(frozen=True)
class AnnotationSet:
    """Labels of one set for one task, in the schema ``LABELS``, and the files they were read from.

    ``faults``: files that were skipped because they cannot be read or have another format.
    """

    task: TaskName
    set_name: SetName
    table: pa.Table
    files: tuple[Location, ...]
    faults: tuple[SkippedFile, ...] = ()


@dataclass(frozen=True)
class AnnotationFiles:
    """The files of a set, sorted by name, and the other entries of its folder with the reason why each is skipped."""

    files: tuple[Location, ...]
    skipped: tuple[tuple[Location, str], ...] = ()


def set_of_folder(name: str) -> SetName | None:
    """Return the set whose annotation files are in a folder of this name."""
    match = _SET_FOLDER.fullmatch(name.replace(" ", "_"))
    return cast(SetName, match.lastgroup) if match else None


def annotation_files(folder: Location, *, task: TaskName, set_name: SetName) -> AnnotationFiles:
    """Return the annotation files of a set in a challenge's folder.

    Raises:
        InputError: there are none, a folder cannot be read, or several folders or files qualify.
    """
    with reading_inputs(folder):
        if task == "mtl":
            wanted = " or ".join(MTL_FILES[set_name])
            named = [path for path in _entries(folder) if path.name.lower() in MTL_FILES[set_name]]
            found = AnnotationFiles(tuple(_only_one(named, f"one list of the {set_name} set")))
        else:
            wanted = f"{SET_FOLDERS[set_name]}/<subject>.txt"
            named = [path for path in _entries(folder) if set_of_folder(path.name) == set_name]
            found = AnnotationFiles(())
            for inside in _only_one(named, f"one folder of the {set_name} set"):
                found = _subject_files(inside)
    if not found.files:
        raise InputError(f"{folder}: expected annotation files {wanted}, found none")
    return found


def _entries(folder: Location) -> list[Location]:
    try:
        return list_entries(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder of annotations that can be read, got: {error.strerror}"
        ) from error


def _only_one(candidates: list[Location], what: str) -> list[Location]:
    if len(candidates) > 1:
        raise InputError(f"{candidates[0].parent}: expected {what}, found {_names(candidates)}; keep one of them")
    return candidates


def _names(paths: Iterable[Location]) -> str:
    return " and ".join(path.name for path in paths)


def _subject_files(folder: Location) -> AnnotationFiles:
    files: dict[str, Location] = {}
    skipped = []
    for path in _entries(folder):
        # A broken link counts as a file that cannot be read.
        is_other = path.suffix.lower() != ".txt" or (path.exists() and not path.is_file())
        if is_other or is_harmless(path.name):
            skipped.append((path, "other files and folders than <subject>.txt"))
            continue
        other = files.setdefault(normalize_name(path.stem), path)
        if other != path:
            raise InputError(
                f"{folder}: expected one annotation file per subject, found {_names((other, path))}; keep one of them"
            )
    return AnnotationFiles(tuple(files.values()), tuple(skipped))


def subjects_named(folder: Location, *, task: TaskName) -> set[str]:
    """Return all subjects that the files of a challenge's folder name.

    Raises:
        InputError: a folder or list cannot be read.
    """
    if task == "mtl":
        lists = [path for path in _entries(folder) if path.suffix.lower() == ".txt" and not is_harmless(path.name)]
        return {name for path in lists for name in names_in_list(path)}
    sets = [path for path in _entries(folder) if set_of_folder(path.name)]
    return {path.stem for inside in sets for path in _subject_files(inside).files}


def check_readable(files: AnnotationFiles, *, task: TaskName) -> None:
    """Check that at least one of the files can be read.

    Raises:
        InputError: none can; the message names the first file, and its line.
    """
    faults = []
    for path in files.files:
        try:
            _read(path, task)
            return
        except InputError as error:
            faults.append(str(error))
    raise _none_readable(faults)


def _none_readable(lines: Sequence[str]) -> InputError:
    more = f" (and {len(lines) - 1} more files)" if len(lines) > 1 else ""
    return InputError(lines[0].removesuffix("; skipped") + more)


def read_annotations(folder: Location, *, task: TaskName, set_name: SetName) -> AnnotationSet:
    """Read all files of a set. Labels that the organisers mark as invalid (-1, -5) become null.

    EXPR: -1. VA: both values are null unless both are at least -1. AU and MTL: each action unit that is -1.
    A file with a fault is skipped and named in ``faults``; the others are read.

    Raises:
        InputError: no file of the set can be read, because of a wrong header, a wrong number of columns, or a value
            that is not a number or is out of range. The message names file and line.
    """
    tables: dict[Location, pa.Table] = {}
    faults: list[SkippedFile] = []
    for path in annotation_files(folder, task=task, set_name=set_name).files:
        try:
            tables[path] = _read(path, task)
        except InputError as error:
            faults.append(SkippedFile(path, f"{error}; skipped"))
    if not tables:
        raise _none_readable([fault.line for fault in faults])
    table = pa.concat_tables(tables.values())
    row = pa.array(np.arange(table.num_rows, dtype=np.int64))
    table = table.set_column(0, LABELS.schema.field("row"), row)
    return AnnotationSet(task, set_name, table, tuple(tables), tuple(faults))


def _read(path: Location, task: TaskName) -> pa.Table:
    return _read_mtl(path) if task == "mtl" else _read_subject(path, task)


def _lines(path: Location, task: TaskName) -> list[str]:
    """Return the lines below the header, without trailing commas."""
    lines = read_lines(path, "annotations")
    header = ",".join(name.strip() for name in lines[0].strip().rstrip(",").split(",")) if lines else ""
    if header != HEADERS[task]:
        raise InputError(f"{path}: line 1: expected the header {HEADERS[task]!r}, got {header[:80]!r}")
    return [line.strip().rstrip(",") for line in lines[1:]]


def _numbers(path: Location, texts: list[str], *, columns: int) -> np.ndarray:
    """Parse comma-separated lines to float64 [n, columns]; search line by line only for the cause of a fault."""
    joined = ",".join(texts)
    try:
        flat = np.array(joined.split(","), dtype=np.float64) if joined else np.empty(0)
    except ValueError:
        flat = np.empty(0)
    counts = {text.count(",") for text in texts}
    # Python reads 0_1 as 1.
    if "_" not in joined and counts <= {columns - 1} and flat.size == len(texts) * columns and np.isfinite(flat).all():
        return flat.reshape(-1, columns)
    for number, text in enumerate(texts, start=2):
        fields = text.split(",")
        if len(fields) != columns:
            raise InputError(f"{path}: line {number}: expected {columns} values, got {len(fields)}: {text[:80]!r}")
        for value in fields:
            if not _NUMBER.fullmatch(value) or not np.isfinite(float(value)):
                raise InputError(f"{path}: line {number}: expected a number, got {value[:40]!r}")
    raise InputError(f"{path}: expected {columns} numbers in each of {len(texts)} lines, got others")


def _read_subject(path: Location, task: TaskName) -> pa.Table:
    values = _numbers(path, _lines(path, task), columns=VALUE_COLUMNS[task])
    count = len(values)
    if not count:
        raise InputError(f"{path}: expected a line per frame below the header, got none")
    columns = {
        "expr": np.full((count, 1), _NO_EXPRESSION),
        "va": np.full((count, 2), _NO_VALUE),
        "au": np.full((count, len(ACTION_UNITS)), _NO_UNIT),
        task: values,
    }
    frame = np.arange(1, count + 1)
    return _table(path, [path.stem] * count, frame, columns["expr"][:, 0], columns["va"], columns["au"])


def _read_mtl(path: Location) -> pa.Table:
    names, texts = [], []
    for number, line in enumerate(_lines(path, "mtl"), start=2):
        name, _, rest = line.partition(",")
        match = _MTL_NAME.fullmatch(name)
        if not match or int(match[2]) < 1 or not is_plain_name(match[1]):
            raise InputError(f"{path}: line {number}: expected subject/00001.jpg,..., got {line[:80]!r}")
        names.append((match[1], int(match[2])))
        texts.append(rest)
    values = _numbers(path, texts, columns=VALUE_COLUMNS["mtl"])
    frame = np.array([frame for _, frame in names], dtype=np.int64)
    return _table(path, [subject for subject, _ in names], frame, values[:, 2], values[:, :2], values[:, 3:])


def _table(
    path: Location, subjects: list[str], frame: np.ndarray, expr: np.ndarray, va: np.ndarray, au: np.ndarray
) -> pa.Table:
    _check_values(path, "expression", expr, set(range(-1, len(EXPRESSIONS))))
    _check_values(path, "action unit", au, {-1, 0, 1})
    known_va = (va >= -1).all(axis=1)
    wrong = ((va > 1) | ((va < -1) & (va != _NO_VALUE))).any(axis=1)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise InputError(f"{path}: line {at + 2}: expected values in -1..1 or {_NO_VALUE}, got {va[at].tolist()}")
    columns: dict[str, pa.Array] = {
        "row": pa.array(np.arange(len(frame), dtype=np.int64)),
        "subject": pa.array(subjects, pa.string()),
        "frame": pa.array(frame.astype(np.int32)),
        "expression": pa.array(expr.astype(np.int8), mask=expr == _NO_EXPRESSION),
    }
    for position, name in enumerate(("valence", "arousal")):
        columns[name] = pa.array(va[:, position].astype(np.float32), mask=~known_va)
    for position, name in enumerate(ACTION_UNITS):
        columns[name] = pa.array(au[:, position].astype(np.int8), mask=au[:, position] == _NO_UNIT)
    return pa.table(columns, schema=LABELS.schema)


def _check_values(path: Location, what: str, values: np.ndarray, allowed: set[int]) -> None:
    wrong = ~np.isin(values, list(allowed))
    if wrong.any():
        at = tuple(int(index) for index in np.argwhere(wrong)[0])
        expected = f"{min(allowed)}..{max(allowed)}"
        raise InputError(f"{path}: line {at[0] + 2}: expected {what} in {expected} (whole), got {values[at]:g}")
