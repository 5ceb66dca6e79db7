"""Non-maximum suppression of many small groups of boxes at once, without a step that waits for the one before.

A device takes boxes one by one in the library's way, which costs 10 ms for the candidates of 32 frames of a crowd. Here
each round settles at least one more box of every group, and most of them in the first.
"""

import torch
from torch import Tensor


def grouped_nms(boxes: Tensor, score: Tensor, group: Tensor, iou: float) -> Tensor:
    """Indices int64 of the boxes that are kept, by group, in each the best score first.

    Args:
        boxes: [n, 4], x1, y1, x2, y2.
        score: [n].
        group: int64 [n]; boxes of different groups do not see each other.
        iou: a box goes if it overlaps more than this, intersection over union, with a better one that stays.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    _, row, sizes = torch.unique_consecutive(group[order], return_inverse=True, return_counts=True)
    place = torch.arange(len(order), device=boxes.device) - (sizes.cumsum(0) - sizes)[row]
    # Empty places hold boxes without area, which overlap with none.
    places = torch.zeros((len(sizes), int(sizes.max()), 4), dtype=boxes.dtype, device=boxes.device)
    places[row, place] = boxes[order]
    suppresses = _overlap(places).gt_(iou).bool().triu_(1)
    kept = torch.ones(places.shape[:2], dtype=torch.bool, device=boxes.device)
    while True:
        # What suppresses a box lies before it, so the first box that is wrong is right after the next round.
        now = ~(suppresses & kept[:, :, None]).any(dim=1)
        if torch.equal(now, kept):
            return order[kept[row, place]]
        kept = now


def _overlap(boxes: Tensor) -> Tensor:
    """Intersection over union of every two boxes of a group, [groups, m, m] of [groups, m, 4]; 0 where neither is."""
    start = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    end = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (end - start).clamp_(min=0).prod(dim=3)
    area = (boxes[:, :, 2:] - boxes[:, :, :2]).prod(dim=2)
    return (shared / (area[:, :, None] + area[:, None, :] - shared)).nan_to_num_(0)
