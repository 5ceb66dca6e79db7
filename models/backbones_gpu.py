"""Backbones for GPUs: the networks of ``backbones`` in half precision, resizing and normalisation on the device.

Batch normalisation is folded into the convolutions before it, the layout is channels-last, and all of the network is
one captured graph. Batches are of one size, so a picture's features do not depend on the others with it.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.backbone_weights import resize_to_square
from models.backbones import load_backbone, normalise, run_early_layers, run_late_layers
from models.batch_size import BatchSize
from models.captured_graph import CapturedGraph
from models.device_resize import LARGEST_PX, DeviceResize
from models.precision import Precision

_BATCH = 256


class GpuBackbone:
    """A network ready to look at faces; an object serves one thread at a time."""

    def __init__(
        self, name: str, *, weights: Path | None = None, device: str = "cuda", precision: Precision = "bfloat16"
    ) -> None:
        """``weights``: a safetensors file instead of the bundled ones.

        Raises:
            ValueError: unknown name, no weights to be had, or a file that does not fit.
        """
        plain = load_backbone(name, weights=weights, device=device)
        self.spec, self.weights_digest, self._device = plain.spec, plain.weights_digest, plain.device
        self.engine = f"torch on {device}, {precision}, captured graph"
        self._half = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._network = folded(plain.network).to(memory_format=torch.channels_last)
        self._resizer = DeviceResize(self.spec.input_px, device=self._device)
        self._batch = BatchSize(_BATCH, filled_up=True)
        self._graph: tuple[int, CapturedGraph] | None = None
        self._memory = torch.empty(_BATCH * LARGEST_PX**2 * 3, dtype=torch.uint8, pin_memory=device != "cpu").numpy()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of the logits."""
        return self.spec.class_names

    @torch.inference_mode()
    def extract(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings float32 [n, D] and logits float32 [n, C] of RGB uint8 pictures [h, w, 3].

        Raises:
            FloatingPointError: the network gives values that are not finite.
            MemoryError: the GPU has not enough memory for one picture.
        """
        embeddings = np.empty((len(images), self.spec.embedding_size), np.float32)
        logits = np.empty((len(images), len(self.class_names)), np.float32)
        for block, (found, scores) in self._batch.blocks(len(images), lambda block: self._run_block(images[block])):
            embeddings[block], logits[block] = found, scores
        if not (np.isfinite(embeddings).all() and np.isfinite(logits).all()):
            raise FloatingPointError(f"backbone {self.spec.name}: expected finite features, got NaN or infinity")
        return embeddings, logits

    def _run_block(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        count, size = len(images), self._batch.size
        squares = nn.functional.pad(self.resized(images), (0, 0, 0, 0, 0, 0, 0, size - count))
        if self._graph is None or self._graph[0] != size:
            self._graph = None
            self._graph = size, CapturedGraph(self._run, squares)
        found, scores = self._graph[1](squares)
        return found[:count].cpu().numpy(), scores[:count].cpu().numpy()

    def resized(self, images: Sequence[np.ndarray]) -> Tensor:
        """The network's input before it is normalised, uint8 [n, input_px, input_px, 3] on the device."""
        size = self.spec.input_px
        # Crops of the store are smaller; what is not is made small here.
        fitting = [image if max(image.shape) <= LARGEST_PX else resize_to_square(image, size) for image in images]
        places, layout = (
            torch.from_numpy(part).to(self._device, non_blocking=True)
            for part in self._resizer.pack(fitting, self._memory)
        )
        return self._resizer.resize(places, layout)

    def _run(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        # TF32 for convolutions would be neither of the two precisions.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._run_exactly(squares)

    def _run_exactly(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        pixels = normalise(squares, self.spec).contiguous(memory_format=torch.channels_last)
        early = run_early_layers(self._network, pixels)
        with torch.autocast(self._device.type, self._half, enabled=self._half != torch.float32):
            embeddings, logits = run_late_layers(self._network, early)
        return embeddings.float(), logits.float()


def folded(network: nn.Module) -> Any:
    """A copy of a network in evaluation mode whose normalisations are part of the convolutions before them."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        before: tuple[str, nn.Module | None] = ("", None)
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(before[1], nn.Conv2d):
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(parent, name, getattr(child, "act", nn.Identity()))
            before = (name, child)
    return network
