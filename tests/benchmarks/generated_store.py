"""A store with features of many subjects with few frames each, equal to the store that the stages would write.

The stages plan the units and the store writes them. Only the values are generated, so that this takes seconds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.details.datasets import FacesDetails, FeaturesDetails, SubjectsDetails, VideoDetails
from data_contracts.details.records import Details
from data_contracts.files.inputs import file_state
from data_contracts.schemas.dataset import Dataset
from data_contracts.schemas.faces import FACES, FRAMES, SUBJECTS, VIDEOS
from data_contracts.schemas.features import features_dataset
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.registry import get_spec
from models.faces.tracking import TrackingParams
from tasks.backbones import BackboneChoice
from tasks.extract import assign_subjects, crop_faces, embed_faces, index_videos
from tasks.units import Product, Unit, write_product

FRAMES_PER_VIDEO = 4
_BOX = {"x1": 10.0, "y1": 10.0, "x2": 90.0, "y2": 100.0}


def make_videos(folder: Path, count: int) -> dict[str, Path]:
    """Write files that are listed as videos but never opened; return them by stem."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"video{number:04d}": folder / f"video{number:04d}.mp4" for number in range(1, count + 1)}
    for stem, path in files.items():
        path.write_text(stem)
    return files


def fill_store(store: Store, videos: Mapping[str, Path], *, backbone: BackboneChoice) -> None:
    """Write all datasets of ``extract`` for the videos, from the index to the features."""
    params = crop_faces.CropParams()
    source = crop_faces.source_of(params)
    for unit in index_videos.plan_index_videos(videos):
        _write_index(store, unit)
    faces = crop_faces.plan_crop_faces(index_videos.indexed_videos(store), params=params)
    for unit in faces:
        details = FacesDetails(first_frame=1, frame_count=FRAMES_PER_VIDEO)
        faces_columns = {
            "frame": _frame_numbers(),
            "face": [0] * FRAMES_PER_VIDEO,
            "status": [FACE_FOUND] * FRAMES_PER_VIDEO,
        }
        faces_columns |= {f"box_{edge}_px": [place] * FRAMES_PER_VIDEO for edge, place in _BOX.items()}
        faces_columns |= {"landmarks_xy_px": [[50.0] * 10] * FRAMES_PER_VIDEO, "probability": [1.0] * FRAMES_PER_VIDEO}
        _write(store, unit, FACES, faces_columns, details)
    cropped = crop_faces.cropped_videos(store, faces)
    for unit in assign_subjects.plan_assign_subjects(cropped, source=source, subjects={}, params=TrackingParams()):
        details = SubjectsDetails(subjects=unit.arguments.subjects, segments=1)
        (name,) = unit.arguments.subjects
        tracks = {"frame": _frame_numbers(), "face": [0] * FRAMES_PER_VIDEO, "subject": [name] * FRAMES_PER_VIDEO}
        _write(store, unit, SUBJECTS, tracks, details)
    subjects = embed_faces.subjects_of_source(store, source)
    spec = get_spec(backbone.name)
    dataset = features_dataset(spec.embedding_size, tuple(spec.class_names))
    for unit in embed_faces.plan_embed_faces(subjects, source=source, backbone=backbone):
        vectors = {"embedding": (spec.embedding_size, np.float16), "logits": (len(spec.class_names), np.float32)}
        columns = {name: list(np.ones((FRAMES_PER_VIDEO, size), kind)) for name, (size, kind) in vectors.items()}
        columns |= {"frame": _frame_numbers(), "has_face": [True] * FRAMES_PER_VIDEO}
        faces = FacesDetails.of(unit.arguments.faces[1])
        details = FeaturesDetails(**vars(faces), backbone_name=backbone.name, weights=backbone.weights)
        _write(store, unit, dataset, columns, details)


def _write_index(store: Store, unit: Unit) -> None:
    path = Path(unit.arguments.path)
    frames = {
        "frame": _frame_numbers(),
        "pts_seconds": [n / 25 for n in _frame_numbers()],
        "keyframe": [True] * FRAMES_PER_VIDEO,
    }
    _write(store, Unit(*unit.companions[0], None), FRAMES, frames, Details())
    details = VideoDetails(
        path=str(path),
        frame_count=FRAMES_PER_VIDEO,
        file_state=file_state(path),
        width_px=320,
    )
    _write(store, unit, VIDEOS, {"path": [str(path)], "frame_count": [FRAMES_PER_VIDEO]}, details)


def _frame_numbers() -> list[int]:
    return list(range(1, FRAMES_PER_VIDEO + 1))


def _write(store: Store, unit: Unit, dataset: Dataset, columns: Mapping[str, Sequence[Any]], details: Details) -> None:
    rows = len(next(iter(columns.values())))
    others = {field.name: _empty_value(field) for field in dataset.schema if field.name not in columns}
    arrays = [pa.array(columns.get(f.name, [others.get(f.name)] * rows), f.type) for f in dataset.schema]
    table = pa.Table.from_arrays(arrays, schema=dataset.schema)
    product = Product(dataset, [table], details=details)
    if dataset.name in ("faces", "features"):
        product.counts[FACE_FOUND] = rows
    write_product(store, unit.key, product, fingerprint=unit.fingerprint, started=0.0)


def _empty_value(field: pa.Field) -> Any:
    if field.nullable:
        return None
    return "" if pa.types.is_string(field.type) else 0
