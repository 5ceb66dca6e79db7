"""Networks of this worker process: loaded on first use and kept, so that a load error belongs to the unit at work.

Networks of OpenVINO are loaded once per thread, because a request serves one thread at a time. This module selects the
engine and imports only its packages: a worker without a GPU starts without torch.
"""

import functools
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.vocabulary import Precision
from models.backbones.extractor import FeatureExtractor
from models.engines.devices import block_while_waiting_for_gpu, default_device, default_engine
from models.faces.detection import DetectorParams
from models.faces.following import FaceFollower, SearchingDetector

if TYPE_CHECKING:
    from models.faces.mtcnn import FaceDetector
    from models.faces.mtcnn_cpu import CpuFaceDetector

logger = logging.getLogger(__name__)
_lock = threading.Lock()


def _owner() -> int:
    """Return the thread that owns a network of OpenVINO; 0 for torch, whose networks all threads share."""
    return threading.get_ident() if default_engine() == "openvino" else 0


@functools.cache
def _load_detector(params: DetectorParams, owner: int) -> "FaceDetector | CpuFaceDetector":
    engine = default_engine()
    logger.info("detector: %s on %s", engine, default_device())
    if engine == "openvino":
        from models.faces.mtcnn_cpu import CpuFaceDetector

        return CpuFaceDetector(params)
    from models.faces.mtcnn import FaceDetector

    block_while_waiting_for_gpu()
    return FaceDetector(params, device=default_device())


@functools.cache
def _load_backbone(name: str, weights: str | None, precision: Precision, owner: int) -> FeatureExtractor:
    path, engine = Path(weights) if weights else None, default_engine()
    logger.info("backbone %s: %s on %s", name, engine, default_device())
    if engine == "openvino":
        from models.backbones.cpu import CpuBackbone

        return CpuBackbone(name, weights=path, precision=precision)
    if default_device() == "cuda":
        from models.backbones.gpu import GpuBackbone

        block_while_waiting_for_gpu()
        return GpuBackbone(name, weights=path, precision=precision)
    from models.backbones.network import load_backbone

    return load_backbone(name, weights=path, precision=precision)


def get_detector(params: DetectorParams) -> "FaceDetector | CpuFaceDetector":
    """Return the detector with these parameters for the current thread."""
    with _lock:
        return _load_detector(params, _owner())


def get_follower(params: DetectorParams) -> FaceFollower | None:
    """Return a face follower for one video, or None if every frame is searched by itself.

    There is no follower if ``search_every_frames`` is 1, or on engines that search many frames at once.
    """
    detector = get_detector(params)
    if params.search_every_frames > 1 and isinstance(detector, SearchingDetector):
        return FaceFollower(detector)
    return None


def get_backbone(name: str, weights: str | None, precision: Precision) -> FeatureExtractor:
    """Return the backbone with these weights for the current thread."""
    with _lock:
        return _load_backbone(name, weights, precision, _owner())
