"""Test lists: the organisers' lists of the subjects or frames to predict (sample files, multi-task lists)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from data_contracts.challenge.editions import (
    VALUE_COLUMNS,
    RowsBy,
    check_edition,
    edition_of_list,
    stated_edition,
    task_of_header,
    task_of_test_list,
)
from data_contracts.challenge.names import subject_of_file
from data_contracts.errors import InputError
from data_contracts.files.inputs import read_lines
from data_contracts.files.locations import Location
from data_contracts.vocabulary import EditionName, TaskName

_IMAGE = re.compile(r"(?:[^/\\]+[/\\])*?([^/\\]+)[/\\](\d{1,9})\.(?:jpe?g|png)", re.IGNORECASE)
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_SEPARATOR = re.compile(r"[/\\]")
_HEADERS = ("image", "image_location")


@dataclass(frozen=True, eq=False)
class TestList:
    """A test list: its subjects and, if it lists frames, its rows.

    Attributes:
        subjects: each subject once, in the order of first appearance, without folders and suffixes of videos.
        spellings: subject -> name in the list, where the two differ.
        images: names of the rows as in the list (``subject/00001.jpg``), in its order. Names may repeat, so only the
            position identifies a row. Empty for a list of subjects.
        subject_of_row: int ``[n]``, position in ``subjects``.
        frame_of_row: int ``[n]``, 1-based.
        content_task: the task that the header or, without names of columns, the number of values states; None if
            neither does, as in lists of subjects.
    """

    __test__ = False

    path: Location
    subjects: tuple[str, ...]
    spellings: dict[str, str] = field(default_factory=dict, repr=False)
    images: tuple[str, ...] = field(default=(), repr=False)
    subject_of_row: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32), repr=False)
    frame_of_row: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32), repr=False)
    content_task: TaskName | None = None

    @property
    def rows_by(self) -> RowsBy:
        """``frame`` if the list has rows of frames, ``subject`` if it has names of subjects."""
        return "frame" if self.images else "subject"

    def choose_edition(self, task: TaskName, edition: EditionName | None = None) -> EditionName:
        """Return the edition of a submission of a task for this list: the given one, else the one of the list.

        Raises:
            InputError: name, header or values of the list are those of another task, or the list is of another edition,
                or the edition does not have the task.
        """
        for what, found in (("its name", task_of_test_list(self.path.name)), ("its content", self.content_task)):
            if found not in (None, task):
                raise InputError(f"{self.path}: expected a test list of {task}, got one of {found}, as {what} shows")
        stated = stated_edition(self.path.name, task)
        if edition and stated and edition != stated:
            raise InputError(
                f"{self.path}: expected a test list of {edition}, got one of {stated}, as its name shows; leave out "
                "--edition, or pass the list of that edition"
            )
        edition = edition or edition_of_list(self.path, task, self.rows_by)
        check_edition(edition, task, self.rows_by, self.path)
        return edition

    @property
    def shows_task(self) -> bool:
        """Whether the name or the content of the list shows its task."""
        return bool(task_of_test_list(self.path.name) or self.content_task)


def read_test_list(path: Location) -> TestList:
    """Read a test list of any edition. The first line determines the kind.

    Only the name in a row of a sample file is used: ABAW5 leaves the values empty, ABAW6 writes dummy values.

    Raises:
        InputError: not a text file, nothing in it, a line that is neither a subject nor ``subject/00001.jpg``, a name
            that could lead out of a folder, or a subject twice in a list of subjects.
    """
    texts = read_lines(path, "a test list")
    lines = _lines(path, texts)
    first = next(lines, None)
    if first is None:
        raise InputError(f"{path}: expected one subject or frame per line, found none")
    has_header = first[1] in _HEADERS
    if has_header or (_SEPARATOR.search(first[1]) and _subject_of_path(first[1]) is None):
        rows = texts[first[0] :] if has_header else texts[first[0] - 1 :]
        header_task = task_of_header(texts[first[0] - 1]) if has_header else None
        return replace(
            _frames(path, lines if has_header else chain([first], lines)),
            content_task=header_task or _task_of_values(rows),
        )
    return _subjects(path, chain([first], lines))


def _task_of_values(rows: list[str]) -> TaskName | None:
    """Return the task with as many values as the first row has. ABAW5 leaves the values empty."""
    values = next((row.strip().rstrip(",").split(",")[1:] for row in rows if row.strip()), [])
    return next((task for task, count in VALUE_COLUMNS.items() if values and len(values) == count), None)


def names_in_list(path: Location) -> set[str]:
    """Return the names of subjects in a list of any kind, without checking its format.

    Raises:
        InputError: the file cannot be read.
    """
    found = set()
    for line in read_lines(path, "a list of subjects or frames"):
        name = line.split(",", 1)[0].strip()
        found.add(subject_of_image(name) or subject_of_file(name))
    return found


def subject_of_image(name: str) -> str | None:
    """Return the subject of a row ``subject/00001.jpg``; None if the name has another form."""
    match = _IMAGE.fullmatch(name)
    return subject_of_file(match[1]) if match else None


def _subject_of_path(name: str) -> str | None:
    """Return the subject of a name in a list of subjects: a name, the file name of a video, or a path to one."""
    *folders, last = _SEPARATOR.split(name)
    subject = subject_of_file(last)
    is_video = subject != last.strip() and not last.lower().endswith(".txt")
    could_be_image = subject.isdigit() or last.lower().endswith(_IMAGE_SUFFIXES)
    is_doubtful = bool(folders) and not is_video and (folders[0] == "" or could_be_image)
    return None if ".." in folders or is_doubtful else subject


def _lines(path: Location, texts: list[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number, text before the first comma) of the lines that are not blank."""
    for number, line in enumerate(texts, start=1):
        if name := line.split(",", 1)[0].strip():
            yield number, name
        elif line.strip():
            raise InputError(f"{path}: line {number}: expected a name first, got {line.strip()[:80]!r}")


