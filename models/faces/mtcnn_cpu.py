"""MTCNN for processors: integral images and suppression in compiled loops, networks in OpenVINO, one thread.

Boxes, landmarks and probabilities are those of ``mtcnn`` and of facenet-pytorch, except for rounding.

P-Net is split: its first layer, which has three input channels, is a compiled loop (``kernels.first_layer``), and the
rest runs on all levels of the image pyramid at once, placed next to each other on one canvas. The rest has no pooling,
so that the result of a cell depends on its own window only. On processors that multiply bfloat16, all cells are first
computed in bfloat16, and those that may be candidates again in float32.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.engines.openvino import load_network, load_or_convert, run_network, supported_precision
from models.engines.precision import Precision
from models.faces.detection import (
    CELL_PX,
    FINAL_NMS_IOMIN,
    LEVEL_NMS_IOU,
    MERGED_NMS_IOU,
    Detections,
    DetectorParams,
    detector_weights_digest,
    level_cells,
    level_size,
    stack_frames,
)
from models.faces.kernels import (
    cut_cells,
    find_candidates,
    first_layer,
    integrate,
    pool_boxes,
    pool_level,
    suppress,
)
from models.faces.tracking import iou

SIZES_PX = {"rnet": 24, "onet": 48}
FIRST_CHANNELS = 10
_CROPS_PER_BATCH = 64
# Side of a cell's window in P-Net's first maps.
_CELL_MAP_SIDE = 5
# Cells whose probability in bfloat16 is below the threshold by more than this are no candidates. The largest error of
# bfloat16 found in frames and noise is 0.03.
ROUNDING_MARGIN = 0.1
# Pyramid levels that are searched around a known face, from the first one where it measures at most this much.
_NEAR_LEVELS, _NEAR_FACE_PX, _NEAR_WINDOW_PX = 4, 26, 48
_MIN_IOU_TO_FOLLOW = 0.4


def load_refiner(name: str) -> Any:
    """Return a request for ``rnet`` or ``onet`` that takes any number of crops float32 [n, 3, size, size]."""
    return _load_network(name, lambda: _convert(name), [-1, 3, SIZES_PX[name], SIZES_PX[name]])


def load_proposer(shape: list[int], precision: Precision = "float32") -> Any:
    """Return a request for P-Net without its first layer, for input [n, 10, h, w]; -1 means any size."""
    return _load_network("pnet-late", lambda: _cut_after_first_layer(_load_proposer_model().clone()), shape, precision)


def _load_network(name: str, convert: Callable[[], Any], shape: list[int], precision: Precision = "float32") -> Any:
    return load_network(f"mtcnn-{name}", detector_weights_digest(), convert, shape=shape, precision=precision)


@functools.cache
def first_layer_weights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights float32 [10, 3, 3, 3], bias [10] and PReLU slopes [10] of P-Net's first layer."""
    activation = _first_pooling(_load_proposer_model()).input_value(0).get_node()
    biased, slope = (activation.input_value(n).get_node() for n in (0, 1))
    weight = biased.input_value(0).get_node().input_value(1).get_node()
    parts = (weight, biased.input_value(1).get_node(), slope)
    weight, bias, slope = (np.array(part.data, np.float32) for part in parts)
    return weight, bias.ravel(), slope.ravel()


def _first_pooling(model: Any) -> Any:
    return next(op for op in model.get_ordered_ops() if op.get_type_name() == "MaxPool")


def _cut_after_first_layer(model: Any) -> Any:
    import openvino
    from openvino import opset13

    pooled = _first_pooling(model).output(0)
    start = opset13.parameter([-1, FIRST_CHANNELS, -1, -1], np.float32)
    for user in pooled.get_target_inputs():
        user.replace_source_output(start.output(0))
    return openvino.Model(model.get_results(), [start])


@functools.cache
def _load_proposer_model() -> Any:
    return load_or_convert("mtcnn-pnet", detector_weights_digest(), lambda: _convert("pnet"))


def _convert(name: str) -> Any:
    import torch
    from openvino.tools.ovc import convert_model

    from models.faces.mtcnn import build_networks

    size = SIZES_PX.get(name, CELL_PX)
    return convert_model(build_networks()[name], example_input=torch.zeros(2, 3, size, size))


