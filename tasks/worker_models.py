"""Networks of this worker process: each loaded once, on first use, so that a load error is that unit's error.

What serves one thread at a time is loaded once per thread that runs units: a worker of several threads has several
units at work. Which engine runs them is decided here, and only its packages are imported: a worker without a GPU starts
without torch.
"""

import functools
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from models.engines.devices import block_while_waiting_for_gpu, default_device, default_engine
from models.engines.precision import Precision
from models.faces.detection import DetectorParams
from models.faces.following import FaceFollower, SearchingDetector

if TYPE_CHECKING:
    from models.backbones.cpu import CpuBackbone
    from models.backbones.gpu import GpuBackbone
    from models.backbones.network import Backbone
    from models.faces.mtcnn import FaceDetector
    from models.faces.mtcnn_cpu import CpuFaceDetector

logger = logging.getLogger(__name__)
_lock = threading.Lock()


def _owner() -> int:
    """Whose a network is: OpenVINO's requests and our buffers are a thread's, torch's networks the process's."""
    return threading.get_ident() if default_engine() == "openvino" else 0


@functools.cache
def _detector(params: DetectorParams, owner: int) -> "FaceDetector | CpuFaceDetector":
    engine = default_engine()
    logger.info("detector: %s on %s", engine, default_device())
    if engine == "openvino":
        from models.faces.mtcnn_cpu import CpuFaceDetector

        return CpuFaceDetector(params)
    from models.faces.mtcnn import FaceDetector

    block_while_waiting_for_gpu()
    return FaceDetector(params, device=default_device())


@functools.cache
def _backbone(
    name: str, weights: str | None, precision: Precision, owner: int
) -> "Backbone | CpuBackbone | GpuBackbone":
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
    """The detector with these parameters, for this thread."""
    with _lock:
        return _detector(params, _owner())


def follow_faces(params: DetectorParams) -> FaceFollower | None:
    """Somebody to follow the faces of one video; None where every frame is searched by itself.

    That is so if the parameters say it, and on engines that search many frames at once.
    """
    detector = get_detector(params)
    if params.search_every_frames > 1 and isinstance(detector, SearchingDetector):
        return FaceFollower(detector)
    return None


def get_backbone(name: str, weights: str | None, precision: Precision) -> "Backbone | CpuBackbone | GpuBackbone":
    """The backbone with these weights, for this thread."""
    with _lock:
        return _backbone(name, weights, precision, _owner())
