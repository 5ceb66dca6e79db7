"""What everybody runs: PyAV, facenet-pytorch frame by frame, PIL, and a timm network in batches of 96. The reference.

Our own writing of the published way (Savchenko 2022 and its notebooks), in one process, with all threads of torch.
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


def decoded(path: Path) -> Iterator[np.ndarray]:
    """Frames as PyAV gives them by default, RGB uint8 [h, w, 3]."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def detector(min_face_px: int = 40) -> MTCNN:
    """facenet-pytorch's detector, which keeps all faces."""
    return MTCNN(keep_all=True, min_face_size=min_face_px, post_process=False)


def crop(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The pixels that a box touches."""
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    return frame[top : math.ceil(box[3]), left : math.ceil(box[2])]


def transform_of(spec: BackboneSpec) -> Compose:
    """Resize by PIL, ToTensor, Normalize."""
    size = (spec.input_px, spec.input_px)

    def grey(x: torch.Tensor) -> torch.Tensor:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        return (x * weights).sum(0, keepdim=True).expand(3, -1, -1)

    steps = [lambda image: image.resize(size, Image.Resampling.BILINEAR), ToTensor()]
    return Compose([*steps, *([grey] if spec.channel_order == "grey" else []), Normalize(spec.mean, spec.std)])


@torch.inference_mode()
def features(network: torch.nn.Module, images: Iterable[Image.Image], spec: BackboneSpec) -> np.ndarray:
    """Embeddings float32 [n, D], in batches, put together at the end."""
    transform, found, batch = transform_of(spec), [], []

    def flush() -> None:
        if batch:
            x = network.forward_features(torch.stack(batch))
            found.append(network.forward_head(x, pre_logits=True).numpy())
            batch.clear()

    for image in images:
        batch.append(transform(image))
        if len(batch) == BATCH:
            flush()
    flush()
    return np.concatenate(found)


def plain_network(backbone: Backbone) -> torch.nn.Module:
    """The network as timm makes it: float32 in the default memory layout."""
    return backbone.network.float().to(memory_format=torch.contiguous_format)


def video_features(path: Path, network: torch.nn.Module, spec: BackboneSpec, *, largest_only: bool) -> np.ndarray:
    """Embeddings of the faces of a video, frame by frame, largest face first."""
    finder = detector()

    def faces() -> Iterator[Image.Image]:
        for frame in decoded(path):
            boxes, _ = finder.detect(frame)
            for box in [] if boxes is None else boxes[:1] if largest_only else boxes:
                yield Image.fromarray(crop(frame, box))

    return features(network, faces(), spec)
