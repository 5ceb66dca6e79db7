"""Networks of this worker process: each loaded once, on first use, so that a load error is that unit's error."""

import functools
import threading
from pathlib import Path

from models.backbones import Backbone, load_backbone
from models.devices import default_device
from models.mtcnn import DetectorParams, FaceDetector

_lock = threading.Lock()


@functools.cache
def _detector(params: DetectorParams) -> FaceDetector:
    return FaceDetector(params, device=default_device())


@functools.cache
def _backbone(name: str, weights: str | None) -> Backbone:
    return load_backbone(name, weights=Path(weights) if weights else None, device=default_device())


def get_detector(params: DetectorParams) -> FaceDetector:
    """This process's detector with these parameters."""
    with _lock:
        return _detector(params)


def get_backbone(name: str, weights: str | None) -> Backbone:
    """This process's backbone with these weights."""
    with _lock:
        return _backbone(name, weights)
