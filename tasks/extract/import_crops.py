"""Stage ``import_crops``: pack the organisers' crops into the dataset ``faces``.

The bytes of JPEG files stay unchanged. Other images, and JPEG files that EXIF data turn, are converted to JPEG.
"""

import errno
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image

from data_contracts.challenge.crops import Crop
from data_contracts.details.datasets import FacesDetails
from data_contracts.errors import InputError
from data_contracts.files.inputs import read_many
from data_contracts.schemas.faces import FACES
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, UNREADABLE_CROP, video_of_subject
from models.faces.crops import encode_jpeg
from models.faces.pictures import displayed_rgb, has_exif, is_plain
from tasks.units import Product, Unit

CODE_VERSION = 2
_CHUNK_FRAMES = 256
_MAX_CROP_BYTES = 1 << 25
# First bytes of PNG, BMP, WebP and TIFF files, which are converted to JPEG.
_OTHER_IMAGES = (b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF", b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class ImportCropsArgs:
    """A subject's crops.

    Attributes:
        files: (frame number, path, size in bytes) of each crop.
        frame_count: number of rows of the subject.
        frames_known_from: source of the number of frames: ``video`` or ``last crop``.
    """

    subject: str
    frame_count: int
    files: list[tuple[int, str, int]]
    frames_known_from: str


def source_of(name: str) -> str:
    """Return the name of the faces variant: ``cropped`` or ``cropped_aligned`` plus a digest of the stage's version."""
    return variant_name(name, fingerprint(source=name, version=CODE_VERSION))


def plan_import_crops(
    crops: Mapping[str, Sequence[Crop]], *, name: str, frame_counts: Mapping[str, int], first_crop: int = 1
) -> list[Unit[ImportCropsArgs]]:
    """Plan one unit per subject folder.

    The number of rows is the frame count of the video (``frame_counts``, by stem) or the highest crop number, whichever
    is larger. ``first_crop``: number in the file name of the first frame's crop.
    """
    source = source_of(name)
    # Units from before the option existed stay valid.
    numbering = {} if first_crop == 1 else {"first_crop": first_crop}
    units = []
    for subject, files in sorted(crops.items()):
        last = max((crop.frame for crop in files), default=0)
        video = video_of_subject(subject)
        frame_count = max(last, frame_counts.get(video, 0))
        stats = [(crop.frame, *crop.state) for crop in files]
        unit_fingerprint = fingerprint(
            stage="import_crops",
            version=CODE_VERSION,
            subject=ascii(subject),
            frame_count=frame_count,
            files=stats,
            **numbering,
        )
        key = _key(source, subject)
        arguments = ImportCropsArgs(
            subject,
            frame_count,
            files=[(crop.frame, crop.path, crop.state[0]) for crop in files],
            frames_known_from="video" if video in frame_counts else "last crop",
        )
        units.append(Unit(key, unit_fingerprint, arguments))
    return units


def _key(source: str, subject: str) -> UnitKey:
    return UnitKey("faces", (("source", source), ("video", video_of_subject(subject))), subject)


def plan_refuse_crops(refused: Mapping[str, str], *, name: str) -> list[Unit[str]]:
    """Plan one unit per subject whose crops cannot be used (subject -> why). It fails until the files change."""
    source = source_of(name)
    return [
        Unit(_key(source, subject), fingerprint(stage="refuse_crops", cause=ascii(cause)), cause)
        for subject, cause in sorted(refused.items())
    ]


def refuse_crops(store: Store, unit: Unit[str]) -> Product:
    """Refuse the crops of a subject.

    Raises:
        InputError: always.
    """
    raise InputError(unit.arguments)


def compute(store: Store, unit: Unit[ImportCropsArgs]) -> Product:
    """Return one row per frame of a subject: a crop, or ``no_face`` if there is no file.

    A file that cannot be read, or is too large, becomes a row with the status ``unreadable_crop``. If it could not even
    be opened, the next run tries again.
    """
    subject, frame_count = unit.arguments.subject, unit.arguments.frame_count
    digest = hashlib.sha256(f"{subject}:{frame_count}:{CODE_VERSION}".encode())
    product = Product(FACES, [])
    product.details = FacesDetails(
        first_frame=1,
        frame_count=frame_count,
        subject=subject,
        frames_known_from=unit.arguments.frames_known_from,
    )

    def tables() -> Iterator[pa.Table]:
        files = {frame: (path, size) for frame, path, size in unit.arguments.files}
        for first in range(1, frame_count + 1, _CHUNK_FRAMES):
            frames = range(first, min(first + _CHUNK_FRAMES, frame_count + 1))
            crops = _read_crops({frame: files[frame] for frame in frames if frame in files})
            rows = [_row(frame, crops.get(frame), product) | {"subject": subject} for frame in frames]
            for row in rows:
                status = row["status"]
                crop = row.get("crop_jpeg", status.encode() if status == UNREADABLE_CROP else b"")
                digest.update(f"{row['frame']}:".encode() + hashlib.sha256(crop).digest())
                product.counts[status] += 1
            yield pa.Table.from_pylist(rows, schema=FACES.schema)
        # Later stages depend on the bytes of the crops, not on the times of the files.
        product.identity = digest.hexdigest()

    product.tables = tables()
    return product


def _read_crops(files: Mapping[int, tuple[str, int]]) -> dict[int, tuple[str, bytes | OSError]]:
    """Return path and bytes or error for each frame. ``files``: frame -> path and size in bytes."""
    small = {frame: path for frame, (path, size) in files.items() if size <= _MAX_CROP_BYTES}
    read: dict[int, bytes | OSError] = dict(zip(small, read_many(list(small.values())), strict=True))
    return {
        frame: (path, read.get(frame, OSError(errno.EFBIG, f"{size:,} bytes"))) for frame, (path, size) in files.items()
    }


def _row(frame: int, crop: tuple[str, bytes | OSError] | None, product: Product) -> dict[str, Any]:
    if crop is None:
        return {"frame": frame, "status": NO_FACE}
    path, data = crop
    if isinstance(data, OSError):
        cause = data.strerror or "no such file"
        if data.errno != errno.EFBIG:
            product.note_unread_file()
        product.problems.append(f"{path}: expected a JPEG crop of a face, got: {cause}; frame {frame} has no face")
        return {"frame": frame, "status": UNREADABLE_CROP}
    if data.startswith(_OTHER_IMAGES) or has_exif(data):
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.format != "JPEG" or not is_plain(image):
                    data = encode_jpeg(displayed_rgb(image))
        except MemoryError:
            raise
        except Exception as error:
            # Decoders raise errors of many types for damaged files.
            product.problems.append(f"{path}: expected a crop of a face, got: {error}; frame {frame} has no face")
            return {"frame": frame, "status": UNREADABLE_CROP}
    return {"frame": frame, "status": FACE_FOUND, "face": 0, "crop_jpeg": data}
