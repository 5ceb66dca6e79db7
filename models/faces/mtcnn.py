"""MTCNN (Zhang et al. 2016, arXiv 1604.02878) in torch, with facenet-pytorch's networks and weights.

Unlike facenet-pytorch's, the cascade is batched over frames, pools crops through integral images and bounds its memory.
Boxes, landmarks and probabilities are equal to facenet-pytorch's. ``crops`` cuts faces out of frames.
"""

import copy
import functools
import sys
from collections.abc import Sequence

import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from torch import Tensor, nn

from models.engines.batch_size import BatchSize
from models.faces.detection import (
    CELL_PX,
    FINAL_NMS_IOMIN,
    LEVEL_NMS_IOU,
    MERGED_NMS_IOU,
    STRIDE_PX,
    Detections,
    DetectorParams,
    level_size,
    stack_frames,
)
from models.faces.kernels import integrate

_CROPS_CPU, _CROPS_GPU = 512, 4096


@functools.cache
def build_networks() -> dict[str, nn.Module]:
    """Return P-Net, R-Net and O-Net with facenet-pytorch's weights, in evaluation mode."""
    return {"pnet": PNet().eval(), "rnet": RNet().eval(), "onet": ONet().eval()}


class AreaPooling:
    """Adaptive average pooling of many boxes at once through integral images, equal to ``adaptive_avg_pool2d``."""

    def __init__(self, frames: Tensor) -> None:
        """``frames`` is uint8 [B, H, W, 3]. The int32 sums may wrap around; differences of them are still correct."""
        self.height, self.width = frames.shape[1:3]
        if frames.device.type == "cpu":
            sums = np.zeros((len(frames), frames.shape[1] + 1, frames.shape[2] + 1, 3), np.int32)
            for frame, target in zip(frames.numpy(), sums, strict=True):
                integrate(frame, (0, 0, self.width, self.height), target.reshape(len(target), -1))
            self._sums = torch.from_numpy(sums)
            return
        summed = frames.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        self._sums = torch.nn.functional.pad(summed, (0, 0, 1, 0, 1, 0))

    def pool(self, box_px: Tensor, frame_index: Tensor, *, size_px: int) -> Tensor:
        """Return mean colours float32 [n, 3, size, size] of boxes (int64 [n, 4]: x1, y1, x2, y2, ends exclusive).

        ``frame_index`` int64 [n] is the frame of each box. Boxes must lie inside the frame and have at least one pixel.
        """
        left, right = _pool_edges(box_px[:, 0], box_px[:, 2], size_px)
        top, bottom = _pool_edges(box_px[:, 1], box_px[:, 3], size_px)
        at = frame_index[:, None, None]
        upper, lower = top[:, :, None], bottom[:, :, None]
        near, far = left[:, None, :], right[:, None, :]
        total = self._sums[at, lower, far] - self._sums[at, upper, far]
        total = total - self._sums[at, lower, near] + self._sums[at, upper, near]
        pixels = ((lower - upper) * (far - near))[..., None]
        # float64: the sum over a large box exceeds 2**24, up to which float32 is exact.
        return (total.double() / pixels).float().permute(0, 3, 1, 2)


