"""Join the tracks of one video to persons, through cuts and gaps. Arrays only.

A track ends at a cut, or when a face is lost for longer than the tracker waits. The track that follows is the same
person if its first box continues the last one in position and size, and if its first faces look like the last ones: the
cosine similarity of the mean embeddings of both ends reaches a threshold. Tracks that overlap in time are never joined,
nor tracks of fewer than three faces, which are often no faces. Everything else stays apart, because two persons who are
counted as one falsify their results, and one person who is counted as two does not.

The threshold belongs to one network, whose embeddings ``docs/method.md`` measures. It was trained for expressions, not
for identities, so it finds only persons who look almost the same before and after.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.vocabulary import SHORT_TRACK_FRAMES
from models.faces.subjects import jump_sizes

# Embeds faces: rows int [m], ascending -> batches of (rows int [b], embeddings float [b, D]) of readable faces.
EmbedRows = Callable[[NDArray[np.intp]], Iterator[tuple[NDArray[np.intp], NDArray[np.floating]]]]
_MIN_TRACK_FACES = 3


@dataclass(frozen=True)
class MergingParams:
    """Conditions for joining two tracks.

    Attributes:
        max_jump: largest distance of the centres in face sides plus ratio of sizes in powers of two.
        max_gap_frames: longest time between the two tracks.
        end_faces: number of faces at the ends of both tracks that are compared.
        min_similarity: smallest cosine similarity of the mean embeddings.
    """

    max_jump: float = 0.5
    max_gap_frames: int = 1500
    end_faces: int = 12
    min_similarity: float = 0.9


def identify_persons(
    frame: NDArray[np.integer],
    box_xyxy_px: NDArray[np.floating],
    track: NDArray[np.integer],
    *,
    embed: EmbedRows,
    params: MergingParams | None = None,
) -> tuple[NDArray[np.int32], Counter[str]]:
    """Return the person int32 ``[n]`` of every face, from 1 by first appearance, and counts of the decisions.

    ``frame`` int ``[n]``, ascending; ``box_xyxy_px`` float ``[n, 4]``; ``track`` int ``[n]``, at most one face of a
    track per frame. ``embed`` is called at most once, with the faces that decide, and not at all if position rules out
    every pair of tracks. Each person is a chain of tracks; each track follows the most similar one among those that may
    precede it and have no successor yet.
    """
    params = params or MergingParams()
    if not len(frame):
        return np.empty(0, np.int32), Counter()
    tracks = _Tracks.of(frame, track)
    pairs = _find_pairs(tracks, box_xyxy_px, params)
    chain = np.arange(len(tracks.first_row))
    if pairs:
        similarity = _compare_ends(tracks, pairs, embed, params)
        has_successor = np.zeros(len(chain), bool)
        for later, earlier_tracks in pairs.items():
            found = [(similarity[earlier, later], earlier) for earlier in earlier_tracks if not has_successor[earlier]]
            best, earlier = max(found, default=(-1.0, -1))
            if best >= params.min_similarity:
                chain[later], has_successor[earlier] = chain[earlier], True
    # Tracks are in the order of their first row, so chains are in the order of first appearance.
    _, person_of_track = np.unique(chain, return_inverse=True)
    person = (person_of_track[tracks.track_of_row] + 1).astype(np.int32)
    faces = np.bincount(person)[1:]
    counts = {
        "persons": len(faces),
        "short tracks": int((faces < SHORT_TRACK_FRAMES).sum()),
        "tracks": len(chain),
        "joined over a cut or gap": len(chain) - len(faces),
    }
    return person, Counter(counts)


@dataclass(frozen=True)
class _Tracks:
    """Tracks in the order of their first row; the rows of each one in order, ``[t]`` arrays."""

    frame: NDArray[np.integer]
    track_of_row: NDArray[np.intp]
    rows: list[NDArray[np.intp]]
    first_row: NDArray[np.intp]
    last_row: NDArray[np.intp]

    @classmethod
    def of(cls, frame: NDArray[np.integer], track: NDArray[np.integer]) -> "_Tracks":
        _, first_row, inverse = np.unique(track, return_index=True, return_inverse=True)
        order = np.argsort(first_row)
        track_of_row = np.argsort(order)[inverse]
        by_track = np.argsort(track_of_row, kind="stable")
        rows = np.split(by_track, np.flatnonzero(np.diff(track_of_row[by_track])) + 1)
        return cls(frame, track_of_row, rows, np.array([r[0] for r in rows]), np.array([r[-1] for r in rows]))


def _find_pairs(
    tracks: _Tracks, box_xyxy_px: NDArray[np.floating], params: MergingParams
) -> dict[int, NDArray[np.intp]]:
    """Return for each track, in order of time, the tracks before it whose last box its first box continues."""
    first, last = tracks.frame[tracks.first_row], tracks.frame[tracks.last_row]
    is_long = np.array([len(rows) >= _MIN_TRACK_FACES for rows in tracks.rows])
    last_boxes = box_xyxy_px[tracks.last_row]
    pairs = {}
    for later in np.flatnonzero(is_long).tolist():
        gap = first[later] - last
        earlier = np.flatnonzero(is_long & (gap > 0) & (gap <= params.max_gap_frames))
        jumps = jump_sizes(last_boxes[earlier], box_xyxy_px[tracks.first_row[later]])
        earlier = earlier[jumps <= params.max_jump]
        if earlier.size:
            pairs[later] = earlier
    return pairs


def _compare_ends(
    tracks: _Tracks, pairs: dict[int, NDArray[np.intp]], embed: EmbedRows, params: MergingParams
) -> dict[tuple[int, int], float]:
    """Return the cosine similarity of the last faces of the earlier track and the first of the later one, per pair."""
    starts = {later: tracks.rows[later][: params.end_faces] for later in pairs}
    ends = {int(t): tracks.rows[t][-params.end_faces :] for earlier in pairs.values() for t in earlier}
    # A row is in at most one start and one end.
    groups = [*starts.values(), *ends.values()]
    places = np.full((2, len(tracks.track_of_row)), -1)
    for number, rows in enumerate(groups):
        places[int(number >= len(starts)), rows] = number
    sums: NDArray[np.floating] | None = None
    for rows, embeddings in embed(np.flatnonzero((places >= 0).any(axis=0))):
        if sums is None:
            sums = np.zeros((len(groups), embeddings.shape[1]), np.float32)
        for side in places:
            is_in = side[rows] >= 0
            np.add.at(sums, side[rows][is_in], embeddings[is_in])
    if sums is None:
        return {(int(earlier), later): -1.0 for later, found in pairs.items() for earlier in found}
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    start_of, end_of = {t: sums[n] for n, t in enumerate(starts)}, dict(zip(ends, sums[len(starts) :], strict=True))
    return {
        (int(earlier), later): float(end_of[int(earlier)] @ start_of[later])
        for later, found in pairs.items()
        for earlier in found
    }