def load_kernels() -> None:
    """Load the compiled loops from numba's cache, or compile them."""
    frame, boxes = np.zeros((48, 48, 3), np.uint8), np.array([[1, 1, 20, 20, 0.9, 0, 0, 0, 0]], np.float32)
    sums, level = np.zeros((49, 147), np.int32), np.zeros((1, 3, 24, 24), np.float32)
    weight, bias = np.zeros((FIRST_CHANNELS, 3, 3, 3), np.float32), np.zeros(FIRST_CHANNELS, np.float32)
    maps, cells = np.zeros((FIRST_CHANNELS, 11, 11), np.float32), np.zeros((7, 7), np.float32)
    integrate(frame, (0, 0, 48, 48), sums)
    pool_level(sums, (0, 0), (48, 48), (24, 24), (0, 0), level[0])
    _merge_levels([boxes[suppress(boxes, LEVEL_NMS_IOU, False)]])
    _pool_crops(sums, (0, 0, 48, 48), boxes[:, :5], 24)
    first_layer(level[0], weight, bias, bias, maps, (0, 0))
    cut_cells(cells, 0.5, maps, _CELL_MAP_SIDE)
    find_candidates(cells, np.zeros((4, 7, 7), np.float32), (0, 0), (0, 0), (7, 7), 0.5, 0.6)


