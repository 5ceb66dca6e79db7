"""Submissions of any edition: write their files, and check them with a report of each fault's file, line and cause."""

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import IO

import numpy as np

from data_contracts.challenge.editions import HEADERS, VALUE_COLUMNS, RowsBy, submission_header
from data_contracts.challenge.names import match_names
from data_contracts.challenge.test_lists import TestList, is_plain_name, read_test_list
from data_contracts.errors import InputError, counted
from data_contracts.files.account import is_harmless
from data_contracts.files.archives import TRUNCATED_ZIP, fault_of_zip
from data_contracts.files.inputs import MAX_TEXT_BYTES, list_entries, reading_inputs
from data_contracts.files.locations import Location
from data_contracts.vocabulary import BRANCHES_OF_TASK, TASKS, BranchName, TaskName, video_of_subject

# Zip files store times; with a fixed time, equal predictions give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_FAULTS_PER_KIND = 5
_MAX_ZIP_FILES = 10_000
_MAX_ZIP_BYTES = 4 * MAX_TEXT_BYTES
# Maximum size of a zip's list of files: zipfile reads it at once, into objects that are ten times as large.
_MAX_ZIP_LIST_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"
# Errors that zipfile raises for damaged, encrypted or unsupported archives.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError, OverflowError)


def format_subject_file(task: TaskName, decisions: Mapping[BranchName, np.ndarray]) -> bytes:
    """Return the text of one subject's file: a header, then a line per frame, with LF line ends.

    ``decisions``: class index ``[T]`` for ``expr``, values ``[T, 2]`` for ``va``, zeros and ones ``[T, 12]`` for
    ``au``.
    """
    return _text([submission_header(task, "subject"), *format_rows(task, decisions)])


def format_frames_file(task: TaskName, images: Sequence[str], rows: Sequence[str]) -> bytes:
    """Return the text of the file with a row per listed frame: the frame's name as in the list, then its values."""
    named = (f"{image},{row}" for image, row in zip(images, rows, strict=True))
    return _text([submission_header(task, "frame"), *named])


