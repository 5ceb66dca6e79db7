"""Where the faces in predictions are: boxes, landmarks, detection probabilities and sizes, read from the store."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.schemas.faces import BOX_NAMES, FACE_COLUMNS, LANDMARK_COLUMNS
from data_contracts.store.store import Store
from data_contracts.vocabulary import FACE_FOUND


def read_subject_faces(store: Store, *, source: str, subject: str, has_face: NDArray[np.bool_]) -> dict[str, pa.Array]:
    """Return ``FACE_COLUMNS`` of the only subject of a video, one row per frame; null where ``has_face`` [T] is false.

    All values are null if the store has no such faces any more.
    """
    rows = np.full(len(has_face), -1)
    faces = read_faces(store, source=source, video=subject)
    for key, manifest in store.manifests("subjects", source=source, video=subject).items():
        chosen = store.read_unit(key, manifest, columns=["frame", "face", "subject"])
        chosen = chosen.filter(pc.equal(chosen["subject"], subject))
        found = find_rows(faces, chosen["frame"].to_numpy(), chosen["face"].to_numpy())
        frame = chosen["frame"].to_numpy()
        is_known = frame <= len(has_face)
        rows[frame[is_known] - 1] = found[is_known]
    return take_face_columns(faces, np.where(has_face, rows, -1))


def read_person_faces(
    store: Store,
    *,
    source: str,
    video: str,
    person: NDArray[np.integer],
    frame: NDArray[np.integer],
    has_face: NDArray[np.bool_],
) -> dict[str, pa.Array]:
    """Return ``FACE_COLUMNS`` of rows of persons [n], null where ``has_face`` is false.

    Rows are sorted by person, then frame, without gaps in the frames of a person. All values are null if the store has
    no such faces any more.
    """
    rows = np.full(len(person), -1)
    faces = read_faces(store, source=source, video=video)
    for key, manifest in store.manifests("persons", source=source, video=video).items():
        known = store.read_unit(key, manifest)
        found = find_rows(faces, known["frame"].to_numpy(), known["face"].to_numpy())
        order = person.astype(np.int64) << 32 | frame
        places = np.searchsorted(order, known["person"].to_numpy().astype(np.int64) << 32 | known["frame"].to_numpy())
        rows[places] = found
    return take_face_columns(faces, np.where(has_face, rows, -1))


def read_faces(store: Store, *, source: str, video: str) -> pa.Table:
    """Read all detected faces of a video: frame, face (rank in its frame) and ``FACE_COLUMNS``, in order."""
    columns = ["frame", "face", "status", *BOX_NAMES, "landmarks_xy_px", "probability"]
    units = store.manifests("faces", source=source, video=video).items()
    tables = [store.read_unit(key, manifest, columns=columns) for key, manifest in units]
    if not tables:
        names = ["frame", "face", *(column.name for column in FACE_COLUMNS)]
        return pa.table({name: pa.array([], pa.float32()) for name in names})
    faces = pa.concat_tables(tables)
    return to_face_columns(faces.filter(pc.equal(faces["status"], FACE_FOUND)))


def to_face_columns(faces: pa.Table) -> pa.Table:
    """Return frame, face and ``FACE_COLUMNS`` of rows of ``faces`` that show a face."""
    points = faces["landmarks_xy_px"].combine_chunks().flatten().to_numpy().reshape(-1, len(LANDMARK_COLUMNS))
    x1, y1, x2, y2 = (faces[name].to_numpy().astype(np.float64) for name in BOX_NAMES)
    size_px = np.sqrt(np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)).astype(np.float32)
    columns = {name: faces[name] for name in ("frame", "face", *BOX_NAMES, "probability")}
    columns |= {column.name: pa.array(points[:, place]) for place, column in enumerate(LANDMARK_COLUMNS)}
    columns["face_size_px"] = pa.array(size_px)
    return pa.table(columns).select(["frame", "face", *(column.name for column in FACE_COLUMNS)])


def find_rows(faces: pa.Table, frame: NDArray[np.integer], face: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the row of each (frame, face) in a table that is sorted by them, int ``[n]``; -1 if it has none."""
    known, wanted = _to_order(faces["frame"].to_numpy(), faces["face"].to_numpy()), _to_order(frame, face)
    if not len(known):
        return np.full(len(wanted), -1)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, place, -1)


def _to_order(frame: NDArray[np.integer], face: NDArray[np.integer]) -> NDArray[np.int64]:
    return frame.astype(np.int64) * 2**16 + face.astype(np.int64)


def take_face_columns(faces: pa.Table, rows: NDArray[np.integer]) -> dict[str, pa.Array]:
    """Return ``FACE_COLUMNS`` of the given rows; all values are null where the row is -1."""
    places = pa.array(rows, pa.int64(), mask=rows < 0)
    return {column.name: faces[column.name].take(places).combine_chunks() for column in FACE_COLUMNS}
