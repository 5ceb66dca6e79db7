"""Connect the face boxes of one video to tracks. Arrays only.

``subjects`` selects the tracks of the video's subject. Pixels are not used, so a person who returns after a cut gets a
new track.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.faces.subjects import box_areas


@dataclass(frozen=True)
class TrackingParams:
    """Conditions for continuing a track: minimal overlap with its last box, and the longest gap in frames."""

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
    """Return the track number int32 ``[n]`` of every face, counted from 0 in the order of first appearance.

    ``frame`` int ``[n]``, ascending; ``box_xyxy_px`` float ``[n, 4]``. In every frame, faces and active tracks are
    paired to maximize the sum of overlaps; pairs below ``min_iou`` do not count. A track without a face stays active
    for ``max_gap_frames``. A cut ends all tracks, because no boxes overlap.

    Raises:
        ValueError: lengths differ, frames are not ascending, or a box is not finite.
    """
    params = params or TrackingParams()
    if box_xyxy_px.shape != (len(frame), 4) or (np.diff(frame) < 0).any():
        raise ValueError(f"expected ascending frames with one box each, got {frame.shape} and {box_xyxy_px.shape}")
    wrong_rows = np.flatnonzero(~np.isfinite(box_xyxy_px).all(axis=1))
    if wrong_rows.size:
        raise ValueError(f"expected finite boxes, got NaN or infinity in row {wrong_rows[0]}")
    track = np.empty(len(frame), dtype=np.int32)
    starts = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1)) if len(frame) else np.empty(0, dtype=int)
    active: dict[int, tuple[int, NDArray[np.floating]]] = {}
    count = 0
    for first, after in zip(starts.tolist(), [*starts[1:].tolist(), len(frame)], strict=False):
        now, boxes = int(frame[first]), box_xyxy_px[first:after]
        active = {number: seen for number, seen in active.items() if now - seen[0] <= params.max_gap_frames}
        paired = _pair_faces(active, boxes, params.min_iou)
        for place, box in enumerate(boxes):
            number = paired.get(place, count)
            count += number == count
            track[first + place] = number
            active[number] = (now, box)
    return track


def _pair_faces(
    active: dict[int, tuple[int, NDArray[np.floating]]], boxes: NDArray[np.floating], min_iou: float
) -> dict[int, int]:
    """Return face index -> track number for all pairs that overlap enough."""
    if not active:
        return {}
    numbers = list(active)
    overlap = iou(np.stack([box for _, box in active.values()]), boxes)
    # Small overlaps become 0; otherwise a pair that is dropped later could block a valid one.
    overlap[overlap < min_iou] = 0
    if overlap.shape == (1, 1):
        return {0: numbers[0]} if overlap[0, 0] else {}
    # Imported late, because it takes most of a second and videos with one face do not need it.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlap, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {column: numbers[row] for row, column in pairs if overlap[row, column]}


def iou(a_xyxy: NDArray[np.floating], b_xyxy: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return intersection over union ``[n, m]`` of boxes ``[n, 4]`` and ``[m, 4]``, 0..1; 0 for empty boxes."""
    start = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    end = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared = np.clip(end - start, 0, None).prod(axis=2)
    union = box_areas(a_xyxy)[:, None] + box_areas(b_xyxy)[None] - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
