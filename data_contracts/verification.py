"""Checking a submission: every fault with its file, line and cause."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_contracts.annotations import HEADERS
from data_contracts.errors import InputError
from data_contracts.test_lists import is_plain_name, read_mtl_list, read_subject_list
from data_contracts.vocabulary import TaskName, video_of_subject

_FAULTS_PER_FILE = 5
_LARGEST_FILE_BYTES = 1 << 28
_COLUMNS: dict[TaskName, int] = {"expr": 1, "va": 2, "au": 12, "mtl": 15}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong; line 0 is the file as a whole."""

    file: str
    line: int
    cause: str

    def __str__(self) -> str:
        return f"{self.file}{f': line {self.line}' if self.line else ''}: {self.cause}"


def verify_submission(
    path: Path,
    *,
    task: TaskName | None = None,
    test_list: Path | None = None,
    expected_rows: Mapping[str, int] | None = None,
) -> list[Fault]:
    """Faults of a zip, a folder of text files, or one text file; empty if there is none.

    Args:
        task: guessed from the first file's header if None.
        test_list: which subjects, or which multi-task rows in which order, must be there.
        expected_rows: video stem -> frames: how many rows a subject must have.

    Raises:
        InputError: there is nothing at the path, or no header that tells the task.
    """
    files, faults = _read_files(path)
    if not files:
        return faults or [Fault(path.name, 0, "expected text files of predictions, found none")]
    task = task or _guess_task(path, files)
    faults += [fault for name, data in files.items() for fault in _check_file(name, data, task)]
    if task == "mtl":
        faults += _check_mtl_rows(files, read_mtl_list(test_list)) if test_list else []
        return faults
    if test_list:
        faults += _check_subjects(files, read_subject_list(test_list))
    return faults + list(_check_row_counts(files, expected_rows or {}))


def _read_files(path: Path) -> tuple[dict[str, bytes], list[Fault]]:
    if path.is_dir():
        return {p.name: p.read_bytes() for p in sorted(path.iterdir()) if p.is_file()}, [
            Fault(p.name, 0, "expected files only, got a folder") for p in sorted(path.iterdir()) if p.is_dir()
        ]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a submission (zip, folder or text file), got: {error.strerror}") from error
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return {path.name: data}, []
    return _read_zip(data)


def _read_zip(data: bytes) -> tuple[dict[str, bytes], list[Fault]]:
    files: dict[str, bytes] = {}
    faults = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            name = entry.filename
            if name.endswith("/"):
                faults.append(Fault(name, 0, "expected files only, got a folder inside the zip"))
            elif not is_plain_name(name):
                faults.append(Fault(name, 0, "expected a plain file name, got a path inside the zip"))
            elif name in files:
                faults.append(Fault(name, 0, "expected each file once, got it twice in the zip"))
            elif entry.file_size > _LARGEST_FILE_BYTES:
                faults.append(Fault(name, 0, f"expected a text file, got {entry.file_size} bytes"))
            else:
                try:
                    files[name] = archive.read(entry)
                except (zipfile.BadZipFile, RuntimeError, OSError) as error:
                    faults.append(Fault(name, 0, f"expected a readable file, got: {error}"))
    return files, faults


def _guess_task(path: Path, files: Mapping[str, bytes]) -> TaskName:
    for data in files.values():
        header = data.lstrip(b"\xef\xbb\xbf").split(b"\n", 1)[0].strip().decode("utf-8", "replace")
        for task, expected in HEADERS.items():
            if header == expected:
                return task
    raise InputError(f"{path}: expected a file that starts with a header of ABAW3, found none; say --task")