class CpuFaceDetector:
    """Detect all faces in frames. An object has buffers, so it serves one thread at a time.

    The result for a frame does not depend on other frames.
    """

    def __init__(self, params: DetectorParams | None = None) -> None:
        self.params = params or DetectorParams()
        rounded = supported_precision("bfloat16") == "bfloat16"
        self._pnet = load_proposer([1, FIRST_CHANNELS, -1, -1], "bfloat16" if rounded else "float32")
        cell_shape = [-1, FIRST_CHANNELS, _CELL_MAP_SIDE, _CELL_MAP_SIDE]
        self._pnet_of_cells = load_proposer(cell_shape) if rounded else None
        self._canvas = np.zeros((1, FIRST_CHANNELS, 0, 0), np.float32)
        self._first = first_layer_weights()
        side = pooled_side(_NEAR_WINDOW_PX)
        self._near = load_proposer([_NEAR_LEVELS, FIRST_CHANNELS, side, side])
        self._near_maps = np.zeros((_NEAR_LEVELS, FIRST_CHANNELS, side, side), np.float32)
        self._rnet, self._onet = load_refiner("rnet"), load_refiner("onet")
        self._sums = np.zeros((1, 1), np.int32)

    def to_device(self, frames: np.ndarray) -> np.ndarray:
        """Return the frames unchanged: the processor reads them where they are."""
        return frames

    def detect(self, frames: np.ndarray | Sequence[np.ndarray]) -> list[Detections]:
        """Return the faces of each frame; ``frames`` is RGB uint8 [B, H, W, 3] or a sequence of [H, W, 3] of one size.

        Raises:
            ValueError: the frames have another shape or type.
        """
        return [self._search(frame) for frame in stack_frames(frames)]

    def detect_near(self, frame: np.ndarray, box_xyxy_px: np.ndarray) -> Detections:
        """Return the face of a frame [H, W, 3] with the largest overlap with a known box float32 [4], or no face.

        Only the neighbourhood of the box is searched, at slightly smaller and larger sizes.
        """
        height, width = frame.shape[:2]
        windows = self._near_windows(box_xyxy_px, height, width)
        if not windows:
            return Detections.none()
        part = _part_of_frame(windows, box_xyxy_px, height, width)
        sums, origin = self._integral(frame, part), (part[1], part[0])
        level = np.empty((3, _NEAR_WINDOW_PX, _NEAR_WINDOW_PX), np.float32)
        for place, (scale, first) in enumerate(windows):
            size = level_size(height, width, scale)
            pool_level(sums, origin, (height, width), size, first, level)
            first_layer(level, *self._first, self._near_maps[place], (0, 0))
        shift, probability = run_network(self._near, self._near_maps)
        found = []
        for place, (scale, first) in enumerate(windows):
            cells = level_cells(*level_size(height, width, scale))
            found.append(self._candidates(probability[place, 1], shift[place], (0, 0), first, cells, scale))
        faces = self._refine_and_finish(sums, part, _merge_levels(found))
        overlap = iou(faces.box_xyxy_px, box_xyxy_px[None])[:, 0]
        best = int(overlap.argmax()) if len(faces) else 0
        return faces.select(best) if len(faces) and overlap[best] > _MIN_IOU_TO_FOLLOW else Detections.none()

    def _search(self, frame: np.ndarray) -> Detections:
        height, width = frame.shape[:2]
        scales = self.params.scales(height, width)
        if not scales:
            return Detections.none()
        whole = 0, 0, width, height
        sums, sizes = self._integral(frame, whole), [level_size(height, width, scale) for scale in scales]
        places, canvas_size = arrange_on_canvas([(pooled_side(rows), pooled_side(columns)) for rows, columns in sizes])
        if self._canvas.shape[2:] != canvas_size:
            # Values between the maps stay zero.
            self._canvas = np.zeros((1, FIRST_CHANNELS, *canvas_size), np.float32)
        buffer = np.empty(3 * sizes[0][0] * sizes[0][1], np.float32)
        for size, place in zip(sizes, places, strict=True):
            level = buffer[: 3 * size[0] * size[1]].reshape(3, *size)
            pool_level(sums, (0, 0), (height, width), size, (0, 0), level)
            first_layer(level, *self._first, self._canvas[0], place)
        shift, probability = self._propose()
        found = [
            self._candidates(probability, shift, place, (0, 0), level_cells(*size), scale)
            for scale, size, place in zip(scales, sizes, places, strict=True)
        ]
        return self._refine_and_finish(sums, whole, _merge_levels(found))

    def _propose(self) -> tuple[np.ndarray, np.ndarray]:
        """Return shifts [4, h, w] and probabilities [h, w] of the canvas; those of candidates are exact."""
        shift, probability = run_network(self._pnet, self._canvas)
        shift, probability = shift[0], probability[0, 1]
        if self._pnet_of_cells is not None:
            threshold = self.params.pnet_threshold - ROUNDING_MARGIN
            rows, columns, cells = cut_cells(probability, threshold, self._canvas[0], _CELL_MAP_SIDE)
            exact_shift, exact_probability = run_network(self._pnet_of_cells, cells)
            shift[:, rows, columns] = exact_shift[..., 0, 0].T
            probability[rows, columns] = exact_probability[:, 1, 0, 0]
        return shift, probability

    def _integral(self, frame: np.ndarray, part: tuple[int, int, int, int]) -> np.ndarray:
        shape = part[3] - part[1] + 1, (part[2] - part[0] + 1) * 3
        if self._sums.shape[0] < shape[0] or self._sums.shape[1] < shape[1]:
            self._sums = np.zeros((max(self._sums.shape[0], shape[0]), max(self._sums.shape[1], shape[1])), np.int32)
        integrate(np.ascontiguousarray(frame), part, self._sums)
        return self._sums

    def _candidates(
        self,
        probability: np.ndarray,
        shift: np.ndarray,
        at: tuple[int, int],
        first: tuple[int, int],
        cells: tuple[int, int],
        scale: float,
    ) -> np.ndarray:
        found = find_candidates(probability, shift, at, first, cells, scale, self.params.pnet_threshold)
        return found[suppress(found, LEVEL_NMS_IOU, False)]

    def _near_windows(self, box: np.ndarray, height: int, width: int) -> list[tuple[float, tuple[int, int]]]:
        """Return (scale, first row and column) of the windows; both are even, because P-Net's stride is 2."""
        side = float(max(box[2] - box[0], box[3] - box[1]))
        scales = self.params.scales(height, width)
        first = next((n for n, scale in enumerate(scales) if side * scale <= _NEAR_FACE_PX), len(scales))
        x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2

        def corner(centre: float, scale: float) -> int:
            return int(centre * scale - _NEAR_WINDOW_PX / 2) // 2 * 2

        near = scales[first : first + _NEAR_LEVELS]
        return [(scale, (corner(y, scale), corner(x, scale))) for scale in near]

    def _refine_and_finish(self, sums: np.ndarray, part: tuple[int, int, int, int], boxes: np.ndarray) -> Detections:
        boxes, others = _accept_boxes(
            self._rnet, sums, part, boxes, size_px=SIZES_PX["rnet"], threshold=self.params.rnet_threshold
        )
        if not len(boxes):
            return Detections.none()
        kept = suppress(boxes, MERGED_NMS_IOU, False)
        boxes = _to_squares(_apply_shifts(boxes[kept], others[0][kept]))
        boxes, others = _accept_boxes(
            self._onet, sums, part, boxes, size_px=SIZES_PX["onet"], threshold=self.params.onet_threshold
        )
        if not len(boxes):
            return Detections.none()
        shift, relative = others
        side = (boxes[:, 2:4] - boxes[:, 0:2] + np.float32(1))[:, None]
        # O-Net returns five x before five y.
        points = side * relative.reshape(-1, 2, 5).swapaxes(1, 2) + boxes[:, None, :2] - np.float32(1)
        boxes = _apply_shifts(boxes, shift)
        kept = suppress(boxes, FINAL_NMS_IOMIN, True)
        return Detections.largest_first(boxes[kept, :4], points[kept], boxes[kept, 4])


