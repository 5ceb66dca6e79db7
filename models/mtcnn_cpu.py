"""The cascade for processors: integral images and suppression in compiled loops, networks in OpenVINO, one thread.

Boxes, landmarks and probabilities are those of ``mtcnn`` and of facenet-pytorch, up to rounding.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.cascade_boxes import merge_levels, pooled, regressed, squared
from models.cascade_kernels import find_candidates, integrate, pool_level, pool_level_part, suppress
from models.detection import (
    CELL_PX,
    FINAL_NMS_IOMIN,
    LEVEL_NMS_IOU,
    MERGED_NMS_IOU,
    Detections,
    DetectorParams,
    detector_weights_digest,
    frames_array,
    level_cells,
    level_size,
)
from models.openvino_networks import compile_network, converted_network, run_network
from models.tracking import iou

_CROPS_AT_ONCE = 64
# Levels that are looked at around a known face: from the one where it measures this much on.
_NEAR_LEVELS, _NEAR_FACE_PX, _NEAR_WINDOW_PX = 4, 26, 48
_MIN_IOU_TO_FOLLOW = 0.4
# A few sizes of videos, seven to thirteen levels each.
_LEVELS_KEPT = 64


def _convert(network: str) -> Any:
    import openvino
    import torch

    from models.mtcnn import build_networks

    size = {"pnet": CELL_PX, "rnet": 24, "onet": 48}[network]
    return openvino.convert_model(build_networks()[network], example_input=torch.zeros(2, 3, size, size))


@functools.cache
def _model(network: str) -> Any:
    return converted_network(f"mtcnn-{network}", detector_weights_digest(), lambda: _convert(network))


def load_kernels() -> None:
    """Have the compiled loops in memory, from the cache or compiled now."""
    frame, boxes = np.zeros((48, 48, 3), np.uint8), np.array([[1, 1, 20, 20, 0.9, 0, 0, 0, 0]], np.float32)
    sums, level = np.zeros((49, 147), np.int32), np.zeros((1, 3, 24, 24), np.float32)
    integrate(frame, sums)
    integrate(frame[4:, 4:], sums)
    pool_level(sums, 48, 48, level[0])
    pool_level_part(sums, (0, 0), (48, 48), (24, 24), (0, 0), level[0])
    merge_levels([boxes[suppress(boxes, LEVEL_NMS_IOU, False)]])
    pooled(sums, (0, 0, 48, 48), boxes[:, :5], 24)
    find_candidates(np.zeros((7, 7), np.float32), np.zeros((4, 7, 7), np.float32), (0, 0), (7, 7), 0.5, 0.6)


class CpuFaceDetector:
    """Finds every face in frames; keeps buffers, so that an object serves one thread at a time.

    Results depend on the frame alone. ``one_size``: the networks are compiled for each size of frames that comes, which
    is right for videos; without it, for any size, which is a quarter slower.
    """

    def __init__(self, params: DetectorParams | None = None, *, one_size: bool = True) -> None:
        self.params = params or DetectorParams()
        self._one_size = one_size
        self._levels: dict[tuple[int, int], Any] = {}
        self._any_level: Any = None
        self._near = compile_network(
            _model("pnet"), shape=[_NEAR_LEVELS, 3, _NEAR_WINDOW_PX, _NEAR_WINDOW_PX], precision="float32"
        )
        self._rnet, self._onet = (
            compile_network(_model(name), shape=[-1, 3, size, size], precision="float32")
            for name, size in (("rnet", 24), ("onet", 48))
        )
        self._sums = np.zeros((1, 1), np.int32)

    def moved(self, frames: np.ndarray) -> np.ndarray:
        """The frames as they are: there is no other memory that ``detect`` would rather have them in."""
        return frames

    def detect(self, frames: np.ndarray | Sequence[np.ndarray]) -> list[Detections]:
        """Faces of each frame; ``frames`` is RGB uint8 [B, H, W, 3] or a sequence of [H, W, 3] of one size.

        Raises:
            ValueError: the frames are not of that shape and type.
        """
        return [self._search(frame) for frame in frames_array(frames)]

    def detect_near(self, frame: np.ndarray, box_xyxy_px: np.ndarray) -> Detections:
        """The face [H, W, 3] that overlaps most with a known box float32 [4]; none if none overlaps enough.

        Only the neighbourhood is searched, at the sizes that a face has which grew or shrank a little.
        """
        height, width = frame.shape[:2]
        windows = self._near_windows(box_xyxy_px, height, width)
        if not windows:
            return Detections.none()
        part = _part_of_frame(windows, box_xyxy_px, height, width)
        frame_part = frame[part[1] : part[3], part[0] : part[2]]
        sums, origin = self._integral(frame_part), (part[1], part[0])
        levels = np.zeros((_NEAR_LEVELS, 3, _NEAR_WINDOW_PX, _NEAR_WINDOW_PX), np.float32)
        for place, (scale, first) in enumerate(windows):
            size = level_size(height, width, scale)
            pool_level_part(sums, origin, (height, width), size, first, levels[place])
        shift, probability = run_network(self._near, levels)
        found = []
        for place, (scale, first) in enumerate(windows):
            cells = level_cells(*level_size(height, width, scale))
            found.append(self._candidates(probability[place, 1], shift[place], first, cells, scale))
        faces = self._refine_and_finish(sums, part, merge_levels(found))
        overlap = iou(faces.box_xyxy_px, box_xyxy_px[None])[:, 0]
        best = int(overlap.argmax()) if len(faces) else 0
        return faces.only(best) if len(faces) and overlap[best] > _MIN_IOU_TO_FOLLOW else Detections.none()

    def _search(self, frame: np.ndarray) -> Detections:
        height, width = frame.shape[:2]
        sums, found = self._integral(frame), []
        for scale in self.params.scales(height, width):
            rows, columns = level_size(height, width, scale)
            level = np.empty((1, 3, rows, columns), np.float32)
            pool_level(sums, height, width, level[0])
            shift, probability = run_network(self._level_network(rows, columns), level)
            found.append(self._candidates(probability[0, 1], shift[0], (0, 0), level_cells(rows, columns), scale))
        return self._refine_and_finish(sums, (0, 0, width, height), merge_levels(found))

    def _level_network(self, rows: int, columns: int) -> Any:
        if not self._one_size:
            if self._any_level is None:
                self._any_level = compile_network(_model("pnet"), shape=[1, 3, -1, -1], precision="float32")
            return self._any_level
        request = self._levels.pop((rows, columns), None)
        if request is None:
            request = compile_network(_model("pnet"), shape=[1, 3, rows, columns], precision="float32")
        self._levels[rows, columns] = request
        if len(self._levels) > _LEVELS_KEPT:
            del self._levels[next(iter(self._levels))]
        return request

    def _integral(self, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        wanted = height + 1, (width + 1) * 3
        if self._sums.shape[0] < wanted[0] or self._sums.shape[1] < wanted[1]:
            self._sums = np.zeros((max(self._sums.shape[0], wanted[0]), max(self._sums.shape[1], wanted[1])), np.int32)
        integrate(picture, self._sums)
        return self._sums

    def _candidates(
        self,
        probability: np.ndarray,
        shift: np.ndarray,
        first: tuple[int, int],
        cells: tuple[int, int],
        scale: float,
    ) -> np.ndarray:
        found = find_candidates(probability, shift, first, cells, scale, self.params.pnet_threshold)
        return found[suppress(found, LEVEL_NMS_IOU, False)]

    def _near_windows(self, box: np.ndarray, height: int, width: int) -> list[tuple[float, tuple[int, int]]]:
        """(scale, first row and column) of the windows; rows and columns are even, as P-Net's stride is 2."""
        side = float(max(box[2] - box[0], box[3] - box[1]))
        scales = self.params.scales(height, width)
        first = next((n for n, scale in enumerate(scales) if side * scale <= _NEAR_FACE_PX), len(scales))
        x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2

        def corner(centre: float, scale: float) -> int:
            return int(centre * scale - _NEAR_WINDOW_PX / 2) // 2 * 2

        near = scales[first : first + _NEAR_LEVELS]
        return [(scale, (corner(y, scale), corner(x, scale))) for scale in near]

    def _refine_and_finish(self, sums: np.ndarray, part: tuple[int, int, int, int], boxes: np.ndarray) -> Detections:
        crops, boxes = pooled(sums, part, boxes, 24)
        if not len(boxes):
            return Detections.none()
        shift, probability = _in_blocks(self._rnet, crops)
        score = probability[:, 1]
        passed = score > self.params.rnet_threshold
        boxes = np.concatenate([boxes[passed, :4], score[passed, None]], axis=1)
        kept = suppress(boxes, MERGED_NMS_IOU, False)
        boxes = squared(regressed(boxes[kept], shift[passed][kept]))
        crops, boxes = pooled(sums, part, boxes, 48)
        if not len(boxes):
            return Detections.none()
        shift, relative, probability = _in_blocks(self._onet, crops)
        score = probability[:, 1]
        passed = score > self.params.onet_threshold
        boxes, relative = np.concatenate([boxes[passed, :4], score[passed, None]], axis=1), relative[passed]
        side = boxes[:, 2:4] - boxes[:, 0:2] + np.float32(1)
        points = np.stack(
            [
                side[:, 0:1] * relative[:, :5] + boxes[:, 0:1] - np.float32(1),
                side[:, 1:2] * relative[:, 5:] + boxes[:, 1:2] - np.float32(1),
            ],
            axis=2,
        )
        boxes = regressed(boxes, shift[passed])
        kept = suppress(boxes, FINAL_NMS_IOMIN, True)
        return Detections.largest_first(boxes[kept, :4], points[kept], boxes[kept, 4])


def _part_of_frame(
    windows: list[tuple[float, tuple[int, int]]], box: np.ndarray, height: int, width: int
) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of what the windows see, and of a square around the box twice its size."""
    side = float(max(box[2] - box[0], box[3] - box[1]))
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    left, right, top, bottom = [x - side], [x + side], [y - side], [y + side]
    for scale, (row, column) in windows:
        rows, columns = level_size(height, width, scale)
        left.append(column * width / columns)
        right.append((column + _NEAR_WINDOW_PX) * width / columns + 1)
        top.append(row * height / rows)
        bottom.append((row + _NEAR_WINDOW_PX) * height / rows + 1)
    return (
        max(0, int(min(left))),
        max(0, int(min(top))),
        min(width, int(max(right)) + 1),
        min(height, int(max(bottom)) + 1),
    )


def _in_blocks(request: Any, crops: np.ndarray) -> list[np.ndarray]:
    blocks = [crops[first : first + _CROPS_AT_ONCE] for first in range(0, len(crops), _CROPS_AT_ONCE)]
    outputs = [[values.copy() for values in run_network(request, block)] for block in blocks]
    return [np.concatenate(columns) for columns in zip(*outputs, strict=True)]
