"""The MTCNN face detector: three networks in a cascade (Zhang et al. 2016, arXiv 1604.02878).

Frames in, boxes with landmarks and probabilities out. Results are those of facenet-pytorch 2.5.3
(`MTCNN(keep_all=True, post_process=False).detect(frame, landmarks=True)`), whose weights are used; the cascade around
them is ours and works on a batch of equally sized frames. It runs on a CPU or a GPU and is the reference for faster
ways. Not here: choosing whose face it is, cropping (`crops.py`), decoding video.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from models.area_pooling import integral_image, pool_windows
from models.boxes import (
    pixel_windows,
    regress_boxes,
    square_boxes,
    suppress_by_smaller,
    suppress_by_union,
)
from models.mtcnn_nets import detector_weights_digest, load_nets

__all__ = ["Detections", "DetectorParams", "FaceDetector", "detector_weights_digest"]

_PNET_SIDE_PX = 12
_PNET_STRIDE_PX = 2
_RNET_SIDE_PX = 24
_ONET_SIDE_PX = 48
# Candidates per forward pass. On a CPU larger passes fall out of the cache and take up to twice as long per crop.
_CROPS_PER_PASS = {"cpu": 64, "cuda": 2048}
# Integral images and P-Net activations of one pass over frames. 32 MiB is also where glibc starts to give every buffer
# back to the kernel, which costs more than the arithmetic.
_BYTES_PER_PASS = {"cpu": 1 << 25, "cuda": 1 << 30}


@dataclass(frozen=True)
class DetectorParams:
    """Settings of the cascade; the defaults of the thresholds and the pyramid are facenet-pytorch's.

    min_face_px: smallest face side to look for, at least 12 (P-Net's own window). It sets the pyramid's grid, so boxes
    of two settings differ by a few pixels even for faces that both find. *_threshold: probabilities in (0, 1).
    pyramid_factor: ratio of neighbouring pyramid levels, in [0.1, 0.95]. Raises ValueError.
    """

    min_face_px: int = 40
    pnet_threshold: float = 0.6
    rnet_threshold: float = 0.7
    onet_threshold: float = 0.7
    pyramid_factor: float = 0.709

    def __post_init__(self) -> None:
        if isinstance(self.min_face_px, bool) or not isinstance(self.min_face_px, int) or self.min_face_px < 12:
            raise ValueError(f"min_face_px: expected an integer of at least 12, got {self.min_face_px!r}")
        for name in ("pnet_threshold", "rnet_threshold", "onet_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a probability between 0 and 1, got {getattr(self, name)!r}")
        if not 0.1 <= self.pyramid_factor <= 0.95:
            raise ValueError(f"pyramid_factor: expected 0.1 to 0.95, got {self.pyramid_factor!r}")


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces of one frame, largest box first (equal areas: more probable first).

    box_xyxy_px: float32 [n, 4]; edges may lie outside the picture. landmarks_xy_px: float32 [n, 5, 2]: left eye, right
    eye, nose, left mouth corner, right mouth corner, left and right as the viewer of the picture sees them (the first
    point is the person's own right eye). probability: float32 [n] of O-Net. Raises ValueError on other shapes, types
    or order.
    """

    box_xyxy_px: np.ndarray
    landmarks_xy_px: np.ndarray
    probability: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.probability)
        for name, shape in (("box_xyxy_px", (n, 4)), ("landmarks_xy_px", (n, 5, 2)), ("probability", (n,))):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name}: expected float32 {list(shape)}, got {array.dtype} {list(array.shape)}")
        if np.any(np.diff(_area_px(self.box_xyxy_px)) > 0):
            raise ValueError("box_xyxy_px: expected the largest box first; build with Detections.by_area")

    @classmethod
    def by_area(cls, box_xyxy_px: np.ndarray, landmarks_xy_px: np.ndarray, probability: np.ndarray) -> Self:
        """Puts faces in any order into the order of the class."""
        order = np.lexsort((probability, _area_px(box_xyxy_px)))[::-1]
        return cls(box_xyxy_px[order], landmarks_xy_px[order], probability[order])

    @classmethod
    def none(cls) -> Self:
        """A frame without a face."""
        return cls(*(np.zeros(shape, dtype=np.float32) for shape in ((0, 4), (0, 5, 2), (0,))))

    def __len__(self) -> int:
        return len(self.probability)

    def __repr__(self) -> str:
        shapes = (f"{name}={list(getattr(self, name).shape)}" for name in self.__dataclass_fields__)
        return f"Detections({', '.join(shapes)})"


