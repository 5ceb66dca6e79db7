"""Stage ``image_features``: compute embeddings and logits of one backbone for the faces of images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.schemas.features import image_features_dataset
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.extractor import FeatureExtractor
from models.faces.crops import decode_jpeg
from tasks.backbones import BackboneChoice
from tasks.extract.embed_faces import batch_frames, face_rows, open_backbone
from tasks.extract.embed_segments import NameFeatures
from tasks.units import Product, Unit

CODE_VERSION = 1


@dataclass(frozen=True)
class ImageFeaturesArgs:
    """A block of ``image_faces``, and the backbone."""

    faces: StoredUnit
    backbone: BackboneChoice


def plan_image_features(blocks: Sequence[StoredUnit], backbone: BackboneChoice) -> list[Unit[ImageFeaturesArgs]]:
    """Plan one unit per block of ``image_faces``."""
    name_features, units = naming_of(backbone), []
    for block in blocks:
        features, unit_fingerprint = name_features(block.key, block.manifest.fingerprint)
        units.append(
            Unit(features, unit_fingerprint, ImageFeaturesArgs(block, backbone), input_files=backbone.input_files)
        )
    return units


def naming_of(backbone: BackboneChoice) -> NameFeatures:
    """Return the function from key and fingerprint of a block of ``image_faces`` to those of its features."""
    made_by, variant = backbone.fingerprint(), backbone.variant

    def name_features(faces: UnitKey, faces_fingerprint: str) -> tuple[UnitKey, str]:
        unit_fingerprint = fingerprint(
            stage="image_features", version=CODE_VERSION, faces=faces_fingerprint, backbone=made_by
        )
        return UnitKey("image_features", (("backbone", variant), *faces.partitions)), unit_fingerprint

    return name_features


def compute(store: Store, unit: Unit[ImageFeaturesArgs]) -> Product:
    """Return one row per face."""
    backbone, product = open_backbone(unit.arguments.backbone, image_features_dataset)
    product.tables = _tables(store, unit.arguments.faces, backbone, product)
    return product


def _tables(store: Store, faces: StoredUnit, backbone: FeatureExtractor, product: Product) -> Iterator[pa.Table]:
    for batch in store.iter_unit(*faces, columns=["image", "face", "status", "crop_jpeg"]):
        found = pa.Table.from_batches([batch]).filter(pc.equal(batch["status"], FACE_FOUND))
        for start in range(0, found.num_rows, batch_frames()):
            part = found.slice(start, batch_frames())
            crops = [decode_jpeg(crop.as_py()) for crop in part["crop_jpeg"]]
            product.counts[FACE_FOUND] += len(crops)
            images, ranks = part["image"].to_pylist(), part["face"].to_pylist()
            yield face_rows(product.dataset, images, ranks, *backbone.extract(crops))
