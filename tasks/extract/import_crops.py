"""Stage ``import_crops``: the organisers' JPEG folders packed into the table of faces, bytes unchanged."""

import errno
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from data_contracts.challenge.layout import Crop, is_utf8
from data_contracts.errors import InputError
from data_contracts.files.inputs import read_many
from data_contracts.schemas import FACES
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, UNREADABLE_CROP, video_of_subject
from tasks.units import Product, Unit

CODE_VERSION = 2
_CHUNK_FRAMES = 256
_MAX_CROP_BYTES = 1 << 25


def source_of(name: str) -> str:
    """Name of the faces variant: ``cropped`` or ``cropped_aligned`` plus the stage's version."""
    return variant_name(name, fingerprint(source=name, version=CODE_VERSION))


def plan_import_crops(crops: Mapping[str, Sequence[Crop]], *, name: str, frame_counts: Mapping[str, int]) -> list[Unit]:
    """One unit per subject folder.

    ``frame_counts`` (video stem -> frames) says how many rows a subject has; where the video is unknown, or has fewer
    frames than the highest crop number, the highest crop number does.
    """
    source = source_of(name)
    units = []
    for subject, files in sorted(crops.items()):
        last = max((crop.frame for crop in files), default=0)
        video = video_of_subject(subject)
        frame_count = max(last, frame_counts.get(video, 0))
        stats = [(crop.frame, *crop.state) for crop in files]
        made_from = fingerprint(
            stage="import_crops", version=CODE_VERSION, subject=ascii(subject), frame_count=frame_count, files=stats
        )
        key = UnitKey("faces", (("source", source), ("video", video)), subject)
        arguments = {
            "subject": subject,
            "frame_count": frame_count,
            "files": [(crop.frame, crop.path, crop.state[0]) for crop in files],
            "frames_known_from": "video" if video in frame_counts else "last crop",
        }
        units.append(Unit(key, made_from, arguments))
    return units


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
        files = {frame: (path, size) for frame, path, size in unit.arguments["files"]}
        for first in range(1, frame_count + 1, _CHUNK_FRAMES):
            frames = range(first, min(first + _CHUNK_FRAMES, frame_count + 1))
            crops = _read_crops({frame: files[frame] for frame in frames if frame in files})
            rows = [_row(frame, crops.get(frame), subject, product.problems) for frame in frames]
            for row in rows:
                crop = row.get("crop_jpeg", row["status"].encode() if row["status"] == UNREADABLE_CROP else b"")
                digest.update(f"{row['frame']}:".encode() + hashlib.sha256(crop).digest())
                product.counts[str(row["status"])] += 1
            yield pa.Table.from_pylist(rows, schema=FACES.schema)
        # Later stages depend on the bytes of the crops, not on when they were copied here.
        product.identity = digest.hexdigest()

    product.tables = tables()
    return product


def _read_crops(files: Mapping[int, tuple[str, int]]) -> dict[int, tuple[str, bytes | OSError]]:
    """Frame -> path, and the file's bytes or why there are none; ``files``: frame -> path and size in bytes."""
    small = {frame: path for frame, (path, size) in files.items() if size <= _MAX_CROP_BYTES}
    read: dict[int, bytes | OSError] = dict(zip(small, read_many(list(small.values())), strict=True))
    return {
        frame: (path, read.get(frame, OSError(errno.EFBIG, f"{size:,} bytes"))) for frame, (path, size) in files.items()
    }


def _row(frame: int, crop: tuple[str, bytes | OSError] | None, subject: str, problems: list[str]) -> dict[str, Any]:
    if crop is None:
        return {"frame": frame, "status": NO_FACE, "subject": subject}
    path, data = crop
    if isinstance(data, OSError):
        cause = data.strerror or "no such file"
        problems.append(f"{path}: expected a JPEG crop of a face, got: {cause}; frame {frame} has no face")
        return {"frame": frame, "status": UNREADABLE_CROP, "subject": subject}
    return {"frame": frame, "face": 0, "status": FACE_FOUND, "subject": subject, "crop_jpeg": data}
