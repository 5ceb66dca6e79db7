"""Faces of one video through time: tracks, and who of them is the subject. Arrays only."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class TrackingParams:
    """When a face continues a track: overlap with its last box, and how long it may have been out of sight."""

    min_iou: float = 0.3
    max_gap_frames: int = 30


def track_faces(frame: np.ndarray, box_xyxy_px: np.ndarray, *, params: TrackingParams | None = None) -> np.ndarray:
    """Track number int32 [n] of every face; numbers count from 0 in the order of first sight.

    ``frame`` int [n], ascending; ``box_xyxy_px`` float [n, 4]. In every frame faces and live tracks are paired so that
    the sum of overlaps is largest; a pair below ``min_iou`` is none. A cut ends all tracks, for nothing overlaps.

    Raises:
        ValueError: lengths differ, or frames are not ascending.
    """
    params = params or TrackingParams()
    if box_xyxy_px.shape != (len(frame), 4) or (np.diff(frame) < 0).any():
        raise ValueError(f"expected ascending frames with one box each, got {frame.shape} and {box_xyxy_px.shape}")
    track = np.empty(len(frame), np.int32)
    live: dict[int, tuple[int, np.ndarray]] = {}
    starts = np.flatnonzero(np.r_[True, np.diff(frame) > 0]) if len(frame) else np.empty(0, int)
    count = 0
    for first, last in zip(starts, np.r_[starts[1:], len(frame)], strict=False):
        now, boxes = int(frame[first]), box_xyxy_px[first:last]
        live = {number: seen for number, seen in live.items() if now - seen[0] <= params.max_gap_frames}
        given = _pair(live, boxes, params.min_iou)
        for position, box in enumerate(boxes):
            if position not in given:
                given[position] = count
                count += 1
            track[first + position] = given[position]
            live[given[position]] = (now, box)
    return track


def _pair(live: dict[int, tuple[int, np.ndarray]], boxes: np.ndarray, min_iou: float) -> dict[int, int]:
    """Face position -> track number, of pairs that overlap enough."""
    if not live:
        return {}
    numbers = list(live)
    overlap = iou(np.stack([live[number][1] for number in numbers]), boxes)
    rows, columns = linear_sum_assignment(-overlap)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {column: numbers[row] for row, column in pairs if overlap[row, column] >= min_iou}


def iou(a_xyxy: np.ndarray, b_xyxy: np.ndarray) -> np.ndarray:
    """Intersection over union [n, m] of two sets of boxes, 0..1."""
    start = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    end = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared = np.clip(end - start, 0, None).prod(axis=2)
    union = _area(a_xyxy)[:, None] + _area(b_xyxy)[None] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)


def assign_subjects(
    frame: np.ndarray,
    box_xyxy_px: np.ndarray,
    probability: np.ndarray,
    track: np.ndarray,
    *,
    subject_count: int,
) -> tuple[np.ndarray, Counter[str]]:
    """Subject int8 [n] of every face: 0 or 1, or -1 for a bystander; and counts of what was decided.

    Tracks are weighed by probability times the side of the face, summed over their frames, and taken in that order as
    long as no frame is taken twice: a cut is bridged by the best track of each stretch, and a passer-by, who is seen
    together with the main person, is left out. With two subjects, 0 is the left one: a track goes to the side on which
    its centre lies most of the time, as seen from the middle between both persons over the whole video.

    Raises:
        ValueError: ``subject_count`` is neither 1 nor 2.
    """
    if subject_count not in (1, 2):
        raise ValueError(f"expected one or two subjects in a video, got {subject_count}")
    subject = np.full(len(frame), -1, np.int8)
    if len(frame):
        side = np.zeros(len(frame), int) if subject_count == 1 else _sides(frame, box_xyxy_px, track)
        weight = probability * np.sqrt(_area(box_xyxy_px))
        for who in range(subject_count):
            mine = side == who
            for number in _by_weight(track[mine], weight[mine]):
                _take(subject, who, np.flatnonzero(mine & (track == number)), frame)
    _, faces_per_frame = np.unique(frame, return_counts=True)
    counts = Counter(
        {
            "assigned": int((subject >= 0).sum()),
            "bystanders": int((subject < 0).sum()),
            "frames with several faces": int((faces_per_frame > 1).sum()),
            "tracks": len(np.unique(track)),
        }
    )
    return subject, counts


def _by_weight(track: np.ndarray, weight: np.ndarray) -> list[int]:
    """Track numbers, heaviest first."""
    numbers, position = np.unique(track, return_inverse=True)
    return numbers[np.argsort(-np.bincount(position, weight), kind="stable")].tolist() if len(numbers) else []


def _take(subject: np.ndarray, who: int, rows: np.ndarray, frame: np.ndarray) -> None:
    """Give a track to a subject unless most of its frames have a face of that subject already."""
    taken = np.isin(frame[rows], frame[subject == who])
    if taken.mean() <= 0.5:
        subject[rows[~taken]] = who


def _sides(frame: np.ndarray, box_xyxy_px: np.ndarray, track: np.ndarray) -> np.ndarray:
    """0 for faces of tracks left of the middle between the two persons, 1 right of it, int [n]."""
    centre = (box_xyxy_px[:, 0] + box_xyxy_px[:, 2]) / 2
    middle = _middle(frame, box_xyxy_px, centre)
    numbers, position = np.unique(track, return_inverse=True)
    typical = np.array([np.median(centre[position == at]) for at in range(len(numbers))])
    return (typical > middle).astype(int)[position]


def _middle(frame: np.ndarray, box_xyxy_px: np.ndarray, centre: np.ndarray) -> float:
    """Typical point between the two largest faces of frames that show two; else between the extremes seen."""
    order = np.lexsort((-_area(box_xyxy_px), frame))
    frames, centres = frame[order], centre[order]
    starts = np.flatnonzero(np.r_[True, np.diff(frames) > 0])
    pairs = starts[np.r_[np.diff(starts), len(frames) - starts[-1]] > 1]
    if len(pairs):
        return float(np.median((centres[pairs] + centres[pairs + 1]) / 2))
    return float((centre.min() + centre.max()) / 2)
