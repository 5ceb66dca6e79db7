"""Stage ``identify_persons``: join the tracks of each video to persons."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.details.datasets import PersonsDetails
from data_contracts.schemas.faces import BOX_NAMES, PERSONS
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import StoredUnit, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.backbones.registry import DEFAULT_BACKBONE
from models.faces.persons import MergingParams, identify_persons
from tasks.backbones import BackboneChoice
from tasks.extract.crop_faces import has_crops, read_faces
from tasks.extract.embed_faces import SubjectFaces, batch_frames
from tasks.extract.embed_segments import find_face_features
from tasks.extract.index_videos import IndexedVideo, indexed_videos
from tasks.units import Product, Unit
from tasks.worker_models import get_backbone

CODE_VERSION = 1
# The bundled backbone compares faces, whatever backbone computes the features: the threshold is measured for it, and
# persons do not change with the heads.
COMPARING = BackboneChoice(DEFAULT_BACKBONE)


@dataclass(frozen=True)
class IdentifyPersonsArgs:
    """The segments of a video in order, the unit of ``subjects`` with its tracks, and how tracks are joined.

    Without stored crops, faces are compared by ``vectors``: the units of ``face_features`` of the comparing backbone.
    If these do not exist either, faces are cut out of the ``video`` again.
    """

    segments: Sequence[StoredUnit]
    tracks: StoredUnit
    params: MergingParams
    vectors: Sequence[StoredUnit] = ()
    video: IndexedVideo | None = None


def plan_identify_persons(
    store: Store, subjects: Sequence[SubjectFaces], *, source: str
) -> list[Unit[IdentifyPersonsArgs]]:
    """Plan one unit per video with these subjects."""
    params, comparing = MergingParams(), COMPARING.fingerprint()
    without_crops = [one for faces in subjects for one in faces.segments if not has_crops(one.manifest)]
    vectors = find_face_features(store, without_crops, COMPARING)
    videos = indexed_videos(store) if without_crops else {}
    units = {}
    for faces in subjects:
        assert faces.chosen_by is not None
        unit_fingerprint = fingerprint(
            stage="identify_persons",
            version=CODE_VERSION,
            faces=[manifest.identity for _, manifest in faces.segments],
            tracks=faces.chosen_by.manifest.identity,
            params=params,
            comparing=comparing,
        )
        key = UnitKey("persons", (("source", source), ("video", faces.video)))
        known = [vectors[one.key] for one in faces.segments if one.key in vectors]
        is_known = len(known) == len(faces.segments)
        arguments = IdentifyPersonsArgs(
            faces.segments, faces.chosen_by, params, known if is_known else (), videos.get(faces.video)
        )
        units[faces.video] = Unit(key, unit_fingerprint, arguments)
    return list(units.values())


def compute(store: Store, unit: Unit[IdentifyPersonsArgs]) -> Product:
    """Join the tracks of one video to persons. Crops are read only if position allows to join some.

    Raises:
        InputError: the tracks are not those of the faces.
    """
    given = unit.arguments
    columns = ["frame", "face", "status", *BOX_NAMES]
    faces = pa.concat_tables(store.read_unit(key, m, columns=columns) for key, m in given.segments)
    faces = faces.filter(pc.equal(faces["status"], FACE_FOUND))
    tracks = store.read_unit(*given.tracks, columns=["frame", "face", "track"])
    if not (faces["frame"].equals(tracks["frame"]) and faces["face"].equals(tracks["face"])):
        raise store.distrust_unit(given.tracks.key, "expected a track of every face of the video, got others")
    frame = faces["frame"].to_numpy()
    box_xyxy_px = np.stack([faces[name].to_numpy() for name in BOX_NAMES], axis=1).reshape(-1, 4)

    def embed(rows: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]:
        if given.vectors:
            return _read_rows(store, given.vectors, rows)
        wanted = zip(*(faces[name].take(rows).to_pylist() for name in ("frame", "face")), strict=True)
        return _embed_crops(store, given, dict(zip(wanted, rows.tolist(), strict=True)))

    person, counts = identify_persons(frame, box_xyxy_px, tracks["track"].to_numpy(), embed=embed, params=given.params)
    table = pa.table({"frame": faces["frame"], "face": faces["face"], "person": pa.array(person, pa.int32())})
    details = PersonsDetails(persons=counts["persons"], compared_with=COMPARING.variant)
    product = Product(PERSONS, [table], details=details)
    product.counts.update(counts)
    return product


_Rows = Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]


def _read_rows(store: Store, vectors: Sequence[StoredUnit], rows: NDArray[np.intp]) -> _Rows:
    """Yield batches of (rows, embeddings). Rows count the faces of all segments."""
    first = 0
    for key, manifest in vectors:
        for batch in store.iter_unit(key, manifest, columns=["embedding"]) if manifest.rows else ():
            mine = rows[(rows >= first) & (rows < first + len(batch))]
            if len(mine):
                column = batch.column("embedding").take(pa.array(mine - first))
                yield mine, column.flatten().to_numpy().reshape(len(mine), -1).astype(np.float32)
            first += len(batch)


def _embed_crops(store: Store, given: IdentifyPersonsArgs, row_of: Mapping[tuple[int, int], int]) -> _Rows:
    """Yield the same with crops: stored ones, or out of the video again. ``row_of``: (frame, rank) -> row."""
    backbone = get_backbone(COMPARING.name, COMPARING.weights, COMPARING.precision)
    crops = (one for faces in given.segments for one in read_faces(store, faces, given.video, wanted=row_of.keys()))
    while batch := list(itertools.islice(crops, batch_frames())):
        embeddings, _ = backbone.extract([crop for _, _, crop in batch])
        if given.video:
            # Stored features give the same persons.
            embeddings = embeddings.astype(np.float16).astype(np.float32)
        yield np.array([row_of[frame, rank] for frame, rank, _ in batch]), embeddings