def _subjects(path: Location, lines: Iterator[tuple[int, str]]) -> TestList:
    line_of: dict[str, int] = {}
    spellings = {}
    for number, name in lines:
        subject = _subject_of_path(name)
        if subject is None or not is_plain_name(subject):
            raise InputError(f"{path}: line {number}: expected the name of a subject, got {name[:80]!r}")
        if subject in line_of:
            raise InputError(
                f"{path}: line {number}: expected each subject once, got {name!r} also in line {line_of[subject]}"
            )
        line_of[subject] = number
        if subject != name:
            spellings[subject] = name
    return TestList(path, tuple(line_of), spellings)


def _frames(path: Location, lines: Iterator[tuple[int, str]]) -> TestList:
    images: list[str] = []
    subjects: dict[str, int] = {}
    named: dict[str, str] = {}
    subject_of_row: list[int] = []
    frame_of_row: list[int] = []
    for number, name in lines:
        match = _IMAGE.fullmatch(name)
        is_valid = match is not None and int(match[2]) >= 1 and not (".." in name and ".." in _SEPARATOR.split(name))
        if match and is_valid and match[1] not in named:
            named[match[1]] = subject_of_file(match[1])
            is_valid = is_plain_name(named[match[1]])
        if not match or not is_valid:
            raise InputError(f"{path}: line {number}: expected subject/00001.jpg, got {name[:80]!r}")
        images.append(name)
        subject_of_row.append(subjects.setdefault(named[match[1]], len(subjects)))
        frame_of_row.append(int(match[2]))
    if not images:
        raise InputError(f"{path}: expected rows subject/00001.jpg, found none")
    rows = np.array(subject_of_row, np.int32), np.array(frame_of_row, np.int32)
    spellings = {subject: name for name, subject in named.items() if subject != name}
    return TestList(path, tuple(subjects), spellings, tuple(images), *rows)


def is_plain_name(name: str) -> bool:
    """Return whether a subject's name is safe as a file name: no separator, not hidden, printable, not too long."""
    return (
        0 < len(name.encode("utf-8", "surrogateescape")) <= 200
        and name[0] not in ".-"
        and name == name.strip()
        and not any(c in "/\\\0" or not c.isprintable() for c in name)
    )