def format_rows(task: TaskName, decisions: Mapping[BranchName, np.ndarray]) -> list[str]:
    """Return the comma-separated values of every frame of a subject, in the order of the task's columns."""
    formats: list[str] = []
    columns: list[list[float]] = []
    for branch in BRANCHES_OF_TASK[task]:
        values = decisions[branch].reshape(len(decisions[branch]), -1).T.tolist()
        formats += ["%.6f" if branch == "va" else "%d"] * len(values)
        columns += values
    pattern = ",".join(formats)
    return [pattern % row for row in zip(*columns, strict=True)]


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """Return a zip of the files, sorted by name, without folders; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


@dataclass(frozen=True)
class Fault:
    """One fault of a submission. Line 0 stands for the whole file."""

    file: str
    line: int
    cause: str

    def __str__(self) -> str:
        return f"{self.file}{f': line {self.line}' if self.line else ''}: {self.cause}"


@dataclass(frozen=True)
class _Kind:
    """Task of a submission; ``by``: whether it has a file per subject or a row per listed frame."""

    task: TaskName
    by: RowsBy


def verify_submission(
    path: Location,
    *,
    task: TaskName | None = None,
    test_list: Location | None = None,
    expected_rows: Mapping[str, int] | None = None,
) -> list[Fault]:
    """Return the faults of a zip, a folder of text files, a folder with a zip beside its text files, or one text file.

    Args:
        task: None takes the task from the headers.
        test_list: list or sample file with the required subjects, or the required frames in their order.
        expected_rows: video stem -> number of frames, which is the required number of rows of its subjects.

    Raises:
        InputError: there is nothing at the path, no header identifies the task, or the test list cannot be read.
    """
    wanted = read_test_list(test_list) if test_list else None
    files, faults = _read_files(path)
    if not files:
        return faults or [Fault(path.name, 0, "expected text files of predictions, found none")]
    kind = _kind_of(path, files, task, wanted)
    if wanted and wanted.rows_by == kind.by:
        try:
            wanted.choose_edition(kind.task)
        except InputError as error:
            # The subjects or frames of another list would hide this cause behind very many faults.
            return [*faults, Fault(path.name, 0, f"read as predictions of {kind.task}, but {error}")]
    for name, data in files.items():
        faults += _check_file(name, data, kind)
    if wanted and wanted.rows_by != kind.by:
        return [*faults, Fault(path.name, 0, _WRONG_LIST[kind.by])]
    if kind.by == "frame":
        return faults + _check_frames(files, wanted, expected_rows or {})
    if wanted:
        faults += _check_subjects(files, wanted.subjects)
    return faults + list(_check_row_counts(files, expected_rows or {}))


_WRONG_LIST: dict[RowsBy, str] = {
    "subject": "has a file per subject (ABAW3), but the test list names frames: they are of different editions",
    "frame": "names frames in its rows, but the test list names subjects: they are of different editions",
}


def _read_files(path: Location) -> tuple[dict[str, bytes], list[Fault]]:
    try:
        with reading_inputs(path):
            return _read_folder_or_file(path)
    except OSError as error:
        raise InputError(f"{path}: expected a submission (zip, folder or text file), got: {error.strerror}") from error


def _read_folder_or_file(path: Location) -> tuple[dict[str, bytes], list[Fault]]:
    if path.is_dir():
        inside = _entries(path)
        zips = [p for p in inside if p.suffix.lower() == ".zip"]
        if zips and not any(p.suffix.lower() == ".txt" for p in inside):
            return _read_folder_with_zip(path, zips)
        faults = [Fault(p.name, 0, "expected files only, got a folder") for p in inside if not p.is_file()]
        files = {p.name: _read_text(p) for p in inside if p.is_file()}
        if faults and not files:
            raise InputError(
                f"{path}: expected a submission (zip, folder of text files, or text file), got a folder that contains "
                f"only folders ({', '.join(fault.file for fault in faults[:3])}); pass one of them"
            )
        return files, faults
    with path.open("rb") as file:
        cause = fault_of_zip(file)
        if cause is None:
            return _read_zip(path.name, file)
        if path.suffix.lower() == ".zip" or cause == TRUNCATED_ZIP:
            return {}, [Fault(path.name, 0, f"expected a zip, got {cause}")]
    return {path.name: _read_text(path)}, []


def _entries(folder: Location) -> list[Location]:
    return [entry for entry in list_entries(folder) if not is_harmless(entry.name)]


def _read_folder_with_zip(folder: Location, zips: Sequence[Location]) -> tuple[dict[str, bytes], list[Fault]]:
    """Read the zip in a folder that ``submit`` wrote. The text files in ``predictions`` must be those of the zip."""
    if len(zips) > 1:
        names = ", ".join(one.name for one in zips[:3])
        raise InputError(f"{folder}: expected one submission, got {counted(len(zips), 'zip')} ({names}); pass one")
    (packed,) = zips
    files, faults = _read_folder_or_file(packed)
    texts = folder / "predictions"
    if files and texts.is_dir():
        beside = {one.name: _read_text(one) for one in _entries(texts) if one.is_file()}
        changed = sorted(name for name in {*files, *beside} if files.get(name) != beside.get(name))
        differing = (Fault(f"predictions/{n}", 0, f"expected the file that {packed.name} contains") for n in changed)
        faults += _first_few(differing)
    return files, faults


def _read_text(path: Location) -> bytes:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise InputError(f"{path}: expected a text file of predictions, got {path.stat().st_size:,} bytes")
    return path.read_bytes()


def _read_zip(name: str, file: IO[bytes]) -> tuple[dict[str, bytes], list[Fault]]:
    files: dict[str, bytes] = {}
    faults: list[Fault] = []
    try:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if end and (size := end[zipfile._ECD_SIZE]) > _MAX_ZIP_LIST_BYTES:  # type: ignore[attr-defined]
            return {}, [Fault(name, 0, f"expected a submission, got a zip with a list of files of {size:,} bytes")]
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if len(entries) > _MAX_ZIP_FILES or total > _MAX_ZIP_BYTES:
                return {}, [
                    Fault(name, 0, f"expected a submission, got {counted(len(entries), 'file')} of {total:,} bytes")
                ]
            for entry in entries:
                cause = _fault_of_entry(entry, files)
                if cause:
                    faults.append(Fault(entry.filename, 0, cause))
                    continue
                try:
                    files[entry.filename] = archive.read(entry)
                except _ZIP_ERRORS as error:
                    faults.append(Fault(entry.filename, 0, f"expected a readable file, got: {error}"))
    except _ZIP_ERRORS as error:
        faults.append(Fault(name, 0, f"expected a zip that can be read, got: {error}"))
    return files, faults


def _fault_of_entry(entry: zipfile.ZipInfo, files: Mapping[str, bytes]) -> str | None:
    name = entry.filename
    if name.endswith("/"):
        return "expected files only, got a folder inside the zip"
    if not is_plain_name(name):
        return "expected a plain file name, got a path inside the zip"
    if name in files:
        return "expected each file once, got it twice in the zip"
    if entry.file_size > MAX_TEXT_BYTES:
        return f"expected a text file, got {entry.file_size:,} bytes"
    return None


def _kind_of(path: Location, files: Mapping[str, bytes], task: TaskName | None, wanted: TestList | None) -> _Kind:
    """Return the kind of the first known header; without one, the kind that was requested."""
    known = {submission_header(t, by): _Kind(t, by) for t in TASKS for by in ("subject", "frame")}
    for data in files.values():
        header = data.removeprefix(_BOM).split(b"\n", 1)[0].strip().decode("utf-8", "replace")
        found = known.get(header)
        if found and task in (None, found.task):
            return found
    if task:
        return _Kind(task, "frame" if task == "mtl" else wanted.rows_by if wanted else "subject")
    first = next((line for data in files.values() if (line := data.split(b"\n", 1)[0].strip())), b"")
    got = repr(first[:60].decode("utf-8", "replace")) if first else "an empty file"
    raise InputError(
        f"{path}: expected a file that starts with a header of the challenge (such as {HEADERS['va']}), got {got}; "
        "pass another file, or --task to list its faults"
    )


def _check_file(name: str, data: bytes, kind: _Kind) -> list[Fault]:
    faults = []
    if not name.endswith(".txt"):
        faults.append(Fault(name, 0, "expected a name that ends with .txt"))
    if not data.strip():
        return [*faults, Fault(name, 0, "expected a header and rows, got an empty file")]
    if data.startswith(_BOM):
        faults.append(Fault(name, 1, "expected plain UTF-8, got a byte order mark"))
    if b"\r" in data:
        line = data.count(b"\n", 0, data.index(b"\r")) + 1
        faults.append(Fault(name, line, "expected lines that end with LF, got CRLF"))
    lines = _lines(data)
    header = submission_header(kind.task, kind.by)
    if lines[0] != header:
        faults.append(Fault(name, 1, f"expected the header {header!r}, got {lines[0][:120]!r}"))
    if len(lines) < 2:
        faults.append(Fault(name, 1, "expected rows, got none"))
    wrong = (Fault(name, n, c) for n, line in enumerate(lines[1:], start=2) if (c := _fault_of_row(line, kind)))
    return faults + _first_few(wrong)


def _lines(data: bytes) -> list[str]:
    """Return the lines without line ends. A line feed at the end of the file starts no further line."""
    lines = data.removeprefix(_BOM).decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _first_few(faults: Iterable[Fault]) -> list[Fault]:
    """Return the first faults of a kind, followed by one that says that there are more."""
    found = list(islice(faults, _FAULTS_PER_KIND + 1))
    if len(found) > _FAULTS_PER_KIND:
        last = found[-1]
        found[-1] = Fault(last.file, last.line, "more faults like these, from here on, are not listed")
    return found


def _fault_of_row(line: str, kind: _Kind) -> str | None:
    fields, task = line.split(","), kind.task
    if kind.by == "frame":
        fields = fields[1:]
    if len(fields) != VALUE_COLUMNS[task]:
        return f"expected {counted(VALUE_COLUMNS[task], 'value')} separated by commas, got {len(fields)}: {line[:60]!r}"
    for value in fields[:2] if task in ("va", "mtl") else ():
        if not _is_number(value, -1.0, 1.0):
            return f"expected a value in -1..1, got {value[:40]!r}"
    if task in ("expr", "mtl") and (expression := fields[2 if task == "mtl" else 0]) not in _CLASSES:
        return f"expected a class in 0..7, got {expression[:40]!r}"
    if task in ("au", "mtl"):
        wrong = [unit for unit in fields[-12:] if unit not in ("0", "1")]
        if wrong:
            return f"expected 0 or 1 for every action unit, got {wrong[0][:40]!r}"
    return None


_CLASSES = frozenset("01234567")


def _is_number(text: str, low: float, high: float) -> bool:
    try:
        return text == text.strip() and text.isascii() and "_" not in text and low <= float(text) <= high
    except ValueError:
        return False


def _check_subjects(files: Mapping[str, bytes], subjects: Iterable[str]) -> list[Fault]:
    got, wanted = {name.removesuffix(".txt") for name in files}, set(subjects)
    missing = [Fault(f"{s}.txt", 0, "expected by the test list, not in the submission") for s in sorted(wanted - got)]
    extra = [Fault(f"{s}.txt", 0, "not in the test list") for s in sorted(got - wanted)]
    return missing + extra


def _check_row_counts(files: Mapping[str, bytes], expected: Mapping[str, int]) -> Iterator[Fault]:
    for name, data in files.items():
        wanted = rows_expected_of(name.removesuffix(".txt"), expected)
        rows = len(_lines(data)) - 1
        if wanted is not None and rows != wanted:
            yield Fault(name, 0, f"expected {counted(wanted, 'row')}, one per frame of the video, got {rows}")


def rows_expected_of(subject: str, rows: Mapping[str, int]) -> int | None:
    """Return the number of frames of a subject's video (``rows``, by name), None if it is unknown."""
    for name in (subject, video_of_subject(subject), video_of_subject(subject.casefold())):
        if name in rows:
            return rows[name]
        if match := match_names([name], rows):
            return rows[match[name]]
    return None


