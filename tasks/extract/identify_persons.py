"""Stage ``identify_persons``: join the tracks of each video to persons."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.details.datasets import PersonsDetails
from data_contracts.schemas.faces import BOX, PERSONS
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.registry import DEFAULT_BACKBONE
from models.faces.crops import decode_jpeg
from models.faces.persons import MergingParams, identify_persons
from tasks.extract.embed_faces import BackboneChoice, SubjectFaces, batch_frames
from tasks.extract.embed_other_faces import read_crops
from tasks.units import Product, Unit
from tasks.worker_models import get_backbone

CODE_VERSION = 1
# The bundled backbone compares faces, whatever backbone computes the features: the threshold is measured for it, and
# persons do not change with the heads.
COMPARING = BackboneChoice(DEFAULT_BACKBONE)


@dataclass(frozen=True)
class IdentifyPersonsArgs:
    """The segments of a video in order, the unit of ``subjects`` with its tracks, and how tracks are joined."""

    segments: Sequence[tuple[UnitKey, Manifest]]
    tracks: tuple[UnitKey, Manifest]
    params: MergingParams


def plan_identify_persons(
    subjects: Sequence[SubjectFaces], *, source: str, params: MergingParams | None = None
) -> list[Unit[IdentifyPersonsArgs]]:
    """Plan one unit per video with these subjects."""
    params = params or MergingParams()
    comparing = COMPARING.fingerprint()
    units = {}
    for faces in subjects:
        assert faces.chosen_by is not None
        unit_fingerprint = fingerprint(
            stage="identify_persons",
            version=CODE_VERSION,
            faces=[manifest.identity for _, manifest in faces.segments],
            tracks=faces.chosen_by[1].identity,
            params=params,
            comparing=comparing,
        )
        key = UnitKey("persons", (("source", source), ("video", faces.video)))
        arguments = IdentifyPersonsArgs(faces.segments, faces.chosen_by, params)
        units[faces.video] = Unit(key, unit_fingerprint, arguments)
    return list(units.values())


def compute(store: Store, unit: Unit[IdentifyPersonsArgs]) -> Product:
    """Join the tracks of one video to persons. Crops are read only if position allows to join some.

    Raises:
        InputError: the tracks are not those of the faces.
    """
    given = unit.arguments
    columns = ["frame", "face", "status", *(column.name for column in BOX)]
    faces = pa.concat_tables(store.read_unit(key, m, columns=columns) for key, m in given.segments)
    faces = faces.filter(pc.equal(faces["status"], FACE_FOUND))
    tracks = store.read_unit(*given.tracks, columns=["frame", "face", "track"])
    if not (faces["frame"].equals(tracks["frame"]) and faces["face"].equals(tracks["face"])):
        raise store.distrust_unit(given.tracks[0], "expected a track of every face of the video, got others")
    frame = faces["frame"].to_numpy()
    box_xyxy_px = np.stack([faces[column.name].to_numpy() for column in BOX], axis=1).reshape(-1, 4)

    def embed(rows: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]:
        return _embed_rows(store, given.segments, rows)

    person, counts = identify_persons(frame, box_xyxy_px, tracks["track"].to_numpy(), embed=embed, params=given.params)
    table = pa.table({"frame": faces["frame"], "face": faces["face"], "person": pa.array(person, pa.int32())})
    details = PersonsDetails(persons=counts["persons"], compared_with=COMPARING.variant)
    product = Product(PERSONS, [table], details=details)
    product.counts.update(counts)
    return product


def _embed_rows(
    store: Store, segments: Sequence[tuple[UnitKey, Manifest]], rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]:
    """Yield batches of (rows, embeddings). Rows count the faces of all segments; unreadable crops are left out."""
    backbone = get_backbone(COMPARING.name, COMPARING.weights, COMPARING.precision)
    wanted, first = set(rows.tolist()), 0
    places: list[int] = []
    images: list[np.ndarray] = []
    for segment in segments:
        count = segment[1].counts.get(FACE_FOUND, 0)
        if not wanted.isdisjoint(range(first, first + count)):
            for row, (_, _, crop) in enumerate(read_crops(store, segment), first):
                if row in wanted:
                    try:
                        images.append(decode_jpeg(crop))
                    except ValueError:
                        continue
                    places.append(row)
                    if len(images) == batch_frames():
                        yield np.array(places), backbone.extract(images)[0]
                        places, images = [], []
        first += count
    if images:
        yield np.array(places), backbone.extract(images)[0]
