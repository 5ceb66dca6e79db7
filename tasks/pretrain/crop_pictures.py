"""Stage ``crop_pictures``: crop the face in each labelled photo, for training backbones."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from data_contracts.challenge.pictures import Picture
from data_contracts.files.inputs import file_state
from data_contracts.schemas import PICTURES
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, UNREADABLE_CROP
from models.faces.crops import crop_face, encode_jpeg, shrink_to
from models.faces.detection import Detections, DetectorParams, detector_weights_digest
from tasks.extract.crop_faces import CropParams
from tasks.units import Product, Unit
from tasks.worker_models import get_detector

CODE_VERSION = 2
_PICTURES_PER_UNIT = 500
_MAX_PIXELS = 64_000_000
# As for videos, but smaller faces count, too.
_PARAMS = CropParams(DetectorParams(min_face_px=20))
# A face nearer to the centre is preferred if its area is at least this fraction of the largest face's.
_RIVAL_AREA = 0.25


@dataclass(frozen=True)
class CropPicturesArgs:
    """Labelled photos, and the number of the first one in the list."""

    pictures: Sequence[Picture]
    first: int


def plan_crop_pictures(pictures: Sequence[Picture], *, collection: str) -> list[Unit[CropPicturesArgs]]:
    """Plan units of 500 photos each, in the order of the list. ``collection`` is a name for the list."""
    params, weights = {"crop": _PARAMS}, detector_weights_digest()
    source = variant_name("pictures", fingerprint(params=params, weights=weights, version=CODE_VERSION))
    units = []
    for number, first in enumerate(range(0, len(pictures), _PICTURES_PER_UNIT)):
        block = pictures[first : first + _PICTURES_PER_UNIT]
        states = [(asdict(p) | {"path": p.path.name, "file": file_state(p.path)}) for p in block]
        unit_fingerprint = fingerprint(
            stage="crop_pictures", version=CODE_VERSION, pictures=states, params=params, weights=weights, first=first
        )
        key = UnitKey("pictures", (("source", source), ("collection", collection)), f"{number:05d}")
        units.append(Unit(key, unit_fingerprint, CropPicturesArgs(block, first)))
    return units


def compute(store: Store, unit: Unit[CropPicturesArgs]) -> Product:
    """Return one row per photo, also for files that cannot be read or show no face."""
    product = Product(PICTURES, [])
    product.tables = _tables(unit.arguments, product)
    return product


def _tables(given: CropPicturesArgs, product: Product) -> Iterator[pa.Table]:
    for row_number, picture in enumerate(given.pictures, start=given.first):
        row = _row(picture, product.problems) | {
            "row": row_number,
            "picture": str(picture.path),
            "identity": picture.identity,
            "expression": picture.expression,
            **dict(zip(("valence", "arousal"), picture.valence_arousal or (None, None), strict=True)),
        }
        product.counts[str(row["status"])] += 1
        yield pa.Table.from_pylist([row], schema=PICTURES.schema)


def _row(picture: Picture, problems: list[str]) -> dict[str, object]:
    try:
        image = read_photo(picture.path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        problems.append(f"{picture.path}: expected a JPEG or PNG image, got: {error}; skipped")
        return {"status": UNREADABLE_CROP}
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
    corners = dict(zip(("box_x1_px", "box_y1_px", "box_x2_px", "box_y2_px"), box.tolist(), strict=True))
    return {"status": FACE_FOUND, "probability": probability, "crop_jpeg": jpeg, **corners}


def read_photo(path: Path) -> np.ndarray:
    """Read a JPEG or PNG file as RGB uint8 [h, w, 3].

    Raises:
        OSError, ValueError: the file cannot be read, has another format, or is too large.
    """
    try:
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {_MAX_PIXELS:,}")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, SyntaxError) as error:
        raise ValueError("another format") from error


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
