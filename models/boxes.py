"""Box arithmetic of the MTCNN cascade, on CPU tensors.

Boxes are float32 [n, 4] as x1, y1, x2, y2 in pixels of the frame. Here: regression, squaring, the integer windows to
crop, and both kinds of non-maximum suppression. Not here: networks, pooling, clipping boxes for storage (`crops.py`).

The details (truncation, which steps count a box's last pixel as inside, strict or loose comparisons) are those of
facenet-pytorch 2.5.3, because the published weights and results are tied to them.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms


def regress_boxes(boxes_xyxy_px: Tensor, offsets: Tensor, *, last_pixel_inside: bool) -> Tensor:
    """Moves each edge by its predicted fraction of the box's width or height (Zhang et al. 2016, section II-B).

    offsets: float32 [n, 4]. last_pixel_inside: whether a side from 3 to 5 is 3 pixels long (R-Net, O-Net) or 2
    (P-Net). Returns float32 [n, 4].
    """
    extra = 1 if last_pixel_inside else 0
    sides = boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2] + extra
    return boxes_xyxy_px + offsets * sides.repeat(1, 2)


def square_boxes(boxes_xyxy_px: Tensor) -> Tensor:
    """Grows the shorter side about the centre until the box is square. Returns float32 [n, 4]."""
    sides = boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]
    longest = sides.amax(dim=1, keepdim=True)
    corner = boxes_xyxy_px[:, :2] + sides * 0.5 - longest * 0.5
    return torch.cat([corner, corner + longest], dim=1)


def pixel_windows(boxes_xyxy_px: Tensor, *, width: int, height: int) -> tuple[Tensor, Tensor]:
    """The part of the picture that each box covers, for cropping.

    Coordinates are cut towards zero and, being 1-based in MTCNN's original MATLAB code, the first row and column move
    one to the left. A box over the border gives a window that is no longer square. Returns windows int64 [n, 4],
    half-open, and bool [n]: whether the window holds any pixel.
    """
    corners = boxes_xyxy_px.trunc().long()
    first = corners[:, :2].clamp(min=1) - 1
    past_last = torch.minimum(corners[:, 2:], torch.tensor([width, height]))
    return torch.cat([first, past_last], dim=1), (past_last > first).all(dim=1)


def suppress_by_union(boxes_xyxy_px: Tensor, scores: Tensor, groups: Tensor, *, threshold: float) -> Tensor:
    """Within each group, drops a box whose intersection over union with a better one is above the threshold.

    scores: float32 [n]. groups: int64 [n], ascending. Returns the kept rows, int64, by group, best score first.
    Groups are suppressed one by one: shifting them apart, as one call for all would need, costs float32 digits and
    would let the result depend on which frames share a batch.
    """
    kept = [
        nms(boxes_xyxy_px[start:stop], scores[start:stop], threshold) + start for start, stop in _group_ranges(groups)
    ]
    return torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64)


def suppress_by_smaller(boxes_xyxy_px: Tensor, scores: Tensor, groups: Tensor, *, threshold: float) -> Tensor:
    """As `suppress_by_union`, but the intersection is measured against the smaller of the two boxes.

    A small box inside a large one goes, however small it is. Areas count the last pixel as inside.
    """
    boxes, confidence = boxes_xyxy_px.numpy(), scores.numpy()
    kept = [
        start + _suppress_one_group(boxes[start:stop], confidence[start:stop], threshold)
        for start, stop in _group_ranges(groups)
    ]
    return torch.from_numpy(np.concatenate(kept)) if kept else torch.empty(0, dtype=torch.int64)


def _suppress_one_group(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    first, last = boxes[:, :2], boxes[:, 2:]
    area = (last - first + 1).prod(axis=1)
    waiting = np.argsort(scores, kind="stable")[::-1]
    kept = []
    while waiting.size:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        sides = np.minimum(last[best], last[waiting]) - np.maximum(first[best], first[waiting]) + 1
        overlap = np.maximum(sides, 0).prod(axis=1) / np.minimum(area[best], area[waiting])
        waiting = waiting[overlap <= threshold]
    return np.array(kept, dtype=np.int64)


def _group_ranges(groups: Tensor) -> Iterator[tuple[int, int]]:
    counts = torch.unique_consecutive(groups, return_counts=True)[1].tolist()
    start = 0
    for count in counts:
        yield start, start + count
        start += count
