"""The stored faces of a video: whose they are, and strips of their thumbnails."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from data_contracts.schemas.faces import BOX_NAMES
from data_contracts.store.manifest import StoredUnit
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND
from models.faces.crops import encode_jpeg
from tasks.extract.crop_faces import read_faces
from tasks.extract.index_videos import IndexedVideo
from tasks.pages.timeline import PersonTimeline, Timeline

TILE_PX = 48
_MOST_OF_PERSON, _MOST_OF_VIDEO, _FEWEST = 96, 960, 4
# Subjects whose faces a person shares to this extent are the same person.
_SAME_FACES = 0.5


@dataclass(frozen=True, eq=False)
class StoredFaces:
    """The faces of a video in the store, one per row, ordered by frame.

    Attributes:
        units: the units that the faces are in.
        frame, rank: int ``[n]``, frame of each face, and its rank in the frame.
        boxes_px: float32 ``[n, 4]``; NaN for the organisers' crops.
        subjects: name of the subject whose face it is, or None.
    """

    units: Sequence[StoredUnit]
    frame: NDArray[np.integer]
    rank: NDArray[np.integer]
    boxes_px: NDArray[np.float32]
    subjects: Sequence[str | None]


@dataclass(frozen=True, eq=False)
class Strip:
    """Thumbnails of a person side by side in one JPEG, ``TILE_PX`` high; ``frames``: number of each one's frame."""

    frames: Sequence[int]
    jpeg: bytes


def read_stored_faces(store: Store, video: str, *, source: str | None) -> StoredFaces | None:
    """Return the faces of a video of one source; None if there are none. Without a source, the first one counts."""
    units = store.manifests("faces")
    names = sorted({key.value("source") for key in units if key.value("video") == video})
    if not names:
        return None
    chosen = source if source in names else names[0]
    place = {("video", video), ("source", chosen)}
    mine = [StoredUnit(key, one) for key, one in units.items() if place <= set(key.partitions)]
    columns = ["frame", "face", "status", "subject", *BOX_NAMES]
    faces = pa.concat_tables(store.read_unit(*one, columns=columns) for one in mine)
    faces = faces.filter(pc.equal(faces["status"], FACE_FOUND))
    frame, face = faces["frame"].to_numpy(), faces["face"].fill_null(-1).to_numpy()
    named = _subjects_by_face(store, video, chosen)
    subjects = faces["subject"].to_pylist()
    return StoredFaces(
        mine,
        frame,
        face,
        np.stack([faces[name].fill_null(float("nan")).to_numpy() for name in BOX_NAMES], axis=1).astype(np.float32),
        [
            known or named.get((one, rank))
            for known, one, rank in zip(subjects, frame.tolist(), face.tolist(), strict=True)
        ],
    )


def _subjects_by_face(store: Store, video: str, source: str) -> dict[tuple[int, int], str]:
    named: dict[tuple[int, int], str] = {}
    for key, manifest in store.manifests("subjects", source=source, video=video).items():
        table = store.read_unit(key, manifest, columns=["frame", "face", "subject"])
        table = table.filter(pc.is_valid(table["subject"]))
        columns = (table[name].to_pylist() for name in ("frame", "face", "subject"))
        named |= {(frame, face): subject for frame, face, subject in zip(*columns, strict=True)}
    return named


def assign_faces(timeline: Timeline, faces: StoredFaces) -> tuple[Timeline, dict[int, NDArray[np.intp]]]:
    """Find the faces of each person by box or subject.

    Returns:
        (the timeline with the boxes and subjects of persons, person -> row in ``faces`` for each frame, -1 without one)
    """
    places = {
        (frame, box[0], box[1]): row
        for row, (frame, box) in enumerate(zip(faces.frame.tolist(), faces.boxes_px.tolist(), strict=True))
    }
    of_subject: dict[str, list[int]] = {}
    for row, subject in enumerate(faces.subjects):
        if subject is not None:
            of_subject.setdefault(subject, []).append(row)
    persons, rows_of = [], {}
    for person in timeline.persons:
        rows = np.full(len(person.has_face), -1, np.intp)
        if person.subject in of_subject:
            mine = np.array(of_subject[person.subject])
            at = faces.frame[mine] - person.first_frame
            inside = (at >= 0) & (at < len(rows))
            rows[at[inside]] = mine[inside]
            boxes = np.where(rows[:, None] >= 0, faces.boxes_px[rows], np.nan).astype(np.float32)
            person = replace(person, boxes_px=boxes)
        else:
            keys = zip(person.frames.tolist(), person.boxes_px.tolist(), strict=True)
            rows = np.array([places.get((frame, box[0], box[1]), -1) for frame, box in keys], np.intp)
        counts = Counter(faces.subjects[row] for row in rows.tolist() if row >= 0)
        subject, most = counts.most_common(1)[0] if counts else (None, 0)
        if subject is not None and most >= _SAME_FACES * counts.total():
            person = replace(person, subject=subject)
        rows_of[person.number] = rows
        persons.append(person)
    return replace(timeline, persons=persons), rows_of


def make_strips(
    store: Store,
    faces: StoredFaces,
    persons: Sequence[PersonTimeline],
    rows_of: Mapping[int, NDArray[np.intp]],
    *,
    video: IndexedVideo | None,
) -> dict[int, Strip]:
    """Return the strip of each person that has faces: thumbnails at even distances in time.

    Without stored crops, they are cut out of the video.

    Raises:
        InputError: the crops are not stored, and the video is gone or has changed.
    """
    most = max(_FEWEST, min(_MOST_OF_PERSON, _MOST_OF_VIDEO // max(1, len(persons))))
    chosen: dict[int, list[int]] = {}
    for person in persons:
        rows = rows_of[person.number]
        known = np.flatnonzero(rows >= 0)
        if len(known):
            wanted = np.linspace(0, len(rows) - 1, num=most)
            nearest = known[np.abs(known[None, :] - wanted[:, None]).argmin(axis=1)]
            chosen[person.number] = rows[np.unique(nearest)].tolist()
    shown = sorted({row for rows in chosen.values() for row in rows})
    row_of = {(int(faces.frame[row]), int(faces.rank[row])): row for row in shown}
    tiles = {
        row_of[frame, rank]: _to_tile(crop)
        for unit in faces.units
        for frame, rank, crop in read_faces(store, unit, video, wanted=row_of.keys())
    }
    strips = {}
    for number, wanted_rows in chosen.items():
        decoded = [row for row in wanted_rows if row in tiles]
        if decoded:
            jpeg = encode_jpeg(np.concatenate([tiles[row] for row in decoded], axis=1), quality=80)
            strips[number] = Strip([int(faces.frame[row]) for row in decoded], jpeg)
    return strips


def _to_tile(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest square in the middle of an image, as a thumbnail."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(square.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS))
