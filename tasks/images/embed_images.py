"""Stage ``embed_images``: find the faces of images and compute their features, in one pass without stored crops.

If the faces are stored already, for another backbone, the images are read again and the faces are cut at their boxes.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.schemas.dataset import Dataset
from data_contracts.schemas.faces import IMAGE_FACES
from data_contracts.schemas.features import image_features_dataset
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, UNREADABLE_CROP
from models.backbones.extractor import FeatureExtractor
from tasks.extract.crop_faces import BOX_NAMES, cut_face
from tasks.extract.embed_faces import BackboneChoice, open_backbone, vector_arrays
from tasks.images.image_faces import ImageFacesArgs, details_of, find_faces, try_to_read
from tasks.images.image_features import BATCH_FACES, features_unit
from tasks.units import Product, Unit, write_product

CODE_VERSION = 1
# Image, rank of the face in it, and RGB uint8 [h, w, 3].
_Crop = tuple[str, int, np.ndarray]


@dataclass(frozen=True)
class EmbedImagesArgs:
    """Images of a block, the backbone, and the unit of ``image_faces``: fingerprint, and manifest if it exists."""

    images: ImageFacesArgs
    backbone: BackboneChoice
    faces: UnitKey
    faces_fingerprint: str
    stored_faces: Manifest | None


def plan_embed_images(
    store: Store, blocks: Sequence[Unit[ImageFacesArgs]], backbone: BackboneChoice
) -> list[Unit[EmbedImagesArgs]]:
    """Plan one unit per planned block of ``image_faces`` without crops, which the same work writes."""
    known = store.manifests("image_faces", source=blocks[0].key.value("source")) if blocks else {}
    units = []
    for faces in blocks:
        stored = known.get(faces.key)
        is_stored = stored is not None and stored.fingerprint == faces.fingerprint
        arguments = EmbedImagesArgs(
            faces.arguments, backbone, faces.key, faces.fingerprint, stored if is_stored else None
        )
        key, made_from = features_unit(faces.key, faces.fingerprint, backbone)
        weights = (backbone.weights,) if backbone.weights else ()
        companions = ((faces.key, faces.fingerprint),)
        units.append(Unit(key, made_from, arguments, companions, input_files=(*faces.input_files, *weights)))
    return units


def compute(store: Store, unit: Unit[EmbedImagesArgs]) -> Product:
    """Compute the features of all faces of a block, and write its ``image_faces`` unless they exist."""
    given = unit.arguments
    backbone, product = open_backbone(given.backbone, image_features_dataset)
    stored = given.stored_faces
    crops = _find(store, given, product) if stored is None else _cut_again(store, given, stored, product)
    product.tables = _embed(crops, backbone, product.dataset)
    return product


def _find(store: Store, given: EmbedImagesArgs, product: Product) -> Iterator[_Crop]:
    """Yield each face, and write the unit of ``image_faces`` at the end."""
    started, rows = time.monotonic(), []
    for one in given.images.images:
        found, crops = find_faces(one, given.images.params, product)
        rows += found
        yield from ((one.path, rank, crop) for rank, crop in enumerate(crops, 1))
    tables = [pa.Table.from_pylist(rows, schema=IMAGE_FACES.schema)]
    faces = Product(IMAGE_FACES, tables, counts=product.counts.copy(), details=details_of(given.images))
    write_product(store, given.faces, faces, fingerprint=given.faces_fingerprint, started=started)


def _cut_again(store: Store, given: EmbedImagesArgs, stored: Manifest, product: Product) -> Iterator[_Crop]:
    """Yield each stored face. Images without a face are not read again."""
    product.counts.update(stored.counts)
    rows = store.read_unit(given.faces, stored, columns=["image", "face", "status", *BOX_NAMES])
    for one in given.images.images:
        mine = rows.filter(pc.equal(rows["image"], one.path))
        if not {FACE_FOUND, UNREADABLE_CROP}.isdisjoint(mine["status"].to_pylist()):
            image = try_to_read(one, product)
            if image is not None:
                boxes = np.stack([mine[name].to_numpy() for name in BOX_NAMES], axis=1)
                for rank, box in zip(mine["face"].to_pylist(), boxes, strict=True):
                    crop = cut_face(image, box, given.images.params)
                    assert crop is not None, "the box was inside the same image before"
                    yield one.path, rank, crop


def _embed(crops: Iterator[_Crop], backbone: FeatureExtractor, dataset: Dataset) -> Iterator[pa.Table]:
    batch: list[_Crop] = []
    for image, rank, crop in crops:
        # A view would keep the whole image in memory.
        batch.append((image, rank, crop.copy()))
        if len(batch) == BATCH_FACES:
            yield _embed_batch(batch, backbone, dataset)
            batch = []
    if batch:
        yield _embed_batch(batch, backbone, dataset)


def _embed_batch(batch: Sequence[_Crop], backbone: FeatureExtractor, dataset: Dataset) -> pa.Table:
    images, ranks, crops = zip(*batch, strict=True)
    vectors = vector_arrays(dataset, *backbone.extract(crops))
    return pa.Table.from_arrays([pa.array(images), pa.array(ranks, pa.int16()), *vectors], schema=dataset.schema)
