"""Backbones in torch: the network, its input, and its two parts for other engines.

``registry`` holds the specs, ``weights`` finds the weights files, ``cpu`` and ``gpu`` run the same networks faster.

A network has an early and a late part, because the first layers of EfficientNets and MobileNets need more precision
than the others, which do most of the work (measurements: docs/performance.md). For any other timm architecture, all
layers up to the embedding are early, so it runs in float32 on processors until its parts are added to
``run_early_layers`` and ``run_late_layers``.
"""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import EfficientNet, MobileNetV3, get_pretrained_cfg_value
from torch import Tensor, nn

from data_contracts.vocabulary import Precision
from models.backbones.extractor import FeatureExtractor
from models.backbones.registry import BackboneSpec
from models.backbones.resizing import resize_to_square
from models.backbones.weights import IMAGENET_LITE0, bundled_path, spec_of, weights_digest
from models.engines.batch_size import BatchSize

# On a CPU, the activations of a few images stay in the cache; larger batches are slower.
_BATCH_CPU, _BATCH_GPU = 16, 128
# In bfloat16 these layers, whose sums have few terms, would distort the embedding.
_EARLY_BLOCKS = 2
# ITU-R BT.601
_LUMINANCE = (0.299, 0.587, 0.114)


def load_backbone(
    name: str, *, weights: Path | None = None, device: str = "cpu", precision: Precision = "float32"
) -> "Backbone":
    """Return the backbone of that name with the bundled weights or those of a safetensors file.

    The file holds the state dict of the timm architecture. Its metadata may hold, under ``affwild2``, a JSON object of
    spec fields (class names, mean, input size, ...) that replace the registry's.

    Raises:
        ValueError: unknown name, no weights available, or a file that does not fit; the message names the tensor.
    """
    spec = spec_of(name, weights)
    tensors = _read_tensors(weights) if weights else _read_bundled_tensors(spec)
    outputs = tensors.get(f"{class_layer_name(spec)}.weight", torch.empty(0)).shape[0]
    if outputs and outputs != len(spec.class_names):
        raise ValueError(
            f"{weights}: classifier has {outputs} outputs, expected names for them in the file's metadata, "
            f"got {len(spec.class_names)} ({', '.join(spec.class_names[:3])}, ...)"
        )
    digest = weights_digest(name, str(weights) if weights else None)
    return Backbone(spec, tensors, digest, device=device, precision=precision)


def _read_bundled_tensors(spec: BackboneSpec) -> dict[str, Tensor]:
    if spec.name != IMAGENET_LITE0:
        return _read_tensors(Path(bundled_path(spec)))
    # The names differ from timm's; the order of the tensors is the same.
    published = torch.load(bundled_path(spec), map_location="cpu", weights_only=True)
    expected = build_network(spec).state_dict()
    assert len(published) == len(expected), f"{len(published)} tensors, expected {len(expected)}"
    return dict(zip(expected, published.values(), strict=True))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a complete safetensors file with weights, got: {error}") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: expected finite weights, got NaN or infinity in tensor {name}")
    return tensors


def class_layer_name(spec: BackboneSpec) -> str:
    """Return the dotted name of the class layer in the architecture: ``classifier``, ``fc``, ``head.fc``, ..."""
    return str(get_pretrained_cfg_value(spec.architecture, "classifier"))


def build_network(spec: BackboneSpec) -> Any:
    """Build the timm network of a spec with random weights.

    Raises:
        ValueError: the architecture's embedding has another size than the spec states.
    """
    options: dict[str, Any] = {"pad_type": spec.pad_type} if spec.pad_type else {}
    if spec.bn_eps:
        options["bn_eps"] = spec.bn_eps
    network = timm.create_model(spec.architecture, pretrained=False, num_classes=len(spec.class_names), **options)
    if network.head_hidden_size != spec.embedding_size:
        raise ValueError(
            f"{spec.name}: expected embedding_size {network.head_hidden_size}, that of {spec.architecture}, "
            f"got {spec.embedding_size}"
        )
    if spec.feature_layer:
        hidden = nn.Linear(spec.embedding_size, spec.feature_layer)
        activation = nn.ReLU() if spec.feature_activation == "relu" else nn.Identity()
        layers = nn.Sequential(hidden, activation, nn.Linear(spec.feature_layer, len(spec.class_names)))
        network.set_submodule(class_layer_name(spec), layers)
    return network


