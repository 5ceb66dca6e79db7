"""Select the subjects of a video: from face tracks to at most one face per subject and frame. Arrays only.

A subject is a chain of tracks that do not overlap in time, because two faces in one frame are two people. The best
chain has the largest sum of face areas over its frames, minus a price for every jump in position or size between
consecutive tracks. So the subject is the person who fills most of the frame for most of the time, a short loss or a cut
is bridged by the best following track, and people who pass by or stay in the background are not subjects. Taking the
largest face of each frame would be simpler, but would alternate between people of similar size.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Tracks of one person may overlap in time by this share: a passer-by can take over a box briefly.
_OVERLAP_SHARE = 0.2
# The largest price of a jump, as a share of the lighter track's weight. Both are below 1, so that continuing a chain
# always pays. If a track ends where the next one begins, there was a cut, and two jumps cost less than the track
# between them gains. Otherwise the subject was lost for a while, and another person in the gap does not pay for two
# jumps.
_CUT_PRICE = 0.3
_LOSS_PRICE = 0.65
_CUT_FRAMES = 3
# A track is not the subject's if it is much smaller than the subject's typical face, or if it is shorter than this,
# far from the neighbouring tracks, and there are longer ones.
_MIN_TRACK_FRAMES = 3
_GLIMPSE_JUMP = 0.5
_MIN_SIDE_SHARE = 0.25
# Only people of similar size are compared to decide who is left and who is right.
_SIMILAR_SIDE_SHARE = 0.5


@dataclass(frozen=True)
class _Tracks:
    """Tracks in the order of their first frame, ``[t]`` or ``[t, 4]``; ``track_of_face`` is ``[n]``."""

    track_of_face: NDArray[np.intp]
    frames: list[NDArray[np.integer]]
    first_frame: NDArray[np.integer]
    last_frame: NDArray[np.integer]
    face_count: NDArray[np.integer]
    weight: NDArray[np.floating]
    side_px: NDArray[np.floating]
    first_box: NDArray[np.floating]
    last_box: NDArray[np.floating]


def assign_subjects(
    frame: NDArray[np.integer],
    box_xyxy_px: NDArray[np.floating],
    probability: NDArray[np.floating],
    track: NDArray[np.integer],
    *,
    subject_count: int,
    frame_width_px: float | None = None,
) -> tuple[NDArray[np.int8], Counter[str]]:
    """Return the subject int8 ``[n]`` of every face (0 or 1, or -1 for another person), and counts of the decisions.

    ``frame`` int ``[n]``, ascending; ``box_xyxy_px`` float ``[n, 4]``; ``probability`` float ``[n]``, 0..1; ``track``
    int ``[n]``, at most one face of a track per frame. No frame has two faces of one subject. With two subjects, 0 is
    the left one. The side of a track is relative to the other person of similar size; if it is alone, relative to the
    middle between the two people, or of the frame if they never appear together and its width is given.

    Raises:
        ValueError: ``subject_count`` is neither 1 nor 2, or a track has two faces in a frame.
    """
    if subject_count not in (1, 2):
        raise ValueError(f"expected one or two subjects in a video, got {subject_count}")
    subject = np.full(len(frame), -1, dtype=np.int8)
    decisions = Counter[str]()
    if len(frame):
        tracks = _describe_tracks(frame, box_xyxy_px, probability, track)
        is_right = np.zeros(tracks.weight.size, dtype=int)
        if subject_count == 2:
            is_right = _find_sides(frame, box_xyxy_px, tracks, frame_width_px)
        for number in range(subject_count):
            chain = _find_best_chain(tracks, np.flatnonzero(is_right == number))
            likely = _drop_unlikely(tracks, chain)
            _assign_faces(subject, number, frame, tracks, likely)
            decisions.update(_count_decisions(tracks, chain, likely))
    _, faces_in_frame = np.unique(frame, return_counts=True)
    counts = {
        "assigned": int((subject >= 0).sum()),
        "other people": int((subject < 0).sum()),
        "frames with several faces": int((faces_in_frame > 1).sum()),
        "tracks": len(np.unique(track)),
    }
    return subject, Counter(counts) + decisions


def _count_decisions(tracks: _Tracks, chain: NDArray[np.intp], likely: NDArray[np.intp]) -> dict[str, int]:
    """Count how a subject's tracks were joined, for the report."""
    gap_frames = tracks.first_frame[likely[1:]] - tracks.last_frame[likely[:-1]]
    cuts = int((gap_frames <= _CUT_FRAMES).sum())
    return {
        "tracks of subjects": len(likely),
        "joined over a cut": cuts,
        "joined over a loss": len(gap_frames) - cuts,
        "tracks taken for no face of the subject": len(chain) - len(likely),
    }


