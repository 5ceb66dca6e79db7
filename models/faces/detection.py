"""Parameters, results and weights of the face detectors. Nothing here runs a network.

Networks, thresholds and the order of the cascade are those of MTCNN (Zhang et al. 2016, arXiv 1604.02878) in
facenet-pytorch. ``mtcnn`` is the cascade in torch, ``mtcnn_cpu`` the fast one for processors.
"""

import functools
import hashlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CELL_PX, STRIDE_PX = 12, 2
LEVEL_NMS_IOU, MERGED_NMS_IOU, FINAL_NMS_IOMIN = 0.5, 0.7, 0.7
NETWORKS = ("pnet", "rnet", "onet")


@dataclass(frozen=True)
class DetectorParams:
    """Smallest face in pixels, acceptance thresholds of the three networks, step of the image pyramid.

    ``search_every_frames``: the interval at which the whole frame of a video is searched while its only face is
    followed from frame to frame (see ``following``); 1 searches every frame.
    """

    min_face_px: int = 40
    pnet_threshold: float = 0.6
    rnet_threshold: float = 0.7
    onet_threshold: float = 0.7
    pyramid_factor: float = 0.709
    search_every_frames: int = 8

    def __post_init__(self) -> None:
        if self.min_face_px < CELL_PX:
            raise ValueError(f"min_face_px: expected at least {CELL_PX}, got {self.min_face_px}")
        if self.search_every_frames < 1:
            raise ValueError(f"search_every_frames: expected at least 1, got {self.search_every_frames}")
        for name in ("pnet_threshold", "rnet_threshold", "onet_threshold", "pyramid_factor"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name}: expected a value between 0 and 1, got {value}")

    def scales(self, height: int, width: int) -> list[float]:
        """Return the scales of the pyramid's levels for frames of that size in pixels, largest first."""
        scale = CELL_PX / self.min_face_px
        side, scales = min(height, width) * scale, []
        while side >= CELL_PX:
            scales.append(scale)
            scale *= self.pyramid_factor
            side *= self.pyramid_factor
        return scales


def level_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return height and width in pixels of a pyramid level."""
    return int(height * scale + 1), int(width * scale + 1)


def level_cells(height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of P-Net's output for a level of that size: 3x3, 2x2 pooling rounded up, 3x3, 3x3."""
    return math.ceil((height - 4) / STRIDE_PX) - 3, math.ceil((width - 4) / STRIDE_PX) - 3


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Faces of one frame, largest box first.

    Attributes:
        box_xyxy_px: float32 [n, 4]; may lie partly outside the frame.
        landmarks_xy_px: float32 [n, 5, 2]: eye, eye, nose, mouth corner, mouth corner; in each pair, the left one in
            the image comes first.
        probability: float32 [n], 0..1.
    """

    box_xyxy_px: np.ndarray
    landmarks_xy_px: np.ndarray
    probability: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.probability)
        shapes = self.box_xyxy_px.shape, self.landmarks_xy_px.shape, self.probability.shape
        if shapes != ((count, 4), (count, 5, 2), (count,)):
            raise ValueError(f"expected shapes (n, 4), (n, 5, 2), (n,), got {shapes}")

    def __len__(self) -> int:
        return len(self.probability)

    def __repr__(self) -> str:
        return f"Detections({len(self)} faces)"

    @classmethod
    def none(cls) -> "Detections":
        """Return detections without a face."""
        return cls(np.zeros((0, 4), "f4"), np.zeros((0, 5, 2), "f4"), np.zeros(0, "f4"))

    @classmethod
    def largest_first(cls, box: np.ndarray, landmarks: np.ndarray, probability: np.ndarray) -> "Detections":
        """Sort faces [n, 4], [n, 5, 2], [n] by descending area, equal areas by descending probability."""
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        order = np.lexsort((-probability, -area))
        return cls(box[order].astype("f4"), landmarks[order].astype("f4"), probability[order].astype("f4"))

    def select(self, face: int) -> "Detections":
        """Return detections with one of the faces."""
        at = slice(face, face + 1)
        return Detections(self.box_xyxy_px[at], self.landmarks_xy_px[at], self.probability[at])


def stack_frames(frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Stack frames [H, W, 3] of one size to RGB uint8 [B, H, W, 3], C-contiguous; no frames give [0, 0, 0, 3].

    Raises:
        ValueError: the frames have another shape or type.
    """
    if not len(frames):
        return np.zeros((0, 0, 0, 3), np.uint8)
    frames = frames if isinstance(frames, np.ndarray) else np.stack(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"expected uint8 frames [B, H, W, 3], got {frames.dtype} {frames.shape}")
    return np.require(frames, requirements=["C", "W"])


def detector_weights_file(network: str) -> Path:
    """Return the weights file of ``pnet``, ``rnet`` or ``onet`` without importing its package."""
    package = importlib.util.find_spec("facenet_pytorch")
    assert package is not None and package.submodule_search_locations, "facenet-pytorch is installed with affwild2"
    return Path(package.submodule_search_locations[0], "data", f"{network}.pt")


@functools.cache
def detector_weights_digest() -> str:
    """Return the sha256 (64 hex digits) over the files of the three networks."""
    digest = hashlib.sha256()
    for network in NETWORKS:
        digest.update(detector_weights_file(network).read_bytes())
    return digest.hexdigest()
