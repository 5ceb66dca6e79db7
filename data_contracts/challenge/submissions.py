"""Submissions of any edition: write their files, and check them with a report of each fault's file, line and cause."""

import io
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from data_contracts.challenge.editions import HEADERS, VALUE_COLUMNS, RowsBy, submission_header
from data_contracts.challenge.names import match_names
from data_contracts.challenge.submission_files import Fault, first_few, is_marked_simulated, read_files
from data_contracts.challenge.test_lists import TestList, read_test_list
from data_contracts.errors import InputError, counted
from data_contracts.files.locations import Location
from data_contracts.vocabulary import (
    BRANCHES_OF_TASK,
    SIMULATED_NOTICE,
    TASKS,
    BranchName,
    TaskName,
    is_simulated,
    video_of_subject,
)

# Zip files store times; with a fixed time, equal predictions give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BOM = b"\xef\xbb\xbf"


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


def zip_bytes(files: dict[str, bytes], *, simulated: bool = False) -> bytes:
    """Return a zip of the files, sorted by name, without folders; equal files give equal bytes.

    ``simulated``: the comment of the zip, which unpacking programs show, says that the predictions are simulated.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.comment = SIMULATED_NOTICE.encode() if simulated else b""
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Kind:
    """Task of a submission; ``by``: whether it has a file per subject or a row per listed frame."""

    task: TaskName
    by: RowsBy


@dataclass(frozen=True)
class Submission:
    """The files of a submission.

    Attributes:
        name: of the zip, folder or text file.
        files: name -> text.
        faults: of files that cannot be read.
        task: from the first known header, else the requested one; None only without files.
        by: from the header; None if no header is known.
        is_simulated: the name, a file in it or the comment of the zip says that the predictions are simulated.
    """

    name: str
    files: dict[str, bytes]
    faults: tuple[Fault, ...]
    task: TaskName | None
    by: RowsBy | None
    is_simulated: bool = False

    def kind(self, wanted: TestList | None) -> _Kind:
        """Return the kind of a submission with files. Without a known header, it is that of the test list."""
        assert self.task is not None
        if self.by or self.task == "mtl":
            return _Kind(self.task, self.by or "frame")
        return _Kind(self.task, wanted.rows_by if wanted else "subject")

    def subjects_by_video(self, wanted: TestList | None) -> list[str]:
        """Return the subjects whose rows are those of their video. A list of frames determines the rows itself."""
        if not self.files or (self.kind(wanted).by == "frame" and wanted):
            return []
        if self.kind(wanted).by == "subject":
            return [name.removesuffix(".txt") for name in self.files]
        rows = (row.partition("/")[0] for data in self.files.values() for row in _lines(data)[1:])
        return list(dict.fromkeys(rows))


def read_submission(path: Location, task: TaskName | None = None) -> Submission:
    """Read a zip, a folder of text files, a folder that ``submit`` wrote, or one text file.

    Args:
        task: None takes the task from the headers.

    Raises:
        InputError: there is nothing at the path, or no header identifies the task.
    """
    found = _read_submission(path, task)
    return replace(found, is_simulated=is_marked_simulated(path) or any(map(is_simulated, found.files)))


def _read_submission(path: Location, task: TaskName | None) -> Submission:
    files, faults = read_files(path)
    if not files:
        faults = faults or [Fault(path.name, 0, "expected text files of predictions, found none")]
        return Submission(path.name, files, tuple(faults), task, None)
    known = {submission_header(t, by): _Kind(t, by) for t in TASKS for by in ("subject", "frame")}
    for data in files.values():
        header = data.removeprefix(_BOM).split(b"\n", 1)[0].strip().decode("utf-8", "replace")
        found = known.get(header)
        if found and task in (None, found.task):
            return Submission(path.name, files, tuple(faults), found.task, found.by)
    if task:
        return Submission(path.name, files, tuple(faults), task, None)
    first = next((line for data in files.values() if (line := data.split(b"\n", 1)[0].strip())), b"")
    got = repr(first[:60].decode("utf-8", "replace")) if first else "an empty file"
    raise InputError(
        f"{path}: expected a file that starts with a header of the challenge (such as {HEADERS['va']}), got {got}; "
        "pass another file, or --task to list its faults"
    )


def verify_submission(
    path: Location,
    *,
    task: TaskName | None = None,
    test_list: Location | None = None,
    expected_rows: Mapping[str, int] | None = None,
) -> list[Fault]:
    """Read a submission and return its faults.

    Args:
        task: None takes the task from the headers.
        test_list: list or sample file with the required subjects, or the required frames in their order.
        expected_rows: video stem -> number of frames, which is the required number of rows of its subjects.

    Raises:
        InputError: there is nothing at the path, no header identifies the task, or the test list cannot be read.
    """
    wanted = read_test_list(test_list) if test_list else None
    return list(check_submission(read_submission(path, task), wanted, expected_rows or {}))


def check_submission(
    submission: Submission, wanted: TestList | None, expected_rows: Mapping[str, int]
) -> Iterator[Fault]:
    """Yield the faults of a submission. Arguments as in ``verify_submission``."""
    yield from submission.faults
    files, name = submission.files, submission.name
    if not files:
        return
    kind = submission.kind(wanted)
    if wanted and wanted.rows_by == kind.by:
        try:
            wanted.choose_edition(kind.task)
        except InputError as error:
            # The subjects or frames of another list would hide this cause behind very many faults.
            yield Fault(name, 0, f"read as predictions of {kind.task}, but {error}")
            return
    for file_name, data in files.items():
        yield from _check_file(file_name, data, kind)
    if wanted and wanted.rows_by != kind.by:
        yield Fault(name, 0, _WRONG_LIST[kind.by])
    elif kind.by == "frame":
        yield from _check_frames(files, wanted, expected_rows, kind.task)
    else:
        if wanted:
            yield from _check_subjects(files, wanted.subjects)
        yield from _check_row_counts(files, expected_rows)


_WRONG_LIST: dict[RowsBy, str] = {
    "subject": "has a file per subject (ABAW3), but the test list names frames: they are of different editions",
    "frame": "names frames in its rows, but the test list names subjects: they are of different editions",
}


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
    return faults + first_few(wrong)


def _lines(data: bytes) -> list[str]:
    """Return the lines without line ends. A line feed at the end of the file starts no further line."""
    lines = data.removeprefix(_BOM).decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


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
    video = video_named(subject, rows)
    return None if video is None else rows[video]


def video_named(subject: str, videos: Collection[str]) -> str | None:
    """Return the video of a subject, in any spelling; None if it is not among the videos."""
    for name in (subject, video_of_subject(subject), video_of_subject(subject.casefold())):
        if name in videos:
            return name
        if match := match_names([name], videos):
            return match[name]
    return None


def _check_frames(
    files: Mapping[str, bytes], wanted: TestList | None, expected: Mapping[str, int], task: TaskName
) -> list[Fault]:
    if len(files) != 1:
        return [Fault(", ".join(sorted(files))[:80], 0, f"expected one file with all rows, got {len(files)}")]
    ((name, data),) = files.items()
    got = [line.split(",", 1)[0] for line in _lines(data)[1:]]
    if wanted is not None:
        return _check_order(name, got, wanted.images)
    return _check_runs(name, got, expected, task)


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
        return faults + first_few(lost) + first_few(surplus)
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b), None)
    if at is None:
        return []
    return [Fault(name, at + 2, f"expected the order of the list ({wanted[at][:80]}), got {got[at][:80]}")]


def _check_runs(name: str, got: list[str], expected: Mapping[str, int], task: TaskName) -> list[Fault]:
    """Check without a list: the frames of each subject ascend, and there is one per frame of a known video.

    The lists of ``mtl`` select frames of a video, so its rows are only required to be frames of the video.
    """
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
            if after <= before:
                faults.append(Fault(name, line, f"expected frames of {subject} to ascend, got {after} after {before}"))
        wanted = rows_expected_of(subject, expected)
        if wanted is not None and task == "mtl":
            outside = [line for number, line in rows if not 1 <= number <= wanted]
            if outside:
                cause = f"expected frames 1 to {wanted} of {subject}, as in the video, got {got[outside[0] - 2][:80]}"
                faults.append(Fault(name, outside[0], cause))
        elif wanted is not None and len(rows) != wanted:
            cause = f"expected {counted(wanted, 'row')} of {subject}, one per frame of the video, got {len(rows)}"
            faults.append(Fault(name, rows[0][1], cause))
    return first_few(faults)
