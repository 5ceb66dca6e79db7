"""Stage ``embed_faces``: compute embeddings and logits of one backbone for each frame of a subject."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.details.datasets import FacesDetails, FeaturesDetails, SubjectsDetails
from data_contracts.schemas.dataset import Dataset
from data_contracts.schemas.features import features_dataset
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND, NO_FACE, UNREADABLE_CROP
from models.backbones.extractor import FeatureExtractor
from models.faces.crops import decode_jpeg
from tasks.backbones import FEATURES_VERSION, BackboneChoice
from tasks.read_ahead import read_ahead, uses_gpu
from tasks.units import Product, Unit
from tasks.worker_models import get_backbone

CODE_VERSION = FEATURES_VERSION
_BATCH_FRAMES, _BATCH_FRAMES_GPU = 64, 256


@dataclass(frozen=True)
class SubjectFaces:
    """Units with the faces of one subject, in order, and the unit of ``subjects`` that selects them.

    ``chosen_by`` is None for the organisers' crops, whose units hold one subject each.
    """

    subject: str
    segments: Sequence[StoredUnit]
    chosen_by: StoredUnit | None

    @property
    def video(self) -> str:
        """Stem of the video that the subject is in."""
        return self.segments[0].key.value("video")


def subjects_of_source(store: Store, source: str) -> list[SubjectFaces]:
    """Return all subjects of a faces variant whose faces are complete and, if detected, assigned to subjects."""
    segments: dict[str, list[StoredUnit]] = {}
    found = []
    for key, manifest in store.manifests("faces", source=source).items():
        subject = FacesDetails.of(manifest).subject
        if subject is not None:
            found.append(SubjectFaces(subject, [StoredUnit(key, manifest)], None))
        else:
            segments.setdefault(key.value("video"), []).append(StoredUnit(key, manifest))
    for key, manifest in store.manifests("subjects", source=source).items():
        parts, details = segments.get(key.value("video"), []), SubjectsDetails.of(manifest)
        if details.segments in (None, len(parts)):
            found += [SubjectFaces(name, parts, StoredUnit(key, manifest)) for name in details.subjects]
    return sorted(found, key=lambda faces: faces.subject)


@dataclass(frozen=True)
class EmbedFacesArgs:
    """A unit of ``faces``, the unit of ``subjects`` that selects from it (None: every face), and the backbone."""

    faces: StoredUnit
    chosen_by: StoredUnit | None
    backbone: BackboneChoice


def plan_embed_faces(
    subjects: Sequence[SubjectFaces], *, source: str, backbone: BackboneChoice
) -> list[Unit[EmbedFacesArgs]]:
    """Plan one unit per subject and segment."""
    backbone_fingerprint, variant = backbone.fingerprint(), backbone.variant
    units = []
    for faces in subjects:
        chosen = faces.chosen_by.manifest.identity if faces.chosen_by else None
        for segment in faces.segments:
            part = "00000" if faces.chosen_by is None else segment.key.part
            unit_fingerprint = fingerprint(
                stage="embed_faces",
                version=CODE_VERSION,
                faces=segment.manifest.identity,
                subject=faces.subject,
                chosen=chosen,
                backbone=backbone_fingerprint,
            )
            place = (("backbone", variant), ("source", source), ("subject", faces.subject))
            arguments = EmbedFacesArgs(segment, faces.chosen_by, backbone)
            units.append(
                Unit(UnitKey("features", place, part), unit_fingerprint, arguments, input_files=backbone.input_files)
            )
    return units


def compute(store: Store, unit: Unit[EmbedFacesArgs]) -> Product:
    """Compute the features of one subject in one segment, in batches. Unreadable crops are counted as problems."""
    # Crops that could not be opened are tried again by the unit that reads them.
    faces = replace(FacesDetails.of(unit.arguments.faces.manifest), has_unread_files=False)
    backbone, product = open_backbone(unit.arguments.backbone, features_dataset, faces=faces)
    product.tables = _tables(store, unit, backbone, product)
    return product


def open_backbone(
    choice: BackboneChoice, dataset_of: Callable[[int, tuple[str, ...]], Dataset], *, faces: FacesDetails | None = None
) -> tuple[FeatureExtractor, Product]:
    """Return a network, and the product that receives its features.

    Args:
        choice: the network.
        dataset_of: returns the dataset for the size of an embedding and the names of the classes.
        faces: details of the unit of ``faces`` that is embedded; None if the product needs no details.
    """
    backbone = get_backbone(choice.name, choice.weights, choice.precision)
    product = Product(dataset_of(backbone.spec.embedding_size, tuple(backbone.spec.class_names)), [])
    if faces is not None:
        product.details = FeaturesDetails(
            **vars(faces),
            backbone_name=choice.name,
            weights=choice.weights,
            precision=choice.precision,
            engine=backbone.engine,
            published_scores=backbone.spec.published_scores,
            class_names=tuple(backbone.spec.class_names),
        )
    return backbone, product


def batch_frames() -> int:
    """Return how many faces are embedded at a time."""
    return _BATCH_FRAMES_GPU if uses_gpu() else _BATCH_FRAMES


def _tables(
    store: Store, unit: Unit[EmbedFacesArgs], backbone: FeatureExtractor, product: Product
) -> Iterator[pa.Table]:
    with read_ahead(_decoded_batches(store, unit, product)) as batches:
        for numbers, images in batches:
            has_face = np.array([image is not None for image in images])
            shown = [image for image in images if image is not None]
            embeddings = np.zeros((len(images), backbone.spec.embedding_size), np.float16)
            logits = np.zeros((len(images), len(backbone.spec.class_names)), np.float32)
            if shown:
                embeddings[has_face], logits[has_face] = backbone.extract(shown)
            yield features_table(product.dataset, np.asarray(numbers), has_face, embeddings, logits)


def _decoded_batches(
    store: Store, unit: Unit[EmbedFacesArgs], product: Product
) -> Iterator[tuple[list[int], list[np.ndarray | None]]]:
    """Yield batches of (frame numbers, RGB uint8 [h, w, 3] or None), and count missing and unreadable crops."""
    for numbers, crops in _crop_batches(store, unit):
        images: list[np.ndarray | None] = []
        for number, crop in zip(numbers, crops, strict=True):
            image, status = None, NO_FACE
            if crop is not None:
                try:
                    image, status = decode_jpeg(crop), FACE_FOUND
                except ValueError as error:
                    status = UNREADABLE_CROP
                    where = f"crop {unit.key.value('subject')}/{number:05d}.jpg"
                    product.problems.append(f"{where}: {error}; the frame counts as one without a face")
            product.counts[status] += 1
            images.append(image)
        yield numbers, images


def features_table(
    dataset: Dataset, numbers: np.ndarray, has_face: np.ndarray, embeddings: np.ndarray, logits: np.ndarray
) -> pa.Table:
    """Return rows of ``features``: frame numbers [n], whether they show a face, and their vectors, null where not."""
    columns = [pa.array(numbers.astype(np.int32)), pa.array(has_face)]
    columns += vector_arrays(dataset, embeddings, logits, missing=pa.array(~has_face))
    return pa.Table.from_arrays(columns, schema=dataset.schema)


def face_rows(
    dataset: Dataset, places: Sequence[int | str], ranks: Sequence[int], embeddings: np.ndarray, logits: np.ndarray
) -> pa.Table:
    """Return rows of features, one per face: its frame number or image, its rank there, and vectors [n, D], [n, C]."""
    keys = zip((places, ranks), dataset.schema.types[:2], strict=True)
    columns = [pa.array(values, kind) for values, kind in keys]
    return pa.Table.from_arrays([*columns, *vector_arrays(dataset, embeddings, logits)], schema=dataset.schema)


def vector_arrays(
    dataset: Dataset, embeddings: np.ndarray, logits: np.ndarray, *, missing: pa.Array | None = None
) -> list[pa.Array]:
    """Return the columns of embeddings [n, D] and logits [n, C], if the dataset has them.

    ``missing``: which rows are null, bool [n].
    """

    def vectors(name: str, values: np.ndarray) -> pa.Array:
        field = dataset.schema.field(name)
        flat = pa.array(values.reshape(-1).astype(field.type.value_type.to_pandas_dtype(), copy=False))
        return pa.FixedSizeListArray.from_arrays(flat, type=field.type, mask=missing)

    has_logits = "logits" in dataset.schema.names
    return [vectors("embedding", embeddings), *([vectors("logits", logits)] if has_logits else [])]


def _crop_batches(store: Store, unit: Unit[EmbedFacesArgs]) -> Iterator[tuple[list[int], list[bytes | None]]]:
    """Yield batches of (frame numbers, JPEG bytes or None) with every frame of the segment once, in order."""
    key, manifest = unit.arguments.faces
    chosen = _chosen_faces(store, unit)
    details = FacesDetails.of(manifest)
    first, count = details.first_frame, details.frame_count
    numbers: list[int] = []
    crops: list[bytes | None] = []
    expected, most = first, batch_frames()
    for batch in store.iter_unit(key, manifest, columns=["frame", "face", "status", "crop_jpeg"]):
        for frame, face, status, crop in zip(*(batch.column(i) for i in range(4)), strict=True):
            number = frame.as_py()
            is_subjects = status.as_py() == FACE_FOUND and (chosen is None or chosen.get(number) == face.as_py())
            if number == expected:
                numbers.append(number)
                crops.append(None)
                expected += 1
            if is_subjects:
                crops[-1] = crop.as_py()
            if len(numbers) > most:
                yield numbers[:-1], crops[:-1]
                numbers, crops = numbers[-1:], crops[-1:]
    if expected != first + count:
        raise store.distrust_unit(key, f"expected rows of frames {first}..{first + count - 1}, got to {expected - 1}")
    if numbers:
        yield numbers, crops


def _chosen_faces(store: Store, unit: Unit[EmbedFacesArgs]) -> Mapping[int, int] | None:
    """Return the rank of the subject's face in each frame (frame -> rank); None if all faces are the subject's."""
    if unit.arguments.chosen_by is None:
        return None
    key, manifest = unit.arguments.chosen_by
    table = store.read_unit(key, manifest, columns=["frame", "face", "subject"])
    mine = table.filter(pc.equal(table["subject"], unit.key.value("subject")))
    return dict(zip(mine["frame"].to_pylist(), mine["face"].to_pylist(), strict=True))