def load_tensors(network: nn.Module, tensors: dict[str, Tensor], *, name: str) -> None:
    """Load all weights of a network; ``name`` is the network's name in errors.

    Raises:
        ValueError: a tensor is missing, has another shape, or is not in the network; the message names it.
    """
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
    """Return a network's input, float32 [n, 3, px, px], for images uint8 [n, px, px, 3] of the right size.

    For ``grey``, all three channels are the luminance of ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    """
    return normalise_by(pixels, channel_constants(spec, pixels.device), is_grey=spec.channel_order == "grey")


def channel_constants(spec: BackboneSpec, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and standard deviation in pixel values, and the weights of luminance, each [1, 3, 1, 1]."""
    mean, std, luminance = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (spec.mean, spec.std, _LUMINANCE)
    )
    return mean * spec.scale, std * spec.scale, luminance


def normalise_by(pixels: Tensor, constants: tuple[Tensor, Tensor, Tensor], *, is_grey: bool) -> Tensor:
    """Normalise as ``normalise`` does, with constants that are already on the device."""
    mean, std, luminance = constants
    x = pixels.permute(0, 3, 1, 2).float()
    if is_grey:
        x = (x * luminance).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return (x - mean) / std


class Backbone(FeatureExtractor):
    """A backbone in torch, on a processor or GPU.

    Every batch is padded with black images to one size, so that the features of an image are the same bits whatever
    other images are in its batch, on one machine with one number of threads.

    Attributes:
        network: the timm network in evaluation mode; its input must be normalised.
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
        load_tensors(network, tensors, name=spec.name)
        self.network: Any = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self._batch = BatchSize(_BATCH_CPU if self.device.type == "cpu" else _BATCH_GPU, is_padded=True)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The network's weights by name."""
        return self.network.state_dict()

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        """Return the normalised input [n, 3, input_px, input_px] of RGB uint8 images of any size."""
        resized = [resize_to_square(image, self.spec.input_px, self.spec.interpolation) for image in images]
        return normalise(torch.from_numpy(np.stack(resized)).to(self.device), self.spec)

    def _run_batches(self, images: Sequence[np.ndarray]) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray]]]:
        return self._batch.run_batches(len(images), lambda batch: self._run_batch(images[batch]))

    @torch.inference_mode()
    def _run_batch(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        pixels = self.preprocess(images)
        count = len(pixels)
        pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self._batch.size - count))
        embeddings, logits = self._run(pixels.contiguous(memory_format=torch.channels_last))
        return embeddings[:count].float().cpu().numpy(), logits[:count].float().cpu().numpy()

    def _run(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings and logits. With bfloat16, the early part stays in float32."""
        early = run_early_layers(self.network, pixels)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            return run_late_layers(self.network, early)


def has_known_layers(network: nn.Module) -> bool:
    """Return whether the network is of timm's EfficientNets and MobileNets, which share the names of their layers."""
    return isinstance(network, EfficientNet | MobileNetV3)


def run_early_layers(network: Any, x: Tensor) -> Tensor:
    """Map normalised images [n, 3, h, w] to the output of the early part.

    The output is [n, c, h, w], or the embeddings [n, D] of an architecture without known layers.
    """
    if not has_known_layers(network):
        return network.forward_head(network.forward_features(x), pre_logits=True)
    return network.blocks[:_EARLY_BLOCKS](network.bn1(network.conv_stem(x)))


def run_late_layers(network: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Map the output of the early part to embeddings [n, D] and logits [n, C]."""
    if not has_known_layers(network):
        return x, network.get_classifier()(x)
    x = network.blocks[_EARLY_BLOCKS:](x)
    if isinstance(network, EfficientNet):
        # MobileNetV3 has this layer after its pooling, in the head.
        x = network.bn2(network.conv_head(x))
    embeddings = network.forward_head(x, pre_logits=True)
    return embeddings, network.get_classifier()(embeddings)


class ConvertibleNetwork(nn.Module):
    """A copy of a backbone, or of its early or late part, for converters to other formats.

    The input is uint8 images [n, px, px, 3] or, for the late part, the output of the early part. The output is
    embeddings [n, D] and logits [n, C] or, for the early part, the input of the late part.
    """

    def __init__(self, backbone: Backbone, part: Literal["whole", "early", "late"] = "whole") -> None:
        super().__init__()
        self._part = part
        # Converters need the contiguous memory layout; the original is channels-last.
        self.network: Any = copy.deepcopy(backbone.network).to(memory_format=torch.contiguous_format)
        self._constants = channel_constants(backbone.spec, torch.device("cpu"))
        self._is_grey = backbone.spec.channel_order == "grey"
        self.eval()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the output of the part."""
        if self._part != "late":
            x = run_early_layers(self.network, normalise_by(x, self._constants, is_grey=self._is_grey))
        return x if self._part == "early" else run_late_layers(self.network, x)
