"""Stage ``assign_subjects``: assign the faces in each video to its subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.details.datasets import SubjectsDetails
from data_contracts.schemas.faces import BOX_NAMES, SUBJECTS
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.faces.subjects import assign_subjects
from models.faces.tracking import TrackingParams, track_faces
from tasks.extract.crop_faces import CroppedVideo
from tasks.units import Product, Unit

CODE_VERSION = 3


@dataclass(frozen=True)
class AssignSubjectsArgs:
    """The segments of a video in order, its subjects (left first), and how faces become tracks."""

    segments: list[StoredUnit]
    subjects: tuple[str, ...]
    params: TrackingParams
    frame_width_px: int


def plan_assign_subjects(
    cropped: Sequence[CroppedVideo], *, source: str, subjects: Mapping[str, Sequence[str]], params: TrackingParams
) -> list[Unit[AssignSubjectsArgs]]:
    """Plan one unit per video. All segments of the videos must exist.

    ``subjects`` names the subjects of videos with more than one (left first). Other videos have one, the stem.
    """
    units = []
    for video in cropped:
        names = tuple(subjects.get(video.stem, (video.stem,)))
        identities = [manifest.identity for _, manifest in video.segments]
        unit_fingerprint = fingerprint(
            stage="assign_subjects",
            version=CODE_VERSION,
            faces=identities,
            subjects=names,
            params=params,
            frame_width_px=video.width_px,
        )
        key = UnitKey("subjects", (("source", source), ("video", video.stem)))
        arguments = AssignSubjectsArgs(video.segments, names, params, video.width_px)
        units.append(Unit(key, unit_fingerprint, arguments))
    return units


def compute(store: Store, unit: Unit[AssignSubjectsArgs]) -> Product:
    """Track the faces of one video and assign the tracks to its subjects."""
    names = unit.arguments.subjects
    columns = ["frame", "face", "status", "probability", *BOX_NAMES]
    tables = [store.read_unit(key, m, columns=columns) for key, m in unit.arguments.segments]
    faces = pa.concat_tables(tables)
    faces = faces.filter(pc.equal(faces["status"], FACE_FOUND))
    frame = faces["frame"].to_numpy()
    box_xyxy_px = np.stack([faces[name].to_numpy() for name in BOX_NAMES], axis=1).reshape(-1, 4)
    track = track_faces(frame, box_xyxy_px, params=unit.arguments.params)
    assigned, summary = assign_subjects(
        frame,
        box_xyxy_px,
        faces["probability"].to_numpy(),
        track,
        subject_count=len(names),
        frame_width_px=unit.arguments.frame_width_px,
    )
    table = pa.table(
        {
            "frame": faces["frame"],
            "face": faces["face"],
            "track": pa.array(track.astype(np.int32)),
            "subject": pa.array([names[index] if index >= 0 else None for index in assigned.tolist()], pa.string()),
        }
    )
    product = Product(SUBJECTS, [table], details=SubjectsDetails(subjects=names, segments=len(tables)))
    product.counts.update(summary)
    return product