def _check_frames(files: Mapping[str, bytes], wanted: TestList | None, expected: Mapping[str, int]) -> list[Fault]:
    if len(files) != 1:
        return [Fault(", ".join(sorted(files))[:80], 0, f"expected one file with all rows, got {len(files)}")]
    ((name, data),) = files.items()
    got = [line.split(",", 1)[0] for line in _lines(data)[1:]]
    if wanted is not None:
        return _check_order(name, got, wanted.images)
    return _check_runs(name, got, expected)


def _check_order(name: str, got: list[str], wanted: tuple[str, ...]) -> list[Fault]:
    """Check that the submission has exactly the rows of the list, in the same order."""
    missing, extra = Counter(wanted), Counter(got)
    missing.subtract(extra)
    if any(missing.values()):
        faults = [] if len(got) == len(wanted) else [Fault(name, 0, f"expected {len(wanted)} rows, got {len(got)}")]
        lost = (Fault(name, 0, f"row {row[:80]} of the list is missing") for row, n in missing.items() if n > 0)
        line_of = {row: line for line, row in enumerate(got, start=2)}
        surplus = (
            Fault(
                name, line_of[row], f"row {row[:80]} is {'more often than' if extra[row] > -n else 'not'} in the list"
            )
            for row, n in missing.items()
            if n < 0
        )
        return faults + _first_few(lost) + _first_few(surplus)
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b), None)
    if at is None:
        return []
    return [Fault(name, at + 2, f"expected the order of the list ({wanted[at][:80]}), got {got[at][:80]}")]


def _check_runs(name: str, got: list[str], expected: Mapping[str, int]) -> list[Fault]:
    """Check without a list: the frames of each subject ascend, and there is one per frame of a known video."""
    faults: list[Fault] = []
    frames: dict[str, list[tuple[int, int]]] = {}
    for line, row in enumerate(got, start=2):
        subject, _, image = row.partition("/")
        number = image.split(".", 1)[0]
        if not (number.isascii() and number.isdigit() and subject):
            faults.append(Fault(name, line, f"expected subject/00001.jpg first, got {row[:80]!r}"))
            continue
        frames.setdefault(subject, []).append((int(number), line))
    for subject, rows in frames.items():
        for (before, _), (after, line) in pairwise(rows):
            if after < before:
                faults.append(Fault(name, line, f"expected frames of {subject} to ascend, got {after} after {before}"))
        wanted = rows_expected_of(subject, expected)
        if wanted is not None and len(rows) != wanted:
            cause = f"expected {counted(wanted, 'row')} of {subject}, one per frame of the video, got {len(rows)}"
            faults.append(Fault(name, rows[0][1], cause))
    return _first_few(faults)
