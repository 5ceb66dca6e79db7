"""MTCNN (Zhang et al. 2016, arXiv 1604.02878) in plain torch, with facenet-pytorch's networks and weights.

The cascade is ours: batched over frames, crops pooled through integral images, memory bounded. Its boxes, landmarks
and probabilities equal facenet-pytorch's. Cutting crops out of frames is in ``crops``.
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
from models.faces.area_pooling import AreaPooling
from models.faces.detection import (
    CELL_PX,
    FINAL_NMS_IOMIN,
    LEVEL_NMS_IOU,
    MERGED_NMS_IOU,
    STRIDE_PX,
    Detections,
    DetectorParams,
    frames_array,
    level_size,
)
from models.faces.grouped_nms import grouped_nms

_CROPS_CPU, _CROPS_GPU = 512, 4096


@functools.cache
def build_networks() -> dict[str, nn.Module]:
    """P-Net, R-Net and O-Net with facenet-pytorch's weights, in evaluation mode."""
    return {"pnet": PNet().eval(), "rnet": RNet().eval(), "onet": ONet().eval()}


class FaceDetector:
    """Finds every face in frames of one size. Results do not depend on the other frames beyond float rounding."""

    def __init__(self, params: DetectorParams | None = None, *, device: str = "cpu") -> None:
        self.params = params or DetectorParams()
        self.device = torch.device(device)
        # On a CPU one frame at a time stays in the cache; a GPU wants all at once.
        self._together = BatchSize(1 if self.device.type == "cpu" else sys.maxsize, is_padded=False)
        self._pnet, self._rnet, self._onet = (
            copy.deepcopy(network).to(self.device) for network in build_networks().values()
        )
        self._copying = torch.cuda.Stream() if self.device.type == "cuda" else None

    @torch.inference_mode()
    def to_device(self, frames: np.ndarray) -> Tensor:
        """Frames uint8 [B, H, W, 3] on the device, for ``detect``.

        In another thread, this overlaps with the search of the frames before them.
        """
        if self._copying is None:
            return torch.from_numpy(frames)
        with torch.cuda.stream(self._copying):
            pixels = torch.from_numpy(frames).to(self.device)
        # Whose memory it is when it is freed: of the stream that searches it.
        pixels.record_stream(torch.cuda.default_stream())
        return pixels

    @torch.inference_mode()
    def detect(self, frames: np.ndarray | Sequence[np.ndarray] | Tensor) -> list[Detections]:
        """Faces of each frame; ``frames`` is RGB uint8 [B, H, W, 3], ``moved`` or not, or a sequence of [H, W, 3].

        Raises:
            ValueError: the frames are not of that shape and type, or not of one size.
        """
        batch = frames if isinstance(frames, Tensor) else self.to_device(frames_array(frames))
        return [
            found
            for _, block in self._together.run_batches(len(batch), lambda block: self._cascade(batch[block]))
            for found in block
        ]

    def _cascade(self, frames: Tensor) -> list[Detections]:
        # TF32, which a GPU would take for convolutions, has 10 bits: too few to find the same boxes.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._cascade_exactly(frames)

    def _cascade_exactly(self, frames: Tensor) -> list[Detections]:
        boxes, owner = self._propose(frames.permute(0, 3, 1, 2).contiguous().float())
        pooling = AreaPooling(frames)
        boxes, owner = self._refine(pooling, frames.shape, boxes, owner)
        box, points, score, found = self._finish(pooling, frames.shape, boxes, owner)
        return [
            Detections.largest_first(box[found == n], points[found == n], score[found == n]) for n in range(len(frames))
        ]

    def _propose(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates of all pyramid levels: boxes [n, 5] with scores, squared; the frame each belongs to [n]."""
        height, width = pictures.shape[2:]
        scales = self.params.scales(height, width)
        if not scales:
            return torch.zeros((0, 5), device=self.device), torch.zeros(0, dtype=torch.long, device=self.device)
        # All levels are looked at before anything waits for the device to say how many cells passed.
        levels = [self._look_at_level(pictures, scale) for scale in scales]
        level = torch.repeat_interleave(
            torch.arange(len(scales), device=self.device),
            torch.tensor([cells.shape[1] for cells in levels], device=self.device),
        )
        boxes, owner, at = _candidates(torch.cat(levels, dim=1), self.params.pnet_threshold)
        kept = grouped_nms(boxes[:, :4], boxes[:, 4], owner * len(scales) + level[at], LEVEL_NMS_IOU)
        boxes, owner = boxes[kept], owner[kept]
        kept = grouped_nms(boxes[:, :4], boxes[:, 4], owner, MERGED_NMS_IOU)
        boxes, owner = boxes[kept], owner[kept]
        sides = (boxes[:, 2:4] - boxes[:, 0:2]).repeat(1, 2)
        refined = boxes[:, :4] + boxes[:, 5:9] * sides
        return _squared(torch.cat([refined, boxes[:, 4:5]], dim=1)), owner

    def _look_at_level(self, pictures: Tensor, scale: float) -> Tensor:
        """P-Net's answer for each cell of a level, [B, cells, 9]: box in frame pixels, probability, four shifts."""
        height, width = pictures.shape[2:]
        size = level_size(height, width, scale)
        pixels = _normalise(torch.nn.functional.interpolate(pictures, size=size, mode="area"))
        shift, probability = self._pnet(pixels.contiguous(memory_format=torch.channels_last))
        rows, columns = shift.shape[2:]
        y, x = torch.meshgrid(
            torch.arange(rows, device=self.device), torch.arange(columns, device=self.device), indexing="ij"
        )
        cell = torch.stack([x, y], dim=2).reshape(-1, 2).to(shift.dtype)
        start = ((STRIDE_PX * cell + 1) / scale).floor()
        end = ((STRIDE_PX * cell + CELL_PX - 1 + 1) / scale).floor()
        box = torch.cat([start, end], dim=1).expand(len(pictures), -1, -1)
        return torch.cat([box, probability[:, 1].reshape(len(pictures), -1, 1), shift.flatten(2).mT], dim=2)

    def _refine(
        self, pooling: AreaPooling, shape: tuple[int, ...], boxes: Tensor, owner: Tensor
    ) -> tuple[Tensor, Tensor]:
        crops, boxes, owner = _pooled(pooling, boxes, owner, size_px=24, height=shape[1], width=shape[2])
        if not len(boxes):
            return boxes, owner
        shift, probability = _in_blocks(self._rnet, crops)
        score = probability[:, 1]
        passed = score > self.params.rnet_threshold
        boxes = torch.cat([boxes[passed, :4], score[passed, None]], dim=1)
        owner, shift = owner[passed], shift[passed]
        kept = grouped_nms(boxes[:, :4], boxes[:, 4], owner, MERGED_NMS_IOU)
        return _squared(_regressed(boxes[kept], shift[kept])), owner[kept]

    def _finish(
        self, pooling: AreaPooling, shape: tuple[int, ...], boxes: Tensor, owner: Tensor
    ) -> tuple[np.ndarray, ...]:
        crops, boxes, owner = _pooled(pooling, boxes, owner, size_px=48, height=shape[1], width=shape[2])
        if not len(boxes):
            return np.zeros((0, 4), "f4"), np.zeros((0, 5, 2), "f4"), np.zeros(0, "f4"), np.zeros(0, int)
        shift, relative, probability = _in_blocks(self._onet, crops)
        score = probability[:, 1]
        passed = score > self.params.onet_threshold
        boxes = torch.cat([boxes[passed, :4], score[passed, None]], dim=1)
        owner, shift, relative = owner[passed], shift[passed], relative[passed]
        side = boxes[:, 2:4] - boxes[:, 0:2] + 1
        points = torch.stack(
            [
                side[:, 0:1] * relative[:, :5] + boxes[:, 0:1] - 1,
                side[:, 1:2] * relative[:, 5:] + boxes[:, 1:2] - 1,
            ],
            dim=2,
        )
        boxes = _regressed(boxes, shift)
        box, found, point = boxes.cpu().numpy(), owner.cpu().numpy(), points.cpu().numpy()
        kept = _nms_by_smaller(box, found)
        return box[kept, :4], point[kept], box[kept, 4], found[kept]


def _normalise(pictures: Tensor) -> Tensor:
    return (pictures - 127.5) * 0.0078125


def _candidates(cells: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cells [B, cells, 9] that pass: what is known of each [n, 9], its frame [n], its number there [n]."""
    owner, at = torch.nonzero(cells[:, :, 4] >= threshold, as_tuple=True)
    return cells[owner, at], owner, at


def _regressed(boxes: Tensor, shift: Tensor) -> Tensor:
    side = (boxes[:, 2:4] - boxes[:, 0:2] + 1).repeat(1, 2)
    return torch.cat([boxes[:, :4] + shift * side, boxes[:, 4:5]], dim=1)


def _squared(boxes: Tensor) -> Tensor:
    """Boxes widened around their centre to squares."""
    side = boxes[:, 2:4] - boxes[:, 0:2]
    longest = side.max(dim=1, keepdim=True).values
    start = boxes[:, 0:2] + side * 0.5 - longest * 0.5
    return torch.cat([start, start + longest, boxes[:, 4:5]], dim=1)


def _pooled(
    pooling: AreaPooling, boxes: Tensor, owner: Tensor, *, size_px: int, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Network inputs [n, 3, size, size] of the boxes' part inside the frame; boxes wholly outside are dropped."""
    whole = boxes[:, :4].trunc().long()
    start = whole[:, :2].clamp(min=1) - 1
    end = torch.stack([whole[:, 2].clamp(max=width), whole[:, 3].clamp(max=height)], dim=1)
    inside = (end > start).all(dim=1)
    boxes, owner = boxes[inside], owner[inside]
    crops = pooling.pool(torch.cat([start, end], dim=1)[inside], owner, size_px=size_px)
    return _normalise(crops), boxes, owner


def _in_blocks(network: torch.nn.Module, crops: Tensor) -> tuple[Tensor, ...]:
    parts = [network(block) for block in crops.split(_CROPS_CPU if crops.device.type == "cpu" else _CROPS_GPU)]
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def _nms_by_smaller(boxes: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Greedy suppression by overlap with the smaller of two boxes; best score first within each frame."""
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    order, kept = np.argsort(boxes[:, 4], kind="stable")[::-1], []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.minimum(boxes[best, 2], boxes[rest, 2]) - np.maximum(boxes[best, 0], boxes[rest, 0]) + 1
        height = np.minimum(boxes[best, 3], boxes[rest, 3]) - np.maximum(boxes[best, 1], boxes[rest, 1]) + 1
        overlap = np.maximum(0, width) * np.maximum(0, height) / np.minimum(area[best], area[rest])
        order = rest[(overlap <= FINAL_NMS_IOMIN) | (owner[rest] != owner[best])]
    return np.array(kept, dtype=int)
