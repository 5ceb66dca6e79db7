"""Stage ``embed_other_faces``: compute embeddings and logits of the faces in a video that are not a subject's."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.details.datasets import FacesDetails
from data_contracts.schemas.features import other_features_dataset
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, UNREADABLE_CROP
from models.backbones.extractor import FeatureExtractor
from models.faces.crops import decode_jpeg
from tasks.backbones import FEATURES_VERSION, BackboneChoice
from tasks.extract.embed_faces import SubjectFaces, batch_frames, face_rows, open_backbone
from tasks.read_ahead import read_ahead
from tasks.units import Product, Unit

CODE_VERSION = 1


@dataclass(frozen=True)
class EmbedOtherFacesArgs:
    """A unit of ``faces``, the unit of ``subjects`` that says which of them are other people's, and the backbone."""

    faces: StoredUnit
    chosen_by: StoredUnit
    backbone: BackboneChoice


def plan_embed_other_faces(
    store: Store, subjects: Sequence[SubjectFaces], *, source: str, backbone: BackboneChoice
) -> list[Unit[EmbedOtherFacesArgs]]:
    """Plan one unit per segment that has other faces. The features of all ``subjects`` must exist."""
    backbone_fingerprint, variant = backbone.fingerprint(), backbone.variant
    features = store.manifests("features", backbone=variant, source=source)
    embedded = Counter[tuple[str, str]]()
    by_video: dict[str, SubjectFaces] = {}
    for faces in subjects:
        by_video[faces.video] = faces
        for key, _ in faces.segments:
            place = (("backbone", variant), ("source", source), ("subject", faces.subject))
            counts = features[UnitKey("features", place, key.part)].counts
            embedded[faces.video, key.part] += counts.get(FACE_FOUND, 0) + counts.get(UNREADABLE_CROP, 0)
    units = []
    for video, faces in by_video.items():
        assert faces.chosen_by is not None
        for segment in faces.segments:
            key, manifest = segment
            if manifest.counts.get(FACE_FOUND, 0) > embedded[video, key.part]:
                unit_fingerprint = fingerprint(
                    stage="embed_other_faces",
                    version=CODE_VERSION,
                    embed_faces=FEATURES_VERSION,
                    faces=manifest.identity,
                    chosen=faces.chosen_by.manifest.identity,
                    backbone=backbone_fingerprint,
                )
                place = (("backbone", variant), ("source", source), ("video", video))
                arguments = EmbedOtherFacesArgs(segment, faces.chosen_by, backbone)
                units.append(
                    Unit(
                        UnitKey("other_features", place, key.part),
                        unit_fingerprint,
                        arguments,
                        input_files=backbone.input_files,
                    )
                )
    return units


def compute(store: Store, unit: Unit[EmbedOtherFacesArgs]) -> Product:
    """Compute the features of the other faces of one segment, in batches. Unreadable crops are counted as problems."""
    backbone, product = open_backbone(
        unit.arguments.backbone, other_features_dataset, faces=FacesDetails.of(unit.arguments.faces.manifest)
    )
    product.tables = _tables(store, unit, backbone, product)
    return product


def _tables(
    store: Store, unit: Unit[EmbedOtherFacesArgs], backbone: FeatureExtractor, product: Product
) -> Iterator[pa.Table]:
    with read_ahead(_decoded_batches(store, unit, product)) as batches:
        for frames, ranks, images in batches:
            yield face_rows(product.dataset, frames, ranks, *backbone.extract(images))


def _decoded_batches(
    store: Store, unit: Unit[EmbedOtherFacesArgs], product: Product
) -> Iterator[tuple[list[int], list[int], list[np.ndarray]]]:
    """Yield batches of (frame numbers, ranks in the frame, RGB uint8 [h, w, 3]), and count unreadable crops."""
    frames: list[int] = []
    ranks: list[int] = []
    images: list[np.ndarray] = []
    wanted = _other_faces(store, unit)
    for frame, face, crop in _read_crops(store, unit.arguments.faces):
        if (frame, face) not in wanted:
            continue
        try:
            images.append(decode_jpeg(crop))
            frames.append(frame)
            ranks.append(face)
            product.counts[FACE_FOUND] += 1
        except ValueError as error:
            product.counts[UNREADABLE_CROP] += 1
            product.problems.append(f"crop of face {face} in frame {frame}: {error}; its person has no face there")
        if len(images) == batch_frames():
            yield frames, ranks, images
            frames, ranks, images = [], [], []
    if images:
        yield frames, ranks, images


def _other_faces(store: Store, unit: Unit[EmbedOtherFacesArgs]) -> set[tuple[int, int]]:
    key, manifest = unit.arguments.chosen_by
    table = store.read_unit(key, manifest, columns=["frame", "face", "subject"])
    details = FacesDetails.of(unit.arguments.faces.manifest)
    in_segment = pc.and_(
        pc.greater_equal(table["frame"], details.first_frame),
        pc.less(table["frame"], details.first_frame + details.frame_count),
    )
    others = table.filter(pc.and_(in_segment, pc.is_null(table["subject"])))
    return set(zip(others["frame"].to_pylist(), others["face"].to_pylist(), strict=True))


def _read_crops(store: Store, faces: StoredUnit) -> Iterator[tuple[int, int, bytes]]:
    """Yield (frame, rank in the frame, JPEG bytes) of each face of a unit of ``faces``, in order."""
    for batch in store.iter_unit(*faces, columns=["frame", "face", "status", "crop_jpeg"]):
        for frame, face, status, crop in zip(*(batch.column(i) for i in range(4)), strict=True):
            if status.as_py() == FACE_FOUND:
                yield frame.as_py(), face.as_py(), crop.as_py()
