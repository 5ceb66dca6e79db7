"""Stage ``import_crops``: the organisers' JPEG folders packed into the table of faces, bytes unchanged."""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.errors import InputError
from data_contracts.fingerprint import fingerprint, variant_name
from data_contracts.layout import is_utf8
from data_contracts.manifest import UnitKey
from data_contracts.schemas import FACES
from data_contracts.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, UNREADABLE_CROP, video_of_subject
from tasks.units import Product, Unit

CODE_VERSION = 2
_CHUNK_FRAMES = 256
_MAX_CROP_BYTES = 1 << 25

Crops = Sequence[tuple[int, Path]]


def source_of(name: str) -> str:
    """Name of the faces variant: ``cropped`` or ``cropped_aligned`` plus the stage's version."""
    return variant_name(name, fingerprint(source=name, version=CODE_VERSION))


def plan_import_crops(crops: Mapping[str, Crops], *, name: str, frame_counts: Mapping[str, int]) -> list[Unit]:
    """One unit per subject folder.

    ``frame_counts`` (video stem -> frames) says how many rows a subject has; where the video is unknown, or has fewer
    frames than the highest crop number, the highest crop number does.
    """
    source = source_of(name)
    units = []
    for subject, files in sorted(crops.items()):
        last = max((frame for frame, _ in files), default=0)
        video = video_of_subject(subject)
        frame_count = max(last, frame_counts.get(video, 0))
        stats = [(frame, *_size_and_time(path)) for frame, path in files]
        made_from = fingerprint(
            stage="import_crops", version=CODE_VERSION, subject=ascii(subject), frame_count=frame_count, files=stats
        )
        key = UnitKey("faces", (("source", source), ("video", video)), subject)
        arguments = {
            "subject": subject,
            "frame_count": frame_count,
            "files": [(n, str(p)) for n, p in files],
            "frames_known_from": "video" if video in frame_counts else "last crop",
        }
        units.append(Unit(key, made_from, arguments))
    return units


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def compute(store: Store, unit: Unit) -> Product:
    """Rows of one subject: a crop where the organisers have one, ``no_face`` where they do not.

    A file that cannot be read, or is too large for a face, is a row that says so.

    Raises:
        InputError: the folder's name is not text.
    """
    if not is_utf8(unit.arguments["subject"]):
        raise InputError(f"{unit.arguments['subject']}: expected a folder name in UTF-8; rename the folder")
    subject, frame_count = unit.arguments["subject"], unit.arguments["frame_count"]
    digest = hashlib.sha256(f"{subject}:{frame_count}:{CODE_VERSION}".encode())
    product = Product(FACES, [])
    product.details = {"first_frame": 1, "frame_count": frame_count, "subject": subject}
    product.details["frames_known_from"] = unit.arguments["frames_known_from"]

    def tables() -> Iterator[pa.Table]:
        files = dict(unit.arguments["files"])
        for first in range(1, frame_count + 1, _CHUNK_FRAMES):
            frames = range(first, min(first + _CHUNK_FRAMES, frame_count + 1))
            rows = [_row(frame, files, subject, product.problems) for frame in frames]
            for row in rows:
                crop = row.get("crop_jpeg", row["status"].encode() if row["status"] == UNREADABLE_CROP else b"")
                digest.update(f"{row['frame']}:".encode() + hashlib.sha256(crop).digest())
                product.counts[str(row["status"])] += 1
            yield pa.Table.from_pylist(rows, schema=FACES.schema)
        # Later stages depend on the bytes of the crops, not on when they were copied here.
        product.identity = digest.hexdigest()

    product.tables = tables()
    return product


def _row(frame: int, files: Mapping[int, str], subject: str, problems: list[str]) -> dict[str, Any]:
    path = files.get(frame)
    if path is None:
        return {"frame": frame, "status": NO_FACE, "subject": subject}
    try:
        size = os.stat(path).st_size
        if size > _MAX_CROP_BYTES:
            raise OSError(errno.EFBIG, f"{size:,} bytes")
        data = Path(path).read_bytes()
    except OSError as error:
        problems.append(f"{path}: expected a JPEG crop of a face, got: {error.strerror}; frame {frame} has no face")
        return {"frame": frame, "status": UNREADABLE_CROP, "subject": subject}
    return {"frame": frame, "face": 0, "status": FACE_FOUND, "subject": subject, "crop_jpeg": data}
