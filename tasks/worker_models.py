"""Networks of this worker process: each loaded once, on first use, so that a load error is that unit's error.

Which engine runs them is decided here, and only its packages are imported: a worker without a GPU starts without torch.
"""

import functools
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from models.backbone_specs import BackboneSpec, Precision
from models.detection import Detections, DetectorParams
from models.devices import default_device, default_engine
from models.following import FaceFollower, SearchingDetector

logger = logging.getLogger(__name__)
_lock = threading.Lock()


class FaceDetector(Protocol):
    """Finds every face in frames of one size."""

    params: DetectorParams

    def detect(self, frames: np.ndarray) -> list[Detections]:
        """Faces of each frame, RGB uint8 [B, H, W, 3]."""


class Backbone(Protocol):
    """Looks at faces."""

    spec: BackboneSpec
    engine: str

    def extract(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings float32 [n, D] and logits float32 [n, C] of RGB uint8 pictures [h, w, 3]."""


@functools.cache
def _detector(params: DetectorParams, one_size: bool) -> FaceDetector:
    engine = default_engine()
    logger.info("detector: %s on %s", engine, default_device())
    if engine == "openvino":
        from models.mtcnn_cpu import CpuFaceDetector

        return CpuFaceDetector(params, one_size=one_size)
    from models.mtcnn import FaceDetector as TorchFaceDetector

    return TorchFaceDetector(params, device=default_device())


@functools.cache
def _backbone(name: str, weights: str | None, precision: Precision) -> Backbone:
    path = Path(weights) if weights else None
    found: Backbone
    if default_engine() == "openvino":
        from models.backbones_cpu import CpuBackbone

        found = CpuBackbone(name, weights=path, precision=precision)
    else:
        from models.backbones import load_backbone

        found = load_backbone(name, weights=path, device=default_device(), precision=precision)
    logger.info("backbone %s: %s", name, found.engine)
    return found


def get_detector(params: DetectorParams, *, one_size: bool = True) -> FaceDetector:
    """This process's detector with these parameters; ``one_size``: many frames of each size will come."""
    with _lock:
        return _detector(params, one_size)


def follow_faces(params: DetectorParams) -> FaceFollower | None:
    """Somebody to follow the faces of one video; None where every frame is searched by itself.

    That is so if the parameters say it, and on engines that search many frames at once.
    """
    detector = get_detector(params)
    if params.search_every_frames > 1 and isinstance(detector, SearchingDetector):
        return FaceFollower(detector)
    return None


def get_backbone(name: str, weights: str | None, precision: Precision) -> Backbone:
    """This process's backbone with these weights."""
    with _lock:
        return _backbone(name, weights, precision)
