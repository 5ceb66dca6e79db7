"""Writing what the organisers of ABAW3 expect: one text file per subject and task, one for multi-task learning."""

import io
import zipfile
from collections.abc import Sequence

import numpy as np

from data_contracts.annotations import HEADERS
from data_contracts.vocabulary import TaskName

_VALUE = "%.6f"
# Zip files carry times; a fixed one makes equal predictions equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def format_subject_file(task: TaskName, decisions: np.ndarray) -> bytes:
    """Text of one subject's file: header, then a line per frame, LF at the ends.

    ``decisions``: class index [T] for ``expr``, values [T, 2] for ``va``, zeros and ones [T, 12] for ``au``.
    """
    rows = decisions.reshape(len(decisions), -1)
    pattern = ",".join([_VALUE if task == "va" else "%d"] * rows.shape[1])
    lines = [HEADERS[task], *(pattern % tuple(row) for row in rows.tolist())]
    return ("\n".join(lines) + "\n").encode()


def format_mtl_file(names: Sequence[str], *, va: np.ndarray, expr: np.ndarray, au: np.ndarray) -> bytes:
    """Text of the multi-task file: ``subject/00001.jpg``, valence, arousal, class index, twelve units."""
    lines = [HEADERS["mtl"]]
    units = ",".join(["%d"] * 12)
    for name, (valence, arousal), expression, row in zip(names, va.tolist(), expr.tolist(), au.tolist(), strict=True):
        values = f"{_VALUE},{_VALUE},%d" % (valence, arousal, expression)
        lines.append(f"{name},{values},{units % tuple(row)}")
    return ("\n".join(lines) + "\n").encode()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """A zip of the files, sorted by name, without folders; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()
