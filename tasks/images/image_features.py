"""Stage ``image_features``: compute embeddings and logits of one backbone for the faces of images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.schemas import image_features_dataset
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.extractor import FeatureExtractor
from models.faces.crops import decode_jpeg
from tasks.extract.embed_faces import BackboneChoice
from tasks.units import Product, Unit
from tasks.worker_models import get_backbone

CODE_VERSION = 1
_BATCH_FACES = 64


@dataclass(frozen=True)
class ImageFeaturesArgs:
    """A block of ``image_faces``, and the backbone."""

    faces: tuple[UnitKey, Manifest]
    backbone: BackboneChoice


def plan_image_features(
    blocks: Sequence[tuple[UnitKey, Manifest]], backbone: BackboneChoice
) -> list[Unit[ImageFeaturesArgs]]:
    """Plan one unit per block of ``image_faces``."""
    backbone_fingerprint, variant = backbone.fingerprint(), backbone.variant
    weights = (backbone.weights,) if backbone.weights else ()
    units = []
    for key, manifest in blocks:
        made_from = fingerprint(
            stage="image_features", version=CODE_VERSION, faces=manifest.fingerprint, backbone=backbone_fingerprint
        )
        place = (("backbone", variant), *key.partitions)
        arguments = ImageFeaturesArgs((key, manifest), backbone)
        units.append(Unit(UnitKey("image_features", place), made_from, arguments, input_files=weights))
    return units


def compute(store: Store, unit: Unit[ImageFeaturesArgs]) -> Product:
    """Return one row per face."""
    choice = unit.arguments.backbone
    backbone = get_backbone(choice.name, choice.weights, choice.precision)
    dataset = image_features_dataset(backbone.spec.embedding_size, tuple(backbone.spec.class_names))
    product = Product(dataset, [])
    product.tables = _tables(store, unit.arguments.faces, backbone, product)
    return product


def _tables(
    store: Store, faces: tuple[UnitKey, Manifest], backbone: FeatureExtractor, product: Product
) -> Iterator[pa.Table]:
    for batch in store.iter_unit(*faces, columns=["image", "face", "status", "crop_jpeg"]):
        found = pa.Table.from_batches([batch]).filter(pc.equal(batch["status"], FACE_FOUND))
        for start in range(0, found.num_rows, _BATCH_FACES):
            part = found.slice(start, _BATCH_FACES)
            crops = [decode_jpeg(crop.as_py()) for crop in part["crop_jpeg"]]
            embeddings, logits = backbone.extract(crops)
            product.counts[FACE_FOUND] += len(crops)
            schema = product.dataset.schema
            vectors = {"embedding": embeddings.astype(np.float16), "logits": logits}
            columns = [part["image"], part["face"]]
            columns += [
                pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=schema.field(name).type)
                for name, values in vectors.items()
            ]
            yield pa.Table.from_arrays(columns, schema=schema)
