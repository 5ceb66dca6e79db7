"""Write submission files: a text file per subject (ABAW3), or one file with a row per listed frame."""

import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from data_contracts.challenge.editions import submission_header
from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, TaskName

_VALUE = "%.6f"
# Zip files store times; with a fixed time, equal predictions give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


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
    formats = {"va": _VALUE, "expr": "%d", "au": "%d"}
    columns = [decisions[branch].reshape(len(decisions[branch]), -1) for branch in BRANCHES_OF_TASK[task]]
    patterns = [
        formats[branch] for branch, c in zip(BRANCHES_OF_TASK[task], columns, strict=True) for _ in range(c.shape[1])
    ]
    pattern = ",".join(patterns)
    values = [column.T.tolist() for column in columns]
    return [pattern % row for row in zip(*(one for column in values for one in column), strict=True)]


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
