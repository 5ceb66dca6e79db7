"""Readers of the organisers' annotation files: EXPR, VA, AU per subject, and the multi-task lists."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_contracts.challenge.editions import HEADERS, VALUE_COLUMNS
from data_contracts.challenge.test_lists import is_plain_name
from data_contracts.errors import InputError
from data_contracts.files.inputs import read_lines
from data_contracts.files.locations import Location
from data_contracts.schemas import LABELS
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS, SetName, TaskName

_SET_FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}
# Names in ABAW3, then names in ABAW4 and ABAW7.
MTL_FILES = {
    "train": ("train_set.txt", "training_set_annotations.txt"),
    "validation": ("validation_set.txt", "validation_set_annotations.txt"),
}
_MTL_NAME = re.compile(r"([^/\\]+)/(\d{1,9})\.jpe?g", re.IGNORECASE)
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
_NO_EXPRESSION, _NO_VALUE, _NO_UNIT = -1, -5, -1


@dataclass(frozen=True)
class AnnotationSet:
    """Labels of one set for one task, in the schema ``LABELS``, and the files they were read from.

    ``faults``: one line per file that was skipped because its format is wrong.
    """

    task: TaskName
    set_name: SetName
    table: pa.Table
    files: tuple[Location, ...]
    faults: tuple[str, ...] = ()


def annotation_files(folder: Location, *, task: TaskName, set_name: SetName) -> list[Location]:
    """Return the annotation files of a set in a challenge's folder, sorted by name.

    Raises:
        InputError: there are none.
    """
    if task == "mtl":
        files = [path for name in MTL_FILES[set_name] if (path := folder / name).is_file()][:1]
        wanted = " or ".join(MTL_FILES[set_name])
    else:
        files = sorted((folder / _SET_FOLDERS[set_name]).glob("*.txt"))
        wanted = f"{_SET_FOLDERS[set_name]}/<subject>.txt"
    if not files:
        raise InputError(f"{folder}: expected annotation files {wanted}, found none")
    return files


def read_annotations(folder: Location, *, task: TaskName, set_name: SetName) -> AnnotationSet:
    """Read all files of a set. Labels that the organisers mark as invalid (-1, -5) become null.

    EXPR: -1. VA: both values are null unless both are at least -1. AU and MTL: each action unit that is -1.
    A file with a fault is skipped and named in ``faults``; the others are read.

    Raises:
        InputError: no file of the set can be read, because of a wrong header, a wrong number of columns, or a value
            that is no number or out of range. The message names file and line.
    """
    files = annotation_files(folder, task=task, set_name=set_name)
    tables: dict[Location, pa.Table] = {}
    faults = []
    for path in files:
        try:
            tables[path] = _read_mtl(path) if task == "mtl" else _read_subject(path, task)
        except InputError as error:
            faults.append(f"{error}; skipped")
    if not tables:
        more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
        raise InputError(faults[0].removesuffix("; skipped") + more)
    table = pa.concat_tables(tables.values())
    row = pa.array(np.arange(table.num_rows, dtype=np.int64))
    table = table.set_column(0, LABELS.schema.field("row"), row)
    return AnnotationSet(task, set_name, table, tuple(tables), tuple(faults))


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
    if counts <= {columns - 1} and flat.size == len(texts) * columns and np.isfinite(flat).all():
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