def _check_file(name: str, data: bytes, task: TaskName) -> list[Fault]:
    faults = []
    if not name.endswith(".txt"):
        faults.append(Fault(name, 0, "expected a name that ends with .txt"))
    if not data.strip():
        return [*faults, Fault(name, 0, "expected a header and rows, got an empty file")]
    if data.startswith(b"\xef\xbb\xbf"):
        faults.append(Fault(name, 1, "expected plain UTF-8, got a byte order mark"))
        data = data[3:]
    if b"\r" in data:
        faults.append(Fault(name, 1, "expected lines that end with LF, got CRLF"))
    lines = data.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    if lines[0] != HEADERS[task]:
        faults.append(Fault(name, 1, f"expected the header {HEADERS[task]!r}, got {lines[0][:80]!r}"))
    if len(lines) < 2:
        faults.append(Fault(name, 1, "expected rows, got none"))
    wrong = ((n, cause) for n, line in enumerate(lines[1:], start=2) if (cause := _fault_of_row(line, task)))
    for count, (number, cause) in enumerate(wrong):
        if count == _FAULTS_PER_FILE:
            faults.append(Fault(name, number, "more faults from here on are not listed"))
            break
        faults.append(Fault(name, number, cause))
    return faults


def _fault_of_row(line: str, task: TaskName) -> str | None:
    fields = line.split(",")
    if task == "mtl":
        fields = fields[1:]
    if len(fields) != _COLUMNS[task]:
        return f"expected {_COLUMNS[task]} values separated by commas, got {len(fields)}: {line[:60]!r}"
    for value in fields[:2] if task in ("va", "mtl") else []:
        if not _is_number(value, -1.0, 1.0):
            return f"expected a value in -1..1, got {value[:40]!r}"
    if task in ("expr", "mtl") and (expression := fields[2 if task == "mtl" else 0]) not in set("01234567"):
        return f"expected a class in 0..7, got {expression[:40]!r}"
    if task in ("au", "mtl"):
        wrong = [unit for unit in fields[-12:] if unit not in ("0", "1")]
        if wrong:
            return f"expected 0 or 1 for every action unit, got {wrong[0][:40]!r}"
    return None


def _is_number(text: str, low: float, high: float) -> bool:
    try:
        return text == text.strip() and low <= float(text) <= high
    except ValueError:
        return False


def _check_subjects(files: Mapping[str, bytes], subjects: list[str]) -> list[Fault]:
    got = {name.removesuffix(".txt") for name in files}
    missing = [
        Fault(f"{s}.txt", 0, "expected by the test list, not in the submission") for s in sorted({*subjects} - got)
    ]
    extra = [Fault(f"{s}.txt", 0, "not in the test list") for s in sorted(got - {*subjects})]
    return missing + extra


def _check_row_counts(files: Mapping[str, bytes], expected: Mapping[str, int]) -> Iterator[Fault]:
    for name, data in files.items():
        subject = name.removesuffix(".txt")
        wanted = expected.get(subject, expected.get(video_of_subject(subject)))
        rows = len(data.splitlines()) - 1
        if wanted is not None and rows != wanted:
            yield Fault(name, 0, f"expected {wanted} rows, one per frame of the video, got {rows}")


def _check_mtl_rows(files: Mapping[str, bytes], expected: list[tuple[str, int]]) -> list[Fault]:
    if len(files) != 1:
        return [Fault(", ".join(sorted(files))[:80], 0, "expected one file for multi-task learning")]
    ((name, data),) = files.items()
    got = [line.split(",", 1)[0] for line in data.decode("utf-8", "replace").splitlines()[1:]]
    wanted = [f"{subject}/{frame:05d}.jpg" for subject, frame in expected]
    if sorted(got) == sorted(wanted) and got != wanted:
        at = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
        return [Fault(name, at + 2, f"expected the order of the test list ({wanted[at]}), got {got[at][:80]}")]
    faults = [] if len(got) == len(wanted) else [Fault(name, 0, f"expected {len(wanted)} rows, got {len(got)}")]
    for cause, rows in (("missing", set(wanted) - set(got)), ("not in the test list", set(got) - set(wanted))):
        faults += [Fault(name, 0, f"row {row[:80]} is {cause}") for row in sorted(rows)[:_FAULTS_PER_FILE]]
    return faults
