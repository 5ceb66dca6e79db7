"""Stage ``image_faces``: find and crop every face of images, in blocks of many images.

A block keeps its images. New and changed images form new blocks, so that adding an image computes only this one.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from data_contracts.details.datasets import ImageFacesDetails, StoredImage
from data_contracts.details.records import JsonObject
from data_contracts.errors import InputError, explain_os_error, is_missing_file
from data_contracts.files.inputs import FileState, file_state
from data_contracts.files.locations import Location, location
from data_contracts.schemas.faces import IMAGE_FACES
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, UNREADABLE_CROP
from models.faces.detection import Detections, detector_weights_digest
from models.faces.pictures import displayed_rgb
from tasks.extract.crop_faces import CropParams, FoundFaces, cut_face, face_row, source_of, with_crops
from tasks.units import Product, Unit
from tasks.worker_models import get_detector

CODE_VERSION = 1
_MOST_IMAGES, _FEWEST_IMAGES, _BLOCKS = 100, 4, 16
_MAX_PIXELS = 64_000_000
# Digest of a file that could not be read: the next run tries again.
_UNREADABLE = "unreadable"
# Formats that Pillow decodes by itself: EPS and WMF start other programs.
_FORMATS = (
    *("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "TGA", "PCX", "PSD"),
    *("QOI", "SGI"),
)
_FORMAT_NAMES = "JPEG, PNG, TIFF, WebP, GIF, BMP, PPM, JPEG 2000, AVIF, TGA, PCX, PSD, QOI or SGI"


@dataclass(frozen=True)
class ImageFacesArgs:
    """The images of a block, and how their faces are found and cropped."""

    images: tuple[StoredImage, ...]
    params: CropParams


@dataclass(frozen=True)
class PlannedImages:
    """Units for some images, and the unit of each image (path -> unit)."""

    units: list[Unit[ImageFacesArgs]]
    of_images: dict[str, Unit[ImageFacesArgs]]


def plan_image_faces(store: Store, images: Mapping[str, Location], params: CropParams) -> PlannedImages:
    """Plan the blocks of the store that hold these images (path -> file) unchanged, and new blocks for the others.

    If ``params`` keep no crops, images whose crops the store has stay in their blocks.
    """
    known: dict[str, list[tuple[StoredImage, Unit[ImageFacesArgs]]]] = {}
    for settings in dict.fromkeys((replace(params, keep_crops=True), params)):
        for unit in _known_blocks(store, settings):
            for stored in unit.arguments.images:
                known.setdefault(stored.path, []).append((stored, unit))
    source = source_of(params)
    of_images: dict[str, Unit[ImageFacesArgs]] = {}
    new: list[StoredImage] = []
    for path, file in images.items():
        state = file_state(file, as_listed=True)
        # Blocks with earlier contents of a file stay as long as they hold other images.
        found = next((unit for stored, unit in known.get(path, ()) if _is_same(stored, file, state)), None)
        if found is not None:
            of_images[path] = found
        else:
            new.append(StoredImage(path=path, digest=_digest(file, state), state=state))
    size = min(_MOST_IMAGES, max(_FEWEST_IMAGES, -(-len(new) // _BLOCKS)))
    for start in range(0, len(new), size):
        block = tuple(new[start : start + size])
        unit = _unit(fingerprint(block=[one.to_json() for one in block])[:12], block, params, source)
        of_images |= {one.path: unit for one in block}
    # Workers must have access to the requested images; others of a block may have been deleted.
    files: dict[UnitKey, list[str]] = {}
    for path, unit in of_images.items():
        files.setdefault(unit.key, []).append(path)
    of_images = {path: replace(unit, input_files=tuple(files[unit.key])) for path, unit in of_images.items()}
    return PlannedImages(list(dict.fromkeys(of_images.values())), of_images)


def _known_blocks(store: Store, params: CropParams) -> Iterator[Unit[ImageFacesArgs]]:
    """Yield the units of the blocks in the store that this version would make again from the same images."""
    source = source_of(params)
    for key, manifest in store.manifests("image_faces", source=source).items():
        unit = _unit(key.value("block"), ImageFacesDetails.of(manifest).images, params, source)
        if unit.fingerprint == manifest.fingerprint:
            yield unit


def _unit(name: str, images: tuple[StoredImage, ...], params: CropParams, source: str) -> Unit[ImageFacesArgs]:
    key = UnitKey("image_faces", (("source", source), ("block", name)))
    files = tuple(one.path for one in images)
    return Unit(key, fingerprint_of_block(images, params), ImageFacesArgs(images, params), input_files=files)


def fingerprint_of_block(images: Sequence[StoredImage], params: CropParams) -> str:
    """Return the fingerprint of a block: of the names and contents of its images, and of the detector."""
    return fingerprint(
        stage="image_faces",
        version=CODE_VERSION,
        images=[[one.path, one.digest] for one in images],
        params=params,
        weights=detector_weights_digest(),
    )


def is_unchanged(stored: StoredImage) -> bool:
    """Return whether an image still has the content that it had when its faces were found."""
    file = location(stored.path)
    return _is_same(stored, file, file_state(file))


def _is_same(stored: StoredImage, file: Location, state: FileState) -> bool:
    if stored.digest == _UNREADABLE:
        return False
    return stored.state == state or stored.digest == _digest(file, state)


def _digest(file: Location, state: FileState) -> str:
    """Return the sha256 of a file, or of its state on S3."""
    if not isinstance(file, Path):
        return fingerprint(size=state.size_bytes, etag=state.version)
    try:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError:
        return _UNREADABLE


def compute(store: Store, unit: Unit[ImageFacesArgs]) -> Product:
    """Return one row per face, and one per image without a face or that cannot be read, which is a problem."""
    product = Product(IMAGE_FACES, [], details=details_of(unit.arguments))
    product.tables = _tables(unit.arguments, product)
    return product


def details_of(given: ImageFacesArgs) -> ImageFacesDetails:
    """Return the details for the manifest of a block of faces."""
    return ImageFacesDetails(images=given.images, crop_params=given.params.to_json())


def _tables(given: ImageFacesArgs, product: Product) -> Iterator[pa.Table]:
    for one in given.images:
        found = find_faces(one, given.params, product)
        yield with_crops(found.table, found.crops, given.params)


def find_faces(stored: StoredImage, params: CropParams, product: Product) -> FoundFaces:
    """Return the rows of an image without crops, and the crop of each face.

    The product receives the counts of rows per status, and a line if the image cannot be read.

    Raises:
        InputError: see ``try_to_read``.
    """
    image, rows, crops = try_to_read(stored, product), [JsonObject(status=UNREADABLE_CROP)], list[np.ndarray]()
    if image is not None:
        found: Detections = get_detector(params.detector).detect(image[None])[0]
        rows = []
        for box, points, probability in zip(found.box_xyxy_px, found.landmarks_xy_px, found.probability, strict=True):
            crop = cut_face(image, box, params)
            if crop is not None:
                crops.append(crop)
                rows.append({"face": len(crops), "status": FACE_FOUND} | face_row(box, points, probability))
        size = {"height_px": image.shape[0], "width_px": image.shape[1]}
        rows = [size | row for row in rows or [{"status": NO_FACE}]]
    product.counts.update(str(row["status"]) for row in rows)
    table = pa.Table.from_pylist([{"image": stored.path} | row for row in rows], schema=IMAGE_FACES.schema)
    return FoundFaces(table, crops)


def try_to_read(stored: StoredImage, product: Product) -> np.ndarray | None:
    """Return an image; None if it cannot be read, which adds a line to the problems of the product.

    Raises:
        InputError: the file could be opened when it was listed, and cannot now. The next run tries again.
    """
    try:
        return read_image(location(stored.path))
    except ValueError as error:
        if isinstance(error, _NotOpenedError) and stored.digest != _UNREADABLE:
            raise InputError(f"{stored.path}: expected the image that was listed, got {error}; run again") from error
        product.problems.append(f"{stored.path}: expected an image, got {error}; skipped")
        return None


class _NotOpenedError(ValueError):
    """A file exists and cannot be opened."""


def read_image(file: Location) -> np.ndarray:
    """Read an image as displayed, RGB uint8 [h, w, 3]: turned by EXIF data, on white, 16 bits scaled to 8.

    Of an image with several frames, the first one is read.

    Raises:
        ValueError: it cannot be read, has another format, or is too large; the message is a cause.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read()
    except OSError as error:
        # Errors of S3 have no number.
        is_missing = isinstance(error, FileNotFoundError) or is_missing_file(error)
        refused = ValueError if is_missing else _NotOpenedError
        raise refused(explain_os_error(error) or f"an unreadable file ({error})") from error
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {_MAX_PIXELS:,}; shrink it")
            return displayed_rgb(image)
    except UnidentifiedImageError as error:
        raise ValueError("an empty file" if not data else f"none of {_FORMAT_NAMES}") from error
    except Image.DecompressionBombError as error:
        raise ValueError("an image that is too large; shrink it") from error
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise errors of many types for damaged files.
        raise ValueError(
            f"a damaged file ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