def _part_of_frame(
    windows: list[tuple[float, tuple[int, int]]], box: np.ndarray, height: int, width: int
) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 of the area that covers the windows and a square around the box of twice its size."""
    side = float(max(box[2] - box[0], box[3] - box[1]))
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    left, right, top, bottom = [x - side], [x + side], [y - side], [y + side]
    for scale, (row, column) in windows:
        rows, columns = level_size(height, width, scale)
        left.append(column * width / columns)
        right.append((column + _NEAR_WINDOW_PX) * width / columns + 1)
        top.append(row * height / rows)
        bottom.append((row + _NEAR_WINDOW_PX) * height / rows + 1)
    x1, y1 = max(0, int(min(left))), max(0, int(min(top)))
    return x1, y1, min(width, int(max(right)) + 1), min(height, int(max(bottom)) + 1)


def _accept_boxes(
    request: Any,
    sums: np.ndarray,
    part: tuple[int, int, int, int],
    boxes: np.ndarray,
    *,
    size_px: int,
    threshold: float,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the boxes [n, 5] that R-Net or O-Net accepts, with its scores, and its other outputs for them."""
    crops, boxes = _pool_crops(sums, part, boxes, size_px)
    if not len(boxes):
        return boxes, []
    batches = [crops[first : first + _CROPS_PER_BATCH] for first in range(0, len(crops), _CROPS_PER_BATCH)]
    outputs = [[values.copy() for values in run_network(request, batch)] for batch in batches]
    *others, probability = (np.concatenate(columns) for columns in zip(*outputs, strict=True))
    score = probability[:, 1]
    accepted = score > threshold
    boxes = np.concatenate([boxes[accepted, :4], score[accepted, None]], axis=1)
    return boxes, [values[accepted] for values in others]


def pooled_side(pixels: int) -> int:
    """Return the side of P-Net's first maps for a side of a level: 3x3 convolution, 2x2 pooling rounded up."""
    return (pixels - 1) // 2


def arrange_on_canvas(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Return the corner (row, column) of each rectangle (rows, columns), and the size of the canvas.

    Rectangles must be in descending order of height and width. Each is placed on the first shelf that has enough room;
    the canvas is as wide as the first rectangle.
    """
    corners, shelves, height = list[tuple[int, int]](), list[list[int]](), 0
    for rows, columns in sizes:
        shelf = next((shelf for shelf in shelves if shelf[1] + columns <= sizes[0][1]), None)
        if shelf is None:
            shelf = [height, 0]
            shelves.append(shelf)
            height += rows
        corners.append((shelf[0], shelf[1]))
        shelf[1] += columns
    return corners, (height, sizes[0][1])


def _merge_levels(found: list[np.ndarray]) -> np.ndarray:
    """Merge the candidates of all levels: suppress, apply shifts, widen to squares; float32 [n, 5]."""
    boxes = np.concatenate(found) if found else np.zeros((0, 9), np.float32)
    boxes = boxes[suppress(boxes, MERGED_NMS_IOU, False)]
    sides = np.tile(boxes[:, 2:4] - boxes[:, 0:2], 2)
    return _to_squares(np.concatenate([boxes[:, :4] + boxes[:, 5:9] * sides, boxes[:, 4:5]], axis=1))


def _apply_shifts(boxes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Move boxes by a network's shifts [n, 4], which are fractions of the sides in whole pixels (+ 1)."""
    side = np.tile(boxes[:, 2:4] - boxes[:, 0:2] + np.float32(1), 2)
    return np.concatenate([boxes[:, :4] + shift * side, boxes[:, 4:5]], axis=1)


def _to_squares(boxes: np.ndarray) -> np.ndarray:
    """Widen boxes around their centres to squares."""
    side = boxes[:, 2:4] - boxes[:, 0:2]
    longest = side.max(axis=1, keepdims=True) if len(side) else side[:, :1]
    start = boxes[:, 0:2] + side * np.float32(0.5) - longest * np.float32(0.5)
    return np.concatenate([start, start + longest, boxes[:, 4:5]], axis=1)


def _pool_crops(
    sums: np.ndarray, part: tuple[int, int, int, int], boxes: np.ndarray, size_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return network inputs [n, 3, size, size] of the boxes clipped to ``part``; drop boxes outside of it."""
    whole = np.trunc(boxes[:, :4]).astype(np.int64)
    start = np.maximum(np.maximum(whole[:, :2], 1) - 1, part[:2])
    inner = np.concatenate([start, np.minimum(whole[:, 2:], part[2:])], axis=1)
    inside = (inner[:, 2:] > inner[:, :2]).all(axis=1)
    inner, boxes = inner[inside], boxes[inside]
    crops = np.empty((len(boxes), 3, size_px, size_px), np.float32)
    pool_boxes(sums, (part[1], part[0]), inner, crops)
    return crops, boxes
