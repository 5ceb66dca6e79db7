"""The reference pipeline: PyAV, facenet-pytorch frame by frame, PIL, and a timm network in batches of 96.

A new implementation of the published method (Savchenko 2022 and its notebooks), in one process with all threads of
torch.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from models.backbones.network import Backbone
from models.backbones.registry import BackboneSpec

BATCH = 96


def decode_frames(path: Path) -> Iterator[np.ndarray]:
    """Decode frames with PyAV's defaults, RGB uint8 [h, w, 3]."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def make_detector(min_face_px: int = 40) -> MTCNN:
    """Return facenet-pytorch's detector, set to return all faces."""
    return MTCNN(keep_all=True, min_face_size=min_face_px, post_process=False)


def crop_box(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return all pixels that a box covers at least in part."""
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    return frame[top : math.ceil(box[3]), left : math.ceil(box[2])]


def make_transform(spec: BackboneSpec) -> Compose:
    """Return the transform: resize with PIL, ToTensor, Normalize."""
    size = (spec.input_px, spec.input_px)

    def grey(x: torch.Tensor) -> torch.Tensor:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        return (x * weights).sum(0, keepdim=True).expand(3, -1, -1)

    steps = [lambda image: image.resize(size, Image.Resampling.BILINEAR), ToTensor()]
    return Compose([*steps, *([grey] if spec.channel_order == "grey" else []), Normalize(spec.mean, spec.std)])


@torch.inference_mode()
def compute_features(network: torch.nn.Module, images: Iterable[Image.Image], spec: BackboneSpec) -> np.ndarray:
    """Compute embeddings in batches; float32 [n, D]."""
    transform, embeddings, batch = make_transform(spec), [], []

    def flush() -> None:
        if batch:
            x = network.forward_features(torch.stack(batch))
            embeddings.append(network.forward_head(x, pre_logits=True).numpy())
            batch.clear()

    for image in images:
        batch.append(transform(image))
        if len(batch) == BATCH:
            flush()
    flush()
    return np.concatenate(embeddings)


def plain_network(backbone: Backbone) -> torch.nn.Module:
    """Return the network as timm creates it: float32 in the default memory layout."""
    return backbone.network.float().to(memory_format=torch.contiguous_format)


def compute_video_features(
    path: Path, network: torch.nn.Module, spec: BackboneSpec, *, largest_only: bool
) -> np.ndarray:
    """Compute embeddings of the faces of a video, frame by frame, the largest face first."""
    detector = make_detector()

    def faces() -> Iterator[Image.Image]:
        for frame in decode_frames(path):
            boxes, _ = detector.detect(frame)
            for box in [] if boxes is None else boxes[:1] if largest_only else boxes:
                yield Image.fromarray(crop_box(frame, box))

    return compute_features(network, faces(), spec)
