"""Boxes on their way from one network of the cascade to the next, float32 [n, >= 5] with scores in column 4."""

import numpy as np

from models.faces.cascade_kernels import pool_boxes, suppress
from models.faces.detection import MERGED_NMS_IOU


def merge_levels(found: list[np.ndarray]) -> np.ndarray:
    """Candidates of all levels, suppressed, regressed and squared, float32 [n, 5]."""
    boxes = np.concatenate(found) if found else np.zeros((0, 9), np.float32)
    boxes = boxes[suppress(boxes, MERGED_NMS_IOU, False)]
    sides = np.tile(boxes[:, 2:4] - boxes[:, 0:2], 2)
    return squared(np.concatenate([boxes[:, :4] + boxes[:, 5:9] * sides, boxes[:, 4:5]], axis=1))


def regressed(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Boxes moved by a network's shifts [n, 4], shares of their sides in whole pixels (+ 1)."""
    side = np.tile(boxes[:, 2:4] - boxes[:, 0:2] + np.float32(1), 2)
    return np.concatenate([boxes[:, :4] + shift * side, boxes[:, 4:5]], axis=1)


def squared(boxes: np.ndarray) -> np.ndarray:
    """Boxes widened around their centre to squares."""
    side = boxes[:, 2:4] - boxes[:, 0:2]
    longest = side.max(axis=1, keepdims=True) if len(side) else side[:, :1]
    start = boxes[:, 0:2] + side * np.float32(0.5) - longest * np.float32(0.5)
    return np.concatenate([start, start + longest, boxes[:, 4:5]], axis=1)


def pooled(
    sums: np.ndarray, part: tuple[int, int, int, int], boxes: np.ndarray, size_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Network inputs [n, 3, size, size] of the boxes' part inside ``part``; boxes wholly outside are dropped."""
    whole = np.trunc(boxes[:, :4]).astype(np.int64)
    x1, y1 = np.maximum(whole[:, 0], 1) - 1, np.maximum(whole[:, 1], 1) - 1
    inner = np.stack(
        [
            np.maximum(x1, part[0]),
            np.maximum(y1, part[1]),
            np.minimum(whole[:, 2], part[2]),
            np.minimum(whole[:, 3], part[3]),
        ],
        axis=1,
    )
    inside = (inner[:, 2:] > inner[:, :2]).all(axis=1)
    inner, boxes = inner[inside], boxes[inside]
    crops = np.empty((len(boxes), 3, size_px, size_px), np.float32)
    pool_boxes(sums, (part[1], part[0]), inner, crops)
    return crops, boxes