def _pool_edges(start: Tensor, end: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """Return the first and the one-past-last pixel [n, size] of every pooling window."""
    length = (end - start)[:, None]
    step = torch.arange(size_px, device=start.device)[None]
    first = (step * length).div(size_px, rounding_mode="floor")
    last = ((step + 1) * length + size_px - 1).div(size_px, rounding_mode="floor")
    return start[:, None] + first, start[:, None] + last


class FaceDetector:
    """Detect all faces in frames of one size. Results depend on the other frames only through float rounding."""

    def __init__(self, params: DetectorParams | None = None, *, device: str = "cpu") -> None:
        self.params = params or DetectorParams()
        self.device = torch.device(device)
        # On a CPU a single frame stays in the cache; a GPU is fastest with all frames at once.
        self._batch = BatchSize(1 if self.device.type == "cpu" else sys.maxsize, is_padded=False)
        self._pnet, self._rnet, self._onet = (
            copy.deepcopy(network).to(self.device) for network in build_networks().values()
        )
        self._copying = torch.cuda.Stream() if self.device.type == "cuda" else None

    @torch.inference_mode()
    def to_device(self, frames: np.ndarray) -> Tensor:
        """Copy frames uint8 [B, H, W, 3] to the device, for ``detect``.

        Called in another thread, the copy overlaps with the detection in earlier frames.
        """
        if self._copying is None:
            return torch.from_numpy(frames)
        with torch.cuda.stream(self._copying):
            pixels = torch.from_numpy(frames).to(self.device)
        # Keep this tensor's memory until the stream that runs the detection is done.
        pixels.record_stream(torch.cuda.default_stream())
        return pixels

    @torch.inference_mode()
    def detect(self, frames: np.ndarray | Sequence[np.ndarray] | Tensor) -> list[Detections]:
        """Return the faces of each frame.

        ``frames`` is RGB uint8 [B, H, W, 3], an array or the result of ``to_device``, or a sequence of [H, W, 3].

        Raises:
            ValueError: the frames have another shape or type, or different sizes.
        """
        batch = frames if isinstance(frames, Tensor) else self.to_device(stack_frames(frames))
        return [
            found
            for _, detections in self._batch.run_batches(len(batch), lambda part: self._cascade(batch[part]))
            for found in detections
        ]

    # By default a GPU convolves in TF32, whose 10 bits are too few to find the same boxes.
    @torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    def _cascade(self, frames: Tensor) -> list[Detections]:
        boxes, frame_index = self._propose(frames.permute(0, 3, 1, 2).contiguous().float())
        pooling = AreaPooling(frames)
        boxes, frame_index, others = _accept_boxes(
            self._rnet, pooling, boxes, frame_index, size_px=24, threshold=self.params.rnet_threshold
        )
        if len(boxes):
            kept = grouped_nms(boxes[:, :4], boxes[:, 4], frame_index, MERGED_NMS_IOU)
            boxes, frame_index = _to_squares(_apply_shifts(boxes[kept], others[0][kept])), frame_index[kept]
        boxes, frame_index, others = _accept_boxes(
            self._onet, pooling, boxes, frame_index, size_px=48, threshold=self.params.onet_threshold
        )
        if not len(boxes):
            return [Detections.none() for _ in frames]
        shift, relative = others
        side = (boxes[:, 2:4] - boxes[:, 0:2] + 1)[:, None]
        # O-Net returns five x before five y.
        points = side * relative.reshape(-1, 2, 5).mT + boxes[:, None, :2] - 1
        found = (_apply_shifts(boxes, shift), points, frame_index)
        box, point, frame = (values.cpu().numpy() for values in found)
        kept_rows = _nms_by_smaller(box, frame)
        of_frame = [kept_rows[frame[kept_rows] == number] for number in range(len(frames))]
        return [Detections.largest_first(box[rows, :4], point[rows], box[rows, 4]) for rows in of_frame]

    def _propose(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return candidates of all pyramid levels: square boxes [n, 5] with scores, and their frames [n]."""
        height, width = images.shape[2:]
        scales = self.params.scales(height, width)
        if not scales:
            return torch.zeros((0, 5), device=self.device), torch.zeros(0, dtype=torch.long, device=self.device)
        # Run all levels before the first operation that waits for a result of the device.
        levels = [self._run_pnet(images, scale) for scale in scales]
        level = torch.repeat_interleave(
            torch.arange(len(scales), device=self.device),
            torch.tensor([values.shape[1] for values in levels], device=self.device),
        )
        cells = torch.cat(levels, dim=1)
        frame_index, at = torch.nonzero(cells[:, :, 4] >= self.params.pnet_threshold, as_tuple=True)
        boxes = cells[frame_index, at]
        kept = grouped_nms(boxes[:, :4], boxes[:, 4], frame_index * len(scales) + level[at], LEVEL_NMS_IOU)
        boxes, frame_index = boxes[kept], frame_index[kept]
        kept = grouped_nms(boxes[:, :4], boxes[:, 4], frame_index, MERGED_NMS_IOU)
        boxes, frame_index = boxes[kept], frame_index[kept]
        sides = (boxes[:, 2:4] - boxes[:, 0:2]).repeat(1, 2)
        refined = boxes[:, :4] + boxes[:, 5:9] * sides
        return _to_squares(torch.cat([refined, boxes[:, 4:5]], dim=1)), frame_index

    def _run_pnet(self, images: Tensor, scale: float) -> Tensor:
        """Return P-Net's output for each cell of a level, [B, cells, 9]: box in frame pixels, probability, 4 shifts."""
        height, width = images.shape[2:]
        size = level_size(height, width, scale)
        pixels = _normalise(torch.nn.functional.interpolate(images, size=size, mode="area"))
        shift, probability = self._pnet(pixels.contiguous(memory_format=torch.channels_last))
        rows, columns = shift.shape[2:]
        y, x = torch.meshgrid(
            torch.arange(rows, device=self.device), torch.arange(columns, device=self.device), indexing="ij"
        )
        cell = torch.stack([x, y], dim=2).reshape(-1, 2).to(shift.dtype)
        start = ((STRIDE_PX * cell + 1) / scale).floor()
        end = ((STRIDE_PX * cell + CELL_PX - 1 + 1) / scale).floor()
        box = torch.cat([start, end], dim=1).expand(len(images), -1, -1)
        return torch.cat([box, probability[:, 1].reshape(len(images), -1, 1), shift.flatten(2).mT], dim=2)


def _normalise(images: Tensor) -> Tensor:
    return (images - 127.5) * 0.0078125


def _apply_shifts(boxes: Tensor, shift: Tensor) -> Tensor:
    side = (boxes[:, 2:4] - boxes[:, 0:2] + 1).repeat(1, 2)
    return torch.cat([boxes[:, :4] + shift * side, boxes[:, 4:5]], dim=1)


def _to_squares(boxes: Tensor) -> Tensor:
    """Widen boxes around their centres to squares."""
    side = boxes[:, 2:4] - boxes[:, 0:2]
    longest = side.max(dim=1, keepdim=True).values
    start = boxes[:, 0:2] + side * 0.5 - longest * 0.5
    return torch.cat([start, start + longest, boxes[:, 4:5]], dim=1)


def _pool_crops(
    pooling: AreaPooling, boxes: Tensor, frame_index: Tensor, size_px: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return network inputs [n, 3, size, size] of the boxes clipped to the frame; drop boxes outside of it."""
    whole = boxes[:, :4].trunc().long()
    start = whole[:, :2].clamp(min=1) - 1
    end = torch.stack([whole[:, 2].clamp(max=pooling.width), whole[:, 3].clamp(max=pooling.height)], dim=1)
    inside = (end > start).all(dim=1)
    boxes, frame_index = boxes[inside], frame_index[inside]
    crops = pooling.pool(torch.cat([start, end], dim=1)[inside], frame_index, size_px=size_px)
    return _normalise(crops), boxes, frame_index


def _accept_boxes(
    network: nn.Module, pooling: AreaPooling, boxes: Tensor, frame_index: Tensor, *, size_px: int, threshold: float
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the boxes [n, 5] that R-Net or O-Net accepts, with its scores, their frames, and its other outputs."""
    crops, boxes, frame_index = _pool_crops(pooling, boxes, frame_index, size_px)
    if not len(boxes):
        return boxes, frame_index, []
    outputs = [network(batch) for batch in crops.split(_CROPS_CPU if crops.device.type == "cpu" else _CROPS_GPU)]
    *others, probability = (torch.cat(columns) for columns in zip(*outputs, strict=True))
    score = probability[:, 1]
    accepted = score > threshold
    boxes = torch.cat([boxes[accepted, :4], score[accepted, None]], dim=1)
    return boxes, frame_index[accepted], [values[accepted] for values in others]


def _nms_by_smaller(boxes: np.ndarray, frame_index: np.ndarray) -> np.ndarray:
    """Suppress greedily by overlap relative to the smaller box; return rows, best score first within each frame."""
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    order, kept = np.argsort(boxes[:, 4], kind="stable")[::-1], []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.minimum(boxes[best, 2], boxes[rest, 2]) - np.maximum(boxes[best, 0], boxes[rest, 0]) + 1
        height = np.minimum(boxes[best, 3], boxes[rest, 3]) - np.maximum(boxes[best, 1], boxes[rest, 1]) + 1
        overlap = np.maximum(0, width) * np.maximum(0, height) / np.minimum(area[best], area[rest])
        order = rest[(overlap <= FINAL_NMS_IOMIN) | (frame_index[rest] != frame_index[best])]
    return np.array(kept, dtype=int)


def grouped_nms(boxes: Tensor, score: Tensor, group: Tensor, iou: float) -> Tensor:
    """Suppress boxes of many small groups at once; return the kept indices int64, by group, best score first.

    A device that processes boxes one after the other, as torchvision's function does, takes 10 ms for the candidates of
    32 crowded frames. Here each round settles at least one more box of every group, and the first settles most.

    Args:
        boxes: [n, 4], x1, y1, x2, y2.
        score: [n].
        group: int64 [n]; boxes of different groups do not suppress each other.
        iou: a box is suppressed if its intersection over union with a better, kept box is larger than this.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    _, row, sizes = torch.unique_consecutive(group[order], return_inverse=True, return_counts=True)
    place = torch.arange(len(order), device=boxes.device) - (sizes.cumsum(0) - sizes)[row]
    # Unused places hold boxes without area, which overlap with no other.
    places = torch.zeros((len(sizes), int(sizes.max()), 4), dtype=boxes.dtype, device=boxes.device)
    places[row, place] = boxes[order]
    suppresses = _overlap(places).gt_(iou).bool().triu_(1)
    kept = torch.ones(places.shape[:2], dtype=torch.bool, device=boxes.device)
    while True:
        # Only earlier boxes suppress a box, so every round corrects at least the first wrong one.
        next_kept = ~(suppresses & kept[:, :, None]).any(dim=1)
        if torch.equal(next_kept, kept):
            return order[kept[row, place]]
        kept = next_kept


def _overlap(boxes: Tensor) -> Tensor:
    """Return the intersection over union of the boxes of each group, [groups, m, m] of [groups, m, 4]; 0 for 0 / 0."""
    start = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    end = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (end - start).clamp_(min=0).prod(dim=3)
    area = (boxes[:, :, 2:] - boxes[:, :, :2]).prod(dim=2)
    return (shared / (area[:, :, None] + area[:, None, :] - shared)).nan_to_num_(0)
