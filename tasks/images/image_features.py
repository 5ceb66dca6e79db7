"""Stage ``image_features``: compute embeddings and logits of one backbone for the faces of images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.schemas.features import image_features_dataset
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.extractor import FeatureExtractor
from models.faces.crops import decode_jpeg
from tasks.extract.embed_faces import BackboneChoice, open_backbone, vector_arrays
from tasks.units import Product, Unit

CODE_VERSION = 1
BATCH_FACES = 64


@dataclass(frozen=True)
class ImageFeaturesArgs:
    """A block of ``image_faces``, and the backbone."""

    faces: tuple[UnitKey, Manifest]
    backbone: BackboneChoice


def plan_image_features(
    blocks: Sequence[tuple[UnitKey, Manifest]], backbone: BackboneChoice
) -> list[Unit[ImageFeaturesArgs]]:
    """Plan one unit per block of ``image_faces``."""
    weights = (backbone.weights,) if backbone.weights else ()
    units = []
    for key, manifest in blocks:
        features, made_from = features_unit(key, manifest.fingerprint, backbone)
        units.append(Unit(features, made_from, ImageFeaturesArgs((key, manifest), backbone), input_files=weights))
    return units


def features_unit(faces: UnitKey, faces_fingerprint: str, backbone: BackboneChoice) -> tuple[UnitKey, str]:
    """Return key and fingerprint of the features of a block of ``image_faces``."""
    made_from = fingerprint(
        stage="image_features", version=CODE_VERSION, faces=faces_fingerprint, backbone=backbone.fingerprint()
    )
    return UnitKey("image_features", (("backbone", backbone.variant), *faces.partitions)), made_from


def compute(store: Store, unit: Unit[ImageFeaturesArgs]) -> Product:
    """Return one row per face."""
    backbone, product = open_backbone(unit.arguments.backbone, image_features_dataset)
    product.tables = _tables(store, unit.arguments.faces, backbone, product)
    return product


def _tables(
    store: Store, faces: tuple[UnitKey, Manifest], backbone: FeatureExtractor, product: Product
) -> Iterator[pa.Table]:
    for batch in store.iter_unit(*faces, columns=["image", "face", "status", "crop_jpeg"]):
        found = pa.Table.from_batches([batch]).filter(pc.equal(batch["status"], FACE_FOUND))
        for start in range(0, found.num_rows, BATCH_FACES):
            part = found.slice(start, BATCH_FACES)
            crops = [decode_jpeg(crop.as_py()) for crop in part["crop_jpeg"]]
            vectors = vector_arrays(product.dataset, *backbone.extract(crops))
            product.counts[FACE_FOUND] += len(crops)
            yield pa.Table.from_arrays([part["image"], part["face"], *vectors], schema=product.dataset.schema)
