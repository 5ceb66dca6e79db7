"""Stage ``crop_pictures``: crop the face in each labelled photo, for training backbones."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from data_contracts.challenge.pictures import Picture
from data_contracts.details.datasets import PicturesDetails
from data_contracts.errors import is_missing_file, printable
from data_contracts.files.inputs import NO_FILE, file_state
from data_contracts.schemas.faces import BOX_NAMES
from data_contracts.schemas.labels import PICTURES
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, UNREADABLE_CROP
from models.faces.crops import crop_face, encode_jpeg, shrink_to
from models.faces.detection import Detections, DetectorParams, detector_weights_digest
from models.faces.pictures import displayed_rgb, is_plain
from tasks.extract.crop_faces import CropParams
from tasks.units import Product, Unit
from tasks.worker_models import get_detector

CODE_VERSION = 2
_PICTURES_PER_UNIT = 500
_MAX_PIXELS = 64_000_000
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM")
_FORMAT_NAMES = "JPEG, PNG, TIFF, WebP, GIF, BMP or PPM"
# Formats that earlier versions read.
_FIRST_FORMATS = frozenset({"JPEG", "PNG", "MPO"})
# As for videos, but smaller faces count, too.
_PARAMS = CropParams(DetectorParams(min_face_px=20))
# A face nearer to the centre is preferred if its area is at least this fraction of the largest face's.
_RIVAL_AREA = 0.25


@dataclass(frozen=True)
class CropPicturesArgs:
    """Labelled photos, and the number of the first one in the list. ``missing``: those that do not exist."""

    pictures: Sequence[Picture]
    first: int
    missing: frozenset[Path] = frozenset()


def source_of() -> str:
    """Return the name of the variant of ``pictures``."""
    parts = {"params": {"crop": _PARAMS}, "weights": detector_weights_digest()}
    return variant_name("pictures", fingerprint(**parts, version=CODE_VERSION))


def plan_crop_pictures(
    pictures: Sequence[Picture], *, collection: str, known: Mapping[UnitKey, Manifest]
) -> list[Unit[CropPicturesArgs]]:
    """Plan units of 500 photos each, in the order of the list.

    ``collection`` is a name for the list, and ``known`` holds its units in the store. Units of earlier versions are
    planned again if one of their photos is turned, transparent, or has more than 8 bits: it was cropped as stored.
    """
    params, weights, source = {"crop": _PARAMS}, detector_weights_digest(), source_of()
    units = []
    for number, first in enumerate(range(0, len(pictures), _PICTURES_PER_UNIT)):
        block = pictures[first : first + _PICTURES_PER_UNIT]
        files = {p.path: file_state(p.path) for p in block}
        states = [(asdict(p) | {"path": p.path.name, "file": files[p.path]}) for p in block]
        unit_fingerprint = fingerprint(
            stage="crop_pictures", version=CODE_VERSION, pictures=states, params=params, weights=weights, first=first
        )
        key = UnitKey("pictures", (("source", source), ("collection", collection)), f"{number:05d}")
        if (manifest := known.get(key)) is not None:
            again = _as_displayed(unit_fingerprint)
            was_stored = manifest.fingerprint == unit_fingerprint and not PicturesDetails.of(manifest).as_displayed
            if manifest.fingerprint == again or (was_stored and not all(_is_plain(p.path) for p in block)):
                unit_fingerprint = again
        missing = frozenset(path for path, state in files.items() if state == NO_FILE)
        units.append(Unit(key, unit_fingerprint, CropPicturesArgs(block, first, missing)))
    return units


def _as_displayed(unit_fingerprint: str) -> str:
    return fingerprint(pictures=unit_fingerprint, as_displayed=True)


def compute(store: Store, unit: Unit[CropPicturesArgs]) -> Product:
    """Return one row per photo, also for files that cannot be read or show no face.

    If a photo exists and cannot be opened, the next run tries again.
    """
    product = Product(PICTURES, [], details=PicturesDetails(as_displayed=True))
    product.tables = _tables(unit, product)
    return product


def _tables(unit: Unit[CropPicturesArgs], product: Product) -> Iterator[pa.Table]:
    unread: list[int] = []
    for row_number, picture in enumerate(unit.arguments.pictures, start=unit.arguments.first):
        try:
            found = _row(picture, product.problems)
        except OSError as error:
            got = "nothing there" if is_missing_file(error) else error.strerror
            found = _unreadable(picture, got, product.problems)
            if picture.path not in unit.arguments.missing:
                unread.append(row_number)
        row = found | {
            "row": row_number,
            "picture": printable(str(picture.path)),
            "identity": picture.identity,
            "expression": picture.expression,
            **dict(zip(("valence", "arousal"), picture.valence_arousal or (None, None), strict=True)),
        }
        product.counts[str(row["status"])] += 1
        if product.identity is None and not _is_plain(picture.path):
            # Backbones that were trained on the photo as stored are trained again.
            product.identity = _as_displayed(unit.fingerprint)
        yield pa.Table.from_pylist([row], schema=PICTURES.schema)
    if unread:
        product.note_unread_file()
        # Backbones are trained again once the photos can be read.
        product.identity = fingerprint(pictures=product.identity or unit.fingerprint, unread=unread)


def _unreadable(picture: Picture, got: object, problems: list[str]) -> dict[str, object]:
    problems.append(f"{picture.path}: expected a picture ({_FORMAT_NAMES}), found: {got}; skipped")
    return {"status": UNREADABLE_CROP}


def _row(picture: Picture, problems: list[str]) -> dict[str, object]:
    """Return the columns of a photo besides its labels.

    Raises:
        OSError: the file cannot be opened, or the disk failed.
    """
    try:
        image = read_photo(picture.path)
    except (OSError, ValueError) as error:
        # Errors of Pillow have no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return _unreadable(picture, error, problems)
    probability = None
    if picture.box_xyxy_px is not None:
        box = np.array(picture.box_xyxy_px, np.float32)
    else:
        found = get_detector(_PARAMS.detector).detect(image[None])[0]
        chosen = main_face(found, width_px=image.shape[1], height_px=image.shape[0])
        if chosen is None:
            return {"status": NO_FACE}
        box, probability = found.box_xyxy_px[chosen], float(found.probability[chosen])
    crop = crop_face(image, box, margin_fraction=_PARAMS.margin_fraction)
    if crop is None:
        return {"status": NO_FACE}
    jpeg = encode_jpeg(shrink_to(crop, max_side_px=_PARAMS.max_side_px), quality=_PARAMS.jpeg_quality)
    corners = dict(zip(BOX_NAMES, box.tolist(), strict=True))
    return {"status": FACE_FOUND, "probability": probability, "crop_jpeg": jpeg, **corners}


def read_photo(path: Path) -> np.ndarray:
    """Read a picture file as displayed, RGB uint8 [h, w, 3].

    Raises:
        OSError, ValueError: the file cannot be read, has another format, or is too large.
    """
    with _opened(path) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {_MAX_PIXELS:,}")
        return displayed_rgb(image)


def _is_plain(path: Path) -> bool:
    """Return whether earlier versions read the photo as displayed, or could not read it either."""
    try:
        with _opened(path) as image:
            return image.format in _FIRST_FORMATS and is_plain(image)
    except (OSError, ValueError):
        return True


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        # Opening it would block.
        raise ValueError("a pipe or a device")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except (UnidentifiedImageError, SyntaxError) as error:
        raise ValueError("another format") from error
    except Image.DecompressionBombError as error:
        raise ValueError("a picture that is too large") from error
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise errors of many types for damaged files.
        raise ValueError(f"a damaged file ({error})") from error


def main_face(found: Detections, *, width_px: int, height_px: int) -> int | None:
    """Return the rank of the main face: the one nearest to the centre among the large ones; None without faces."""
    if not len(found.probability):
        return None
    boxes = found.box_xyxy_px.astype(np.float64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = np.hypot(*(centres - [width_px / 2, height_px / 2]).T)
    distances[areas < _RIVAL_AREA * areas.max()] = np.inf
    return int(distances.argmin())
