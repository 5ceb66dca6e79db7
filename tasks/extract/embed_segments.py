"""Stage ``embed_segments``: decode a segment, detect its faces and compute their features, in one pass without crops.

Each crop goes from the frame into the backbone, so no image of a face is stored. If the faces are stored already, for
another backbone, the segment is decoded again and they are cut at their boxes.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_contracts.schemas.dataset import Dataset
from data_contracts.schemas.faces import FACES
from data_contracts.schemas.features import face_features_dataset
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.extractor import FeatureExtractor
from tasks.extract.crop_faces import CropFacesArgs, cut_stored_faces, details_of, find_faces, note_lost_frames
from tasks.extract.embed_faces import CODE_VERSION as EMBED_FACES_VERSION
from tasks.extract.embed_faces import BackboneChoice, batch_frames, open_backbone
from tasks.extract.embed_other_faces import other_features_table
from tasks.units import Product, Unit, write_product

CODE_VERSION = 1
StoredUnit = tuple[UnitKey, Manifest]
# Frame, rank of the face in the frame, and RGB uint8 [h, w, 3].
Crop = tuple[int, int, np.ndarray]


@dataclass(frozen=True)
class EmbedSegmentArgs:
    """A segment, the backbone, and the segment's unit of ``faces``: fingerprint, and manifest if it exists."""

    segment: CropFacesArgs
    backbone: BackboneChoice
    faces: UnitKey
    faces_fingerprint: str
    stored_faces: Manifest | None


def plan_embed_segments(
    store: Store, segments: Sequence[Unit[CropFacesArgs]], *, backbone: BackboneChoice
) -> list[Unit[EmbedSegmentArgs]]:
    """Plan one unit per planned unit of ``faces`` without crops, which the same work writes."""
    if not segments:
        return []
    backbone_fingerprint, variant = backbone.fingerprint(), backbone.variant
    known = store.manifests("faces", source=segments[0].key.value("source"))
    weights = (backbone.weights,) if backbone.weights else ()
    units = []
    for faces in segments:
        unit_fingerprint = _fingerprint(faces.fingerprint, backbone_fingerprint)
        stored = known.get(faces.key)
        is_stored = stored is not None and stored.fingerprint == faces.fingerprint
        arguments = EmbedSegmentArgs(
            faces.arguments, backbone, faces.key, faces.fingerprint, stored if is_stored else None
        )
        key = _key(variant, faces.key)
        companions = ((faces.key, faces.fingerprint),)
        units.append(Unit(key, unit_fingerprint, arguments, companions, input_files=(*faces.input_files, *weights)))
    return units


def _fingerprint(faces: str, backbone: str) -> str:
    return fingerprint(
        stage="embed_segments", version=CODE_VERSION, embed_faces=EMBED_FACES_VERSION, faces=faces, backbone=backbone
    )


def _key(variant: str, faces: UnitKey) -> UnitKey:
    return UnitKey("face_features", (("backbone", variant), *faces.partitions), faces.part)


def find_face_features(
    store: Store, segments: Sequence[StoredUnit], backbone: BackboneChoice
) -> dict[UnitKey, StoredUnit]:
    """Return the unit of ``face_features`` of each of these units of ``faces`` of one source, as far as it exists."""
    if not segments:
        return {}
    known = store.manifests("face_features", backbone=backbone.variant, source=segments[0][0].value("source"))
    backbone_fingerprint, found = backbone.fingerprint(), {}
    for faces, manifest in segments:
        key = _key(backbone.variant, faces)
        if key in known and known[key].fingerprint == _fingerprint(manifest.fingerprint, backbone_fingerprint):
            found[faces] = key, known[key]
    return found


def compute(store: Store, unit: Unit[EmbedSegmentArgs]) -> Product:
    """Compute the features of all faces of one segment, and write its ``faces`` unless they exist.

    Only a few frames and one batch of crops are in memory at a time, besides boxes and landmarks.

    Raises:
        InputError: the video is gone, has changed, or cannot be opened.
    """
    given = unit.arguments
    backbone, product = open_backbone(given.backbone, face_features_dataset, faces=details_of(given.segment))
    stored = given.stored_faces
    found = _find(store, unit, product) if stored is None else _cut_again(store, given, stored, product)
    product.tables = embed_crops(found, backbone, product.dataset)
    return product


def _find(store: Store, unit: Unit[EmbedSegmentArgs], product: Product) -> Iterator[Crop]:
    """Yield (frame, rank in the frame, crop) of each face, and write the unit of ``faces`` at the end."""
    given, started = unit.arguments, time.monotonic()
    tables = []
    for found in find_faces(store, given.segment, product):
        tables.append(pa.Table.from_pylist(found.rows, schema=FACES.schema))
        crops = iter(found.crops)
        yield from ((row["frame"], row["face"], next(crops)) for row in found.rows if row["status"] == FACE_FOUND)
    faces = Product(FACES, tables, counts=product.counts.copy(), details=details_of(given.segment))
    write_product(store, given.faces, faces, fingerprint=given.faces_fingerprint, started=started)


def _cut_again(store: Store, given: EmbedSegmentArgs, stored: Manifest, product: Product) -> Iterator[Crop]:
    product.counts.update(stored.counts)
    note_lost_frames(given.segment, product)
    return cut_stored_faces(store, (given.faces, stored), given.segment.video)


def embed_crops(crops: Iterator[Crop], backbone: FeatureExtractor, dataset: Dataset) -> Iterator[pa.Table]:
    """Yield rows of ``face_features`` of faces (frame, rank in the frame, crop), in batches."""
    batch: list[Crop] = []
    for frame, rank, crop in crops:
        # A view would keep all frames of its chunk in memory.
        batch.append((frame, rank, crop.copy()))
        if len(batch) == batch_frames():
            yield _embed_batch(batch, backbone, dataset)
            batch = []
    if batch:
        yield _embed_batch(batch, backbone, dataset)


def _embed_batch(batch: Sequence[Crop], backbone: FeatureExtractor, dataset: Dataset) -> pa.Table:
    frames, ranks, crops = zip(*batch, strict=True)
    return other_features_table(dataset, frames, ranks, *backbone.extract(crops))


def embedded_segments(store: Store, units: Sequence[Unit[EmbedSegmentArgs]]) -> Mapping[str, Sequence[StoredUnit]]:
    """Return video -> its units among the planned ones, in order, of videos all of whose units exist as planned."""
    if not units:
        return {}
    place = units[0].key
    known = store.manifests("face_features", backbone=place.value("backbone"), source=place.value("source"))
    found: dict[str, list[StoredUnit]] = {}
    lost = set()
    for unit in units:
        manifest = known.get(unit.key)
        if manifest is None or manifest.fingerprint != unit.fingerprint:
            lost.add(unit.key.value("video"))
        else:
            found.setdefault(unit.key.value("video"), []).append((unit.key, manifest))
    return {video: parts for video, parts in found.items() if video not in lost}
