"""The organisers' lists of what is to be predicted: subjects, or frames for the multi-task challenge."""

import re
from pathlib import Path

from data_contracts.errors import InputError

_MTL_ROW = re.compile(r"([^/\\]+)/(\d+)\.jpe?g", re.IGNORECASE)


def _lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of lines that are not blank, without white space and commas at the end."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a text file with a test list, got: {error}") from error
    found = [(number, line.strip().rstrip(",").strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return [(number, line) for number, line in found if line]


def read_subject_list(path: Path) -> list[str]:
    """Subjects in the order of the list, one a line, no header.

    Raises:
        InputError: no subject, a subject twice, or a name that is a path.
    """
    subjects: list[str] = []
    seen: set[str] = set()
    for number, name in _lines(path):
        if not is_plain_name(name):
            raise InputError(f"{path}: line {number}: expected the name of a subject, got {name[:80]!r}")
        if name in seen:
            raise InputError(f"{path}: line {number}: expected each subject once, got {name!r} again")
        seen.add(name)
        subjects.append(name)
    if not subjects:
        raise InputError(f"{path}: expected one subject a line, found none")
    return subjects


def read_mtl_list(path: Path) -> list[tuple[str, int]]:
    """(subject, frame) in the order of the list; a header ``image`` may stand first; names may repeat.

    Raises:
        InputError: no row, or a row that is not ``subject/00001.jpg``.
    """
    lines = _lines(path)
    if lines and lines[0][1].split(",")[0] == "image":
        lines = lines[1:]
    rows = []
    for number, name in lines:
        match = _MTL_ROW.fullmatch(name)
        if not match or not is_plain_name(match[1]) or int(match[2]) < 1:
            raise InputError(f"{path}: line {number}: expected subject/00001.jpg, got {name[:80]!r}")
        rows.append((match[1], int(match[2])))
    if not rows:
        raise InputError(f"{path}: expected rows subject/00001.jpg, found none")
    return rows


def is_plain_name(name: str) -> bool:
    """Whether a subject's name can be a file name and nothing more: no separator, no climbing, nothing hidden."""
    return bool(name) and name[0] not in ".-" and not any(c in "/\\\0" or ord(c) < 32 for c in name)
