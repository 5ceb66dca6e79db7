"""Stage ``embed_segments``: decode a segment, detect its faces and compute their features, in one pass without crops.

Each crop goes from the frame into the backbone, so no image of a face is stored. If the faces are stored already, for
another backbone, the segment is decoded again and they are cut at their boxes.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.schemas.dataset import Dataset
from data_contracts.schemas.faces import FACES
from data_contracts.schemas.features import face_features_dataset
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.extractor import FeatureExtractor
from tasks.backbones import FEATURES_VERSION, BackboneChoice
from tasks.extract.crop_faces import CropFacesArgs, cut_stored_faces, details_of, find_faces, note_lost_frames
from tasks.extract.embed_faces import batch_frames, face_rows, open_backbone
from tasks.units import Product, Unit, stored_units, write_product

CODE_VERSION = 1
Args = TypeVar("Args")
# From key and fingerprint of a unit of faces to those of its features.
NameFeatures = Callable[[UnitKey, str], tuple[UnitKey, str]]


@dataclass(frozen=True)
class EmbedCropsArgs(Generic[Args]):
    """A planned unit of faces without crops, the same if it exists as planned, and the backbone."""

    faces: Unit[Args]
    stored: StoredUnit | None
    backbone: BackboneChoice


def plan_embed_crops(
    store: Store, faces: Sequence[Unit[Args]], backbone: BackboneChoice, name_features: NameFeatures
) -> list[Unit[EmbedCropsArgs[Args]]]:
    """Plan one unit per planned unit of faces (of segments or images) without crops, which the same work writes."""
    known = stored_units(store, faces)
    units = []
    for one in faces:
        arguments = EmbedCropsArgs(one, known.get(one.key), backbone)
        companions = ((one.key, one.fingerprint),)
        key, unit_fingerprint = name_features(one.key, one.fingerprint)
        units.append(
            Unit(key, unit_fingerprint, arguments, companions, input_files=(*one.input_files, *backbone.input_files))
        )
    return units


def embed_crops(
    crops: Iterator[tuple[int | str, int, np.ndarray]], network: FeatureExtractor, dataset: Dataset
) -> Iterator[pa.Table]:
    """Yield rows of features of crops (frame or image, rank of the face in it, RGB uint8 [h, w, 3]), in batches."""
    # A view would keep whole frames in memory.
    copies = ((place, rank, crop.copy()) for place, rank, crop in crops)
    while batch := list(itertools.islice(copies, batch_frames())):
        places, ranks, images = zip(*batch, strict=True)
        yield face_rows(dataset, places, ranks, *network.extract(images))


def plan_embed_segments(
    store: Store, segments: Sequence[Unit[CropFacesArgs]], *, backbone: BackboneChoice
) -> list[Unit[EmbedCropsArgs[CropFacesArgs]]]:
    """Plan one unit per planned unit of ``faces`` without crops, which the same work writes."""
    return plan_embed_crops(store, segments, backbone, _naming(backbone))


def _naming(backbone: BackboneChoice) -> NameFeatures:
    made_by, variant = backbone.fingerprint(), backbone.variant

    def name_features(faces: UnitKey, faces_fingerprint: str) -> tuple[UnitKey, str]:
        unit_fingerprint = fingerprint(
            stage="embed_segments",
            version=CODE_VERSION,
            embed_faces=FEATURES_VERSION,
            faces=faces_fingerprint,
            backbone=made_by,
        )
        return UnitKey("face_features", (("backbone", variant), *faces.partitions), faces.part), unit_fingerprint

    return name_features


def find_face_features(
    store: Store, segments: Sequence[StoredUnit], backbone: BackboneChoice
) -> dict[UnitKey, StoredUnit]:
    """Return the unit of ``face_features`` of each of these units of ``faces`` of one source, as far as it exists."""
    if not segments:
        return {}
    known = store.manifests("face_features", backbone=backbone.variant, source=segments[0].key.value("source"))
    name_features, found = _naming(backbone), {}
    for faces, manifest in segments:
        key, unit_fingerprint = name_features(faces, manifest.fingerprint)
        if key in known and known[key].fingerprint == unit_fingerprint:
            found[faces] = StoredUnit(key, known[key])
    return found


def compute(store: Store, unit: Unit[EmbedCropsArgs[CropFacesArgs]]) -> Product:
    """Compute the features of all faces of one segment, and write its ``faces`` unless they exist.

    Only a few frames and one batch of crops are in memory at a time, besides boxes and landmarks.

    Raises:
        InputError: the video is gone, has changed, or cannot be opened.
    """
    given = unit.arguments
    segment, stored = given.faces.arguments, given.stored
    network, product = open_backbone(given.backbone, face_features_dataset, faces=details_of(segment))
    if stored is None:
        crops = _find(store, given.faces, product)
    else:
        product.counts.update(stored.manifest.counts)
        note_lost_frames(segment, product)
        crops = cut_stored_faces(store, stored, segment.video)
    product.tables = embed_crops(crops, network, product.dataset)
    return product


def _find(store: Store, planned: Unit[CropFacesArgs], product: Product) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (frame, rank in the frame, crop) of each face, and write the unit of ``faces`` at the end."""
    started, tables = time.monotonic(), []
    for found in find_faces(store, planned.arguments, product):
        tables.append(found.table)
        shown = found.table.filter(pc.equal(found.table["status"], FACE_FOUND))
        yield from zip(shown["frame"].to_pylist(), shown["face"].to_pylist(), found.crops, strict=True)
    faces = Product(FACES, tables, counts=product.counts.copy(), details=details_of(planned.arguments))
    write_product(store, planned.key, faces, fingerprint=planned.fingerprint, started=started)
