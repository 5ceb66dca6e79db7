"""Faces of one video through time: boxes become tracks. Arrays only.

Which track is the subject of the video is decided in ``subjects``. Nothing here looks at pixels, so a person who comes
back after a cut is a new track.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.faces.subjects import assign_subjects, box_areas

__all__ = ["TrackingParams", "assign_subjects", "iou", "track_faces"]


@dataclass(frozen=True)
class TrackingParams:
    """When a face continues a track: overlap with its last box, and how long it may have been out of sight."""

    min_iou: float = 0.3
    max_gap_frames: int = 30

    def __post_init__(self) -> None:
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou: expected above 0 and at most 1, got {self.min_iou}")
        if self.max_gap_frames < 1:
            raise ValueError(f"max_gap_frames: expected at least 1, got {self.max_gap_frames}")


def track_faces(
    frame: NDArray[np.integer], box_xyxy_px: NDArray[np.floating], *, params: TrackingParams | None = None
) -> NDArray[np.int32]:
    """Track number int32 ``[n]`` of every face, counted from 0 in the order of first sight.

    ``frame`` int ``[n]``, ascending; ``box_xyxy_px`` float ``[n, 4]``. In every frame, faces and live tracks are
    paired so that the sum of overlaps is largest, pairs below ``min_iou`` not counting. A track that finds no face
    waits for ``max_gap_frames``; a cut ends all tracks, for nothing overlaps.

    Raises:
        ValueError: lengths differ, frames are not ascending, or a box is not finite.
    """
    params = params or TrackingParams()
    _check(frame, box_xyxy_px)
    track = np.empty(len(frame), dtype=np.int32)
    starts = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1)) if len(frame) else np.empty(0, dtype=int)
    live: dict[int, tuple[int, NDArray[np.floating]]] = {}
    count = 0
    for first, after in zip(starts.tolist(), [*starts[1:].tolist(), len(frame)], strict=False):
        now, boxes = int(frame[first]), box_xyxy_px[first:after]
        live = {number: seen for number, seen in live.items() if now - seen[0] <= params.max_gap_frames}
        given = _pair(live, boxes, params.min_iou)
        for place, box in enumerate(boxes):
            number = given.get(place, count)
            count += number == count
            track[first + place] = number
            live[number] = (now, box)
    return track


def _check(frame: NDArray[np.integer], box_xyxy_px: NDArray[np.floating]) -> None:
    if box_xyxy_px.shape != (len(frame), 4) or (np.diff(frame) < 0).any():
        raise ValueError(f"expected ascending frames with one box each, got {frame.shape} and {box_xyxy_px.shape}")
    if not np.isfinite(box_xyxy_px).all():
        raise ValueError(
            f"expected finite boxes, got some that are not in row {np.argwhere(~np.isfinite(box_xyxy_px))[0, 0]}"
        )


def _pair(
    live: dict[int, tuple[int, NDArray[np.floating]]], boxes: NDArray[np.floating], min_iou: float
) -> dict[int, int]:
    """Place of the face -> number of the track, of pairs that overlap enough."""
    if not live:
        return {}
    numbers = list(live)
    overlap = iou(np.stack([box for _, box in live.values()]), boxes)
    # Too little must count as nothing, or a pair that is then refused could take a face from one that fits.
    overlap[overlap < min_iou] = 0
    if overlap.shape == (1, 1):
        return {0: numbers[0]} if overlap[0, 0] else {}
    # Videos of one face do without; it takes most of a second to import.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlap, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {column: numbers[row] for row, column in pairs if overlap[row, column]}


def iou(a_xyxy: NDArray[np.floating], b_xyxy: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union ``[n, m]`` of two sets of boxes ``[n, 4]`` and ``[m, 4]``, 0..1; 0 for empty boxes."""
    start = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    end = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared = np.clip(end - start, 0, None).prod(axis=2)
    union = box_areas(a_xyxy)[:, None] + box_areas(b_xyxy)[None] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