def box_areas(box_xyxy_px: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the areas ``[n]`` of boxes ``[n, 4]``, >= 0."""
    return np.clip(box_xyxy_px[:, 2:] - box_xyxy_px[:, :2], 0, None).prod(axis=1)


def _describe_tracks(
    frame: NDArray[np.integer],
    box_xyxy_px: NDArray[np.floating],
    probability: NDArray[np.floating],
    track: NDArray[np.integer],
) -> _Tracks:
    area = box_areas(box_xyxy_px).astype(np.float64)
    rows = np.lexsort((frame, track))
    starts = np.flatnonzero(np.diff(track[rows], prepend=track[rows[0]] - 1))
    ends = np.append(starts[1:], len(rows)) - 1
    if np.any((np.diff(frame[rows]) == 0) & (np.diff(track[rows]) == 0)):
        raise ValueError("expected at most one face of a track in a frame, got two")
    by_start = np.argsort(frame[rows[starts]], kind="stable")
    starts, ends = starts[by_start], ends[by_start]
    track_of_face = np.empty(len(rows), dtype=np.intp)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        track_of_face[rows[start : end + 1]] = number
    face_count = ends - starts + 1
    weight = np.bincount(track_of_face, area * probability).astype(np.float64)
    return _Tracks(
        track_of_face=track_of_face,
        frames=[frame[rows[start : end + 1]] for start, end in zip(starts, ends, strict=True)],
        first_frame=frame[rows[starts]],
        last_frame=frame[rows[ends]],
        face_count=face_count,
        weight=weight,
        side_px=np.sqrt(np.bincount(track_of_face, area) / face_count),
        first_box=box_xyxy_px[rows[starts]],
        last_box=box_xyxy_px[rows[ends]],
    )


def _find_best_chain(tracks: _Tracks, members: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the tracks of ``members`` that form the chain with the largest total weight, in order of time."""
    first, last, faces = tracks.first_frame[members], tracks.last_frame[members], tracks.face_count[members]
    weight = tracks.weight[members]
    total, before = weight.copy(), np.full(members.size, -1)
    for here in range(1, members.size):
        gap = first[here] - last[:here]
        most_shared = _OVERLAP_SHARE * np.minimum(faces[:here], faces[here])
        follows = -gap < most_shared
        for other in np.flatnonzero(~follows & (last[:here] <= last[here])):
            # Spans may overlap when few frames do: a new track may begin with a glimpse long before the old one ends.
            shared = np.intersect1d(tracks.frames[members[other]], tracks.frames[members[here]], assume_unique=True)
            follows[other] = shared.size < most_shared[other]
        earlier = np.flatnonzero(follows)
        if earlier.size:
            cut = np.abs(gap[earlier]) <= _CUT_FRAMES
            # After a loss, a jump is weighed against the whole chain before it; else light tracks are stepping stones.
            left = np.where(cut, weight[earlier], total[earlier])
            jump = jump_sizes(tracks.last_box[members[earlier]], tracks.first_box[members[here]])
            gain = total[earlier] - np.where(cut, _CUT_PRICE, _LOSS_PRICE) * jump * np.minimum(left, weight[here])
            best = int(np.argmax(gain))
            total[here] += gain[best]
            before[here] = earlier[best]
    chain = []
    here = int(np.argmax(total)) if members.size else -1
    while here >= 0:
        chain.append(members[here])
        here = int(before[here])
    return np.array(chain[::-1], dtype=np.intp)


def jump_sizes(last_boxes: NDArray[np.floating], first_box: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the jump from each box to ``first_box``, 0..1: distance of centres in face sides, and ratio of sides."""
    sides = np.sqrt(np.maximum(box_areas(last_boxes), 1))
    side = np.sqrt(np.maximum(box_areas(first_box[None]), 1))
    centres = (last_boxes[:, :2] + last_boxes[:, 2:]) / 2
    centre = (first_box[:2] + first_box[2:]) / 2
    distance = np.linalg.norm(centres - centre, axis=1) / np.maximum(sides, side)
    return np.minimum(distance + np.abs(np.log2(sides / side)), 1)


def _drop_unlikely(tracks: _Tracks, chain: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the chain without tracks that are much smaller than the rest, or short and far from their neighbours."""
    if not chain.size:
        return chain
    jumps = [1.0, *(float(jump_sizes(tracks.last_box[[a]], tracks.first_box[b])[0]) for a, b in pairwise(chain)), 1.0]
    stays = np.minimum(jumps[:-1], jumps[1:]) < _GLIMPSE_JUMP
    long_enough = tracks.face_count[chain] >= min(_MIN_TRACK_FRAMES, tracks.face_count[chain].max())
    chain = chain[long_enough | stays]
    # Median side of the subject's faces: each track counts by its number of faces.
    order = chain[np.argsort(tracks.side_px[chain])]
    faces = np.cumsum(tracks.face_count[order])
    median_px = tracks.side_px[order[np.searchsorted(faces, faces[-1] / 2)]]
    return chain[tracks.side_px[chain] >= _MIN_SIDE_SHARE * median_px]


def _assign_faces(
    subject: NDArray[np.int8], number: int, frame: NDArray[np.integer], tracks: _Tracks, chain: NDArray[np.intp]
) -> None:
    """Assign the faces of a chain to a subject; if two of its tracks share a frame, the heavier one counts."""
    rank = np.full(tracks.weight.size, -1)
    rank[chain[np.argsort(tracks.weight[chain])]] = np.arange(chain.size)
    rows = np.flatnonzero(rank[tracks.track_of_face] >= 0)
    rows = rows[np.lexsort((-rank[tracks.track_of_face[rows]], frame[rows]))]
    _, firsts = np.unique(frame[rows], return_index=True)
    subject[rows[firsts]] = number


def _find_sides(
    frame: NDArray[np.integer], box_xyxy_px: NDArray[np.floating], tracks: _Tracks, frame_width_px: float | None
) -> NDArray[np.intp]:
    """Return 0 for tracks of the left person and 1 for the right one, int ``[t]``."""
    centre_px = (box_xyxy_px[:, 0] + box_xyxy_px[:, 2]) / 2
    other = _find_partners(frame, box_xyxy_px, tracks)
    paired = other >= 0
    if paired.any():
        middle_px = float(np.median((centre_px[paired] + centre_px[other[paired]]) / 2))
    elif frame_width_px is not None:
        middle_px = frame_width_px / 2
    else:
        middle_px = float(centre_px.min() + centre_px.max()) / 2
    reference_px = np.where(paired, centre_px[other], middle_px)
    # The position relative to another person is more reliable than to a line, because the camera may turn.
    vote = np.sign(centre_px - reference_px) * np.where(paired, 1.0, 0.25)
    return (np.bincount(tracks.track_of_face, vote) > 0).astype(np.intp)


def _find_partners(frame: NDArray[np.integer], box_xyxy_px: NDArray[np.floating], tracks: _Tracks) -> NDArray[np.intp]:
    """Return the row of the heaviest other face of similar size in the same frame, int ``[n]``; -1 for none."""
    side_px = np.sqrt(box_areas(box_xyxy_px))
    weight = tracks.weight[tracks.track_of_face]
    found = np.full(len(frame), -1, dtype=np.intp)
    starts = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1))
    ends = np.append(starts[1:], len(frame))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - start < 2:
            continue
        rows = np.arange(start, end)
        smaller = np.minimum(side_px[rows, None], side_px[None, rows])
        similar = smaller >= _SIMILAR_SIDE_SHARE * np.maximum(side_px[rows, None], side_px[None, rows])
        np.fill_diagonal(similar, False)
        best = np.argmax(np.where(similar, weight[None, rows], -1.0), axis=1)
        found[rows] = np.where(similar.any(axis=1), rows[best], -1)
    return found