class _Candidates(NamedTuple):
    """Boxes on their way through the cascade, on the CPU, ordered by frame. int64 [n], float32 [n, 4], float32 [n]."""

    frame_index: Tensor
    box_xyxy_px: Tensor
    probability: Tensor

    def take(self, rows: Tensor) -> Self:
        return self._replace(**{name: values[rows] for name, values in self._asdict().items()})


class FaceDetector:
    """Finds all faces in frames. Holds the networks; one instance per worker process.

    device: as torch names it. On a GPU the networks and the pooling run there; box arithmetic stays on the CPU and is
    the same for every device.
    """

    def __init__(self, params: DetectorParams | None = None, *, device: str | torch.device = "cpu") -> None:
        self.params = params or DetectorParams()
        self.device = torch.device(device)
        self._nets = load_nets(self.device)

    def detect(self, frames: np.ndarray | Sequence[np.ndarray]) -> list[Detections]:
        """One Detections per frame, in order.

        frames: uint8 RGB [B, H, W, 3] or a sequence of equally sized [H, W, 3]. A frame without a face, or too small
        to hold one of min_face_px, gives an empty Detections. How frames are batched changes results by float32
        rounding only. Raises ValueError on other types or shapes, or frames of different sizes.
        """
        if len(frames) == 0:
            return []
        height, width = _check_frames(frames)
        levels = _pyramid_levels(height, width, self.params)
        if not levels:
            return [Detections.none() for _ in frames]
        step = self._frames_per_pass(height, width, levels[0])
        found: list[Detections] = []
        with torch.inference_mode(), _full_float32(self.device):
            for start in range(0, len(frames), step):
                found += self._detect_batch(np.stack(list(frames[start : start + step])), levels)
        return found

    def _frames_per_pass(self, height: int, width: int, largest_level: "_Level") -> int:
        channels_bytes = 12 * 4  # P-Net's first layer at the largest pyramid level is the biggest activation
        budget = _BYTES_PER_PASS.get(self.device.type, _BYTES_PER_PASS["cpu"])
        activation_bytes = largest_level.height * largest_level.width * channels_bytes
        integral_bytes = (height + 1) * (width + 1) * 3 * 4
        return max(1, min(budget // activation_bytes, 4 * budget // integral_bytes))

    def _detect_batch(self, frames: np.ndarray, levels: list["_Level"]) -> list[Detections]:
        integral = integral_image(frames, device=self.device)
        candidates = self._propose(integral, levels)
        candidates = self._refine(integral, candidates)
        return self._output(integral, candidates)

    def _propose(self, integral: Tensor, levels: list["_Level"]) -> _Candidates:
        """P-Net over the pyramid: a candidate for every cell that may be a face, thinned out, regressed, squared."""
        batch, rows, columns, _ = integral.shape
        all_frames = torch.arange(batch)
        whole = torch.tensor([[0, 0, columns - 1, rows - 1]]).expand(batch, 4)
        maps = []
        for level in levels:
            picture = pool_windows(
                integral, frame_index=all_frames, windows_xyxy_px=whole, height=level.height, width=level.width
            )
            maps.append(self._nets.proposal(picture))
        # All levels as one list of cells, so that a GPU waits for the CPU once and not once per level.
        cells = torch.cat([m.permute(0, 2, 3, 1).reshape(batch, -1, 6) for m in maps], dim=1)
        threshold = self.params.pnet_threshold
        near = math.log(threshold / (1 - threshold)) - 1e-3  # slightly loose: the exact test follows on the few left
        frame_index, cell = (cells[:, :, 1] - cells[:, :, 0] >= near).nonzero(as_tuple=True)
        values = cells[frame_index, cell].cpu()
        probability = values[:, :2].softmax(dim=1)[:, 1]
        passed = probability >= threshold
        level_index, boxes = _cell_boxes(cell.cpu()[passed], [m.shape[2:] for m in maps], levels)
        found = _Candidates(frame_index.cpu()[passed], boxes, probability[passed])
        offsets = values[passed, 2:]

        frame_level = found.frame_index * len(levels) + level_index
        kept = suppress_by_union(found.box_xyxy_px, found.probability, frame_level, threshold=0.5)
        found, offsets = found.take(kept), offsets[kept]
        kept = suppress_by_union(found.box_xyxy_px, found.probability, found.frame_index, threshold=0.7)
        found, offsets = found.take(kept), offsets[kept]
        boxes = regress_boxes(found.box_xyxy_px, offsets, last_pixel_inside=False)
        return found._replace(box_xyxy_px=square_boxes(boxes))

    def _refine(self, integral: Tensor, candidates: _Candidates) -> _Candidates:
        """R-Net on 24 px crops: most candidates go, the rest are regressed and squared."""
        candidates, (offsets, probabilities) = self._run_on_crops(
            self._nets.refine, integral, candidates, side_px=_RNET_SIDE_PX, widths=(4, 2)
        )
        passed = probabilities[:, 1] > self.params.rnet_threshold
        found = candidates._replace(probability=probabilities[:, 1]).take(passed)
        kept = suppress_by_union(found.box_xyxy_px, found.probability, found.frame_index, threshold=0.7)
        found = found.take(kept)
        boxes = regress_boxes(found.box_xyxy_px, offsets[passed][kept], last_pixel_inside=True)
        return found._replace(box_xyxy_px=square_boxes(boxes))

    def _output(self, integral: Tensor, candidates: _Candidates) -> list[Detections]:
        """O-Net on 48 px crops: final probabilities, landmarks and boxes."""
        candidates, (offsets, points, probabilities) = self._run_on_crops(
            self._nets.output, integral, candidates, side_px=_ONET_SIDE_PX, widths=(4, 10, 2)
        )
        passed = probabilities[:, 1] > self.params.onet_threshold
        found = candidates._replace(probability=probabilities[:, 1]).take(passed)
        # Landmarks are fractions of the box that O-Net saw, not of the one it corrects it to.
        sides = found.box_xyxy_px[:, None, 2:] - found.box_xyxy_px[:, None, :2] + 1
        fractions = points[passed].view(-1, 2, 5).transpose(1, 2)
        landmarks = sides * fractions + found.box_xyxy_px[:, None, :2] - 1
        boxes = regress_boxes(found.box_xyxy_px, offsets[passed], last_pixel_inside=True)
        kept = suppress_by_smaller(boxes, found.probability, found.frame_index, threshold=0.7)
        return _split_by_frame(found.take(kept)._replace(box_xyxy_px=boxes[kept]), landmarks[kept], batch=len(integral))

    def _run_on_crops(
        self, net: torch.nn.Module, integral: Tensor, candidates: _Candidates, *, side_px: int, widths: tuple[int, ...]
    ) -> tuple[_Candidates, list[Tensor]]:
        """The candidates that touch their picture, and the network's outputs for them: float32 [n, width] each, on CPU."""
        _, rows, columns, _ = integral.shape
        windows, inside = pixel_windows(candidates.box_xyxy_px, width=columns - 1, height=rows - 1)
        candidates, windows = candidates.take(inside), windows[inside]
        passes = []
        step = _CROPS_PER_PASS.get(self.device.type, _CROPS_PER_PASS["cpu"])
        for start in range(0, len(windows), step):
            part = slice(start, start + step)
            crops = pool_windows(
                integral,
                frame_index=candidates.frame_index[part],
                windows_xyxy_px=windows[part],
                height=side_px,
                width=side_px,
            )
            passes.append(net(crops))
        if not passes:
            return candidates, [torch.empty(0, width) for width in widths]
        return candidates, [torch.cat(outputs).cpu() for outputs in zip(*passes, strict=True)]
