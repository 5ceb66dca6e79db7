"""Stage ``embed_images``: find the faces of images and compute their features, in one pass without stored crops.

If the faces are stored already, for another backbone, the images are read again and the faces are cut at their boxes.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc

from data_contracts.schemas.faces import BOX_NAMES, IMAGE_FACES
from data_contracts.schemas.features import image_features_dataset
from data_contracts.store.manifest import StoredUnit
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, UNREADABLE_CROP
from tasks.backbones import BackboneChoice
from tasks.extract.crop_faces import cut_face
from tasks.extract.embed_faces import open_backbone
from tasks.extract.embed_segments import EmbedCropsArgs, embed_crops, plan_embed_crops
from tasks.images.image_faces import ImageFacesArgs, details_of, find_faces, is_unchanged, try_to_read
from tasks.images.image_features import naming_of
from tasks.units import Product, Unit, write_product

CODE_VERSION = 1
# Image, rank of the face in it, and RGB uint8 [h, w, 3].
_Crops = Iterator[tuple[str, int, np.ndarray]]


def plan_embed_images(
    store: Store, blocks: Sequence[Unit[ImageFacesArgs]], backbone: BackboneChoice
) -> list[Unit[EmbedCropsArgs[ImageFacesArgs]]]:
    """Plan one unit per planned block of ``image_faces`` without crops, which the same work writes."""
    return plan_embed_crops(store, blocks, backbone, naming_of(backbone))


def compute(store: Store, unit: Unit[EmbedCropsArgs[ImageFacesArgs]]) -> Product:
    """Compute the features of all faces of a block, and write its ``image_faces`` unless they exist."""
    given = unit.arguments
    network, product = open_backbone(given.backbone, image_features_dataset)
    if given.stored is None:
        crops = _find(store, given.faces, product)
    else:
        crops = _cut_again(store, given.faces, given.stored, product)
    product.tables = embed_crops(crops, network, product.dataset)
    return product


def _find(store: Store, planned: Unit[ImageFacesArgs], product: Product) -> _Crops:
    """Yield each face, and write the unit of ``image_faces`` at the end."""
    block, started, tables = planned.arguments, time.monotonic(), []
    for one in block.images:
        found = find_faces(one, block.params, product)
        tables.append(found.table)
        yield from ((one.path, rank, crop) for rank, crop in enumerate(found.crops, 1))
    faces = Product(IMAGE_FACES, tables, counts=product.counts.copy(), details=details_of(block))
    write_product(store, planned.key, faces, fingerprint=planned.fingerprint, started=started)


def _cut_again(store: Store, planned: Unit[ImageFacesArgs], stored: StoredUnit, product: Product) -> _Crops:
    """Yield each stored face. Images without a face are not read again.

    Other images of a block may have been deleted or replaced since. Their faces have no features.
    """
    product.counts.update(stored.manifest.counts)
    rows = store.read_unit(*stored, columns=["image", "face", "status", *BOX_NAMES])
    for one in planned.arguments.images:
        mine = rows.filter(pc.equal(rows["image"], one.path))
        found = set(mine["status"].to_pylist())
        image = try_to_read(one, product) if found & {FACE_FOUND, UNREADABLE_CROP} else None
        if image is None:
            continue
        if FACE_FOUND not in found or not is_unchanged(one):
            product.problems.append(
                f"{one.path}: expected the image as it was when its faces were stored, got another one; its faces have "
                "no features; forget this image, then score it again"
            )
            continue
        boxes = np.stack([mine[name].to_numpy() for name in BOX_NAMES], axis=1)
        for rank, box in zip(mine["face"].to_pylist(), boxes, strict=True):
            crop = cut_face(image, box, planned.arguments.params)
            assert crop is not None, "the box was inside the same image before"
            yield one.path, rank, crop
