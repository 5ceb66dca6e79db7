"""Backbones for GPUs: the networks of ``backbones``, compiled, with resizing and normalisation on the device.

Half precision is float16 here: as fast as bfloat16 and eight times as fine, so that no layer must stay exact. Batch
normalisation is folded into the convolutions before it, the layout is channels-last, and all that is done for a batch
is one captured graph. Batches are of one size, so a picture's features do not depend on the others with it.
"""

import contextlib
import copy
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.backbones.captured_graph import CapturedGraph
from models.backbones.gpu_resize import LARGEST_PX, DeviceResize
from models.backbones.network import channel_constants, load_backbone, normalise_by, run_early_layers, run_late_layers
from models.backbones.weights import resize_to_square
from models.engines.batch_size import BatchSize
from models.engines.precision import Precision

logger = logging.getLogger(__name__)
_BATCH = 256


class GpuBackbone:
    """A network ready to look at faces; an object serves one thread at a time."""

    def __init__(
        self, name: str, *, weights: Path | None = None, device: str = "cuda", precision: Precision = "bfloat16"
    ) -> None:
        """``weights``: a safetensors file instead of the bundled ones; ``precision``: half is float16 here.

        Raises:
            ValueError: unknown name, no weights to be had, or a file that does not fit.
        """
        plain = load_backbone(name, weights=weights, device=device)
        self.spec, self.weights_digest, self._device = plain.spec, plain.weights_digest, plain.device
        self._type = torch.float32 if precision == "float32" else torch.float16
        self.engine = f"torch on {device}, {str(self._type).removeprefix('torch.')}"
        self._network = folded(plain.network).to(self._type).to(memory_format=torch.channels_last)
        self._constants = channel_constants(self.spec, self._device)
        self._resizer = DeviceResize(self.spec.input_px, device=self._device)
        self._batch = BatchSize(_BATCH, filled_up=True)
        self._graph: tuple[int, CapturedGraph] | None = None
        shape = (_BATCH, LARGEST_PX, LARGEST_PX, 3)
        self._places = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")

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
        # TF32, which a GPU would take for float32, is neither of the two precisions.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for block, (found, scores) in self._batch.blocks(len(images), lambda block: self._run_block(images[block])):
                embeddings[block], logits[block] = found, scores
        if not (np.isfinite(embeddings).all() and np.isfinite(logits).all()):
            raise FloatingPointError(
                f"backbone {self.spec.name}: expected finite features, got NaN or infinity in {self.engine}"
            )
        return embeddings, logits

    def _run_block(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        size = self.spec.input_px
        # Crops of the store are smaller; what is not is made small here.
        fitting = [image if max(image.shape) <= LARGEST_PX else resize_to_square(image, size) for image in images]
        places = self._places[: self._batch.size]
        layout = torch.from_numpy(self._resizer.pack(fitting, places.numpy()))
        if self._graph is None or self._graph[0] != self._batch.size:
            self._graph = None
            examples = places.to(self._device), layout.to(self._device)
            self._graph = self._batch.size, CapturedGraph(compiled(self.run_squeezed, *examples), *examples)
        found, scores = self._graph[1](places, layout)
        return found[: len(images)].cpu().numpy(), scores[: len(images)].cpu().numpy()

    def run_squeezed(self, places: Tensor, layout: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits, float32, of pictures as ``DeviceResize.pack`` leaves them, on the device."""
        squares = self._resizer.resize(places, layout)
        pixels = normalise_by(squares, self._constants, grey=self.spec.channel_order == "grey").to(self._type)
        early = run_early_layers(self._network, pixels.contiguous(memory_format=torch.channels_last))
        embeddings, logits = run_late_layers(self._network, early)
        return embeddings.float(), logits.float()


def compiled(function: Callable[..., tuple[Tensor, ...]], *examples: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """The function with its small steps fused for a GPU; as it is on processors, and where there is no C compiler.

    Raises:
        torch.cuda.OutOfMemoryError: what it needs for these examples does not fit.
    """
    if examples[0].device.type != "cuda":
        return function
    fused = torch.compile(function, dynamic=False)
    try:
        with _one_of_many_compiles():
            fused(*examples)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("the network runs uncompiled, at a third of the speed (is a C compiler installed?): %s", cause)
        return function
    return fused


@contextlib.contextmanager
def _one_of_many_compiles() -> Iterator[None]:
    """Of the processes that begin at once, one compiles; the others wait, and find what it kept."""
    lock = FileLock(Path(tempfile.gettempdir(), f"affwild2-compiles-{os.getuid()}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        lock.acquire()
        lock.release()
    try:
        yield
    finally:
        lock.release()


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
