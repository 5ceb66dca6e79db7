"""Backbones in torch: pictures of faces in, embeddings and logits out, in one pass.

The registry is in ``backbone_specs``, weights are found by ``backbone_weights``; the fast way on processors, which is
made from these networks, is in ``backbones_cpu``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import EfficientNet
from torch import Tensor, nn

from models.backbones.registry import BackboneSpec, get_spec
from models.backbones.weights import IMAGENET_LITE0, bundled_path, resize_to_square, spec_of, weights_digest
from models.engines.batch_size import BatchSize
from models.engines.precision import Precision

# Activations of a few pictures stay in the cache of a CPU; larger batches are slower there.
_BATCH_CPU, _BATCH_GPU = 16, 128
# Rounded to bfloat16, these layers, whose sums are of few terms, would spoil the embedding.
_EARLY_BLOCKS = 2
_LUMINANCE = (0.299, 0.587, 0.114)


def load_backbone(
    name: str, *, weights: Path | None = None, device: str = "cpu", precision: Precision = "float32"
) -> "Backbone":
    """The backbone of that name, with the bundled weights or those of a safetensors file.

    The file holds the state dict of the timm architecture; its metadata may hold, under ``affwild2``, a JSON object
    of spec fields (class names, mean, input size, ...) that replace the registry's.

    Raises:
        ValueError: unknown name, no weights to be had, or a file that does not fit; one line says which tensor.
    """
    if weights is None:
        tensors, digest = _bundled_tensors(get_spec(name)), weights_digest(name)
        return Backbone(get_spec(name), tensors, digest, device=device, precision=precision)
    spec, tensors = spec_of(name, weights), _read_tensors(weights)
    outputs = tensors.get("classifier.weight", torch.empty(0)).shape[0]
    if outputs and outputs != len(spec.class_names):
        raise ValueError(
            f"{weights}: classifier has {outputs} outputs, expected names for them in the file's metadata, "
            f"got {len(spec.class_names)} ({', '.join(spec.class_names[:3])}, ...)"
        )
    return Backbone(spec, tensors, weights_digest(name, str(weights)), device=device, precision=precision)


def _bundled_tensors(spec: BackboneSpec) -> dict[str, Tensor]:
    if spec.name != IMAGENET_LITE0:
        return _read_tensors(Path(bundled_path(spec)))
    # Other names, but tensor for tensor in the order of timm's.
    theirs = torch.load(bundled_path(spec), map_location="cpu", weights_only=True)
    ours = build_network(spec).state_dict()
    assert len(theirs) == len(ours), f"{len(theirs)} tensors, expected {len(ours)}"
    return dict(zip(ours, theirs.values(), strict=True))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
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


def normalise(pixels: Tensor, spec: BackboneSpec) -> Tensor:
    """A network's input, float32 [n, 3, px, px], of pictures uint8 [n, px, px, 3] of the right size.

    Luminance is that of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    """
    return normalise_by(pixels, channel_constants(spec, pixels.device), grey=spec.channel_order == "grey")


def channel_constants(spec: BackboneSpec, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation in pixel values, and the weights of luminance, each [1, 3, 1, 1]."""
    mean, std, luminance = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (spec.mean, spec.std, _LUMINANCE)
    )
    return mean * spec.scale, std * spec.scale, luminance


def normalise_by(pixels: Tensor, constants: tuple[Tensor, Tensor, Tensor], *, grey: bool) -> Tensor:
    """``normalise`` with constants that are on the device already."""
    mean, std, luminance = constants
    x = pixels.permute(0, 3, 1, 2).float()
    if grey:
        x = (x * luminance).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return (x - mean) / std


class Backbone:
    """A network ready to look at faces.

    Batches are always of one size, filled up with black: a picture's features are the same bits whatever other pictures
    are with it, on one machine with one number of threads.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        tensors: dict[str, Tensor],
        digest: str,
        *,
        device: str,
        precision: Precision = "float32",
    ) -> None:
        self.spec, self.weights_digest, self._precision = spec, digest, precision
        self.engine = f"torch on {device}, {precision}"
        self.device = torch.device(device)
        network = build_network(spec)
        _load_strictly(network, tensors, name=spec.name)
        self._network: Any = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self._batch = BatchSize(_BATCH_CPU if self.device.type == "cpu" else _BATCH_GPU, filled_up=True)

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
        for block, (found, scores) in self._batch.blocks(len(images), lambda block: self._run_block(images[block])):
            embeddings[block], logits[block] = found, scores
        if not (np.isfinite(embeddings).all() and np.isfinite(logits).all()):
            raise FloatingPointError(f"backbone {self.spec.name}: expected finite features, got NaN or infinity")
        return embeddings, logits

    def _run_block(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        pixels = self.preprocess(images)
        count = len(pixels)
        pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self._batch.size - count))
        found, scores = self._run(pixels.contiguous(memory_format=torch.channels_last))
        return found[:count].float().cpu().numpy(), scores[:count].float().cpu().numpy()

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits; in bfloat16 the first layers stay exact: see ``_EARLY_BLOCKS``."""
        early = run_early_layers(self._network, pixels)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            return run_late_layers(self._network, early)


def run_early_layers(network: Any, x: Tensor) -> Tensor:
    """Normalised pictures [n, 3, h, w] to what the second block of a network gives."""
    return network.blocks[:_EARLY_BLOCKS](network.bn1(network.conv_stem(x)))


def run_late_layers(network: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the second block gives to embeddings [n, D] and logits [n, C]."""
    x = network.blocks[_EARLY_BLOCKS:](x)
    if isinstance(network, EfficientNet):
        # The other family of networks has this layer behind its pooling, in the head.
        x = network.bn2(network.conv_head(x))
    embeddings = network.forward_head(x, pre_logits=True)
    return embeddings, network.classifier(embeddings)
