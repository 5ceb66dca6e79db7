"""Backbones for GPUs: the networks of ``network``, compiled, with resizing and normalisation on the device.

Half precision is float16 here: it is as fast as bfloat16 and eight times as precise, so that no layer has to stay in
float32. Batch normalisation is folded into the preceding convolutions, the layout is channels-last, and all work on a
batch is one CUDA graph. Batches have one size, so the features of an image do not depend on the others in its batch.
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

from data_contracts.vocabulary import Precision
from models.backbones.extractor import FeatureExtractor
from models.backbones.network import (
    channel_constants,
    has_known_layers,
    load_backbone,
    normalise_by,
    run_early_layers,
    run_late_layers,
)
from models.backbones.registry import Interpolation
from models.backbones.resizing import (
    OPENCV_COLUMN_SHIFT,
    OPENCV_ROW_SHIFT,
    PILLOW_BITS,
    resize_to_square,
    tap_tables,
)
from models.engines.batch_size import BatchSize

logger = logging.getLogger(__name__)
_BATCH = 256
_WARM_UP_CALLS = 3
MAX_SIDE_PX = 320


class GpuBackbone(FeatureExtractor):
    """A compiled backbone."""

    def __init__(
        self, name: str, *, weights: Path | None = None, device: str = "cuda", precision: Precision = "bfloat16"
    ) -> None:
        """``weights``: a safetensors file to use instead of the bundled one; ``precision``: bfloat16 means float16.

        Raises:
            ValueError: unknown name, no weights available, or a file that does not fit.
        """
        plain = load_backbone(name, weights=weights, device=device)
        self.spec, self.weights_digest, self._device = plain.spec, plain.weights_digest, plain.device
        self._dtype = torch.float32 if precision == "float32" else torch.float16
        self.engine = f"torch on {device}, {str(self._dtype).removeprefix('torch.')}"
        self._network = fold_batch_norms(plain.network).to(self._dtype).to(memory_format=torch.channels_last)
        self._constants = channel_constants(self.spec, self._device)
        self._resizer = DeviceResize(self.spec.input_px, self.spec.interpolation, device=self._device)
        self._batch = BatchSize(_BATCH, is_padded=True)
        self._graph: tuple[int, CapturedGraph] | None = None
        shape = (_BATCH, MAX_SIDE_PX, MAX_SIDE_PX, 3)
        self._slots = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")

    def _run_batches(self, images: Sequence[np.ndarray]) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray]]]:
        return self._batch.run_batches(len(images), lambda batch: self._run_batch(images[batch]))

    # By default a GPU computes float32 in TF32, which is neither of the two precisions.
    @torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    @torch.inference_mode()
    def _run_batch(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        size = self.spec.input_px
        # Crops in the store are never larger than a slot; others are resized here.
        fitting = [
            image if max(image.shape) <= MAX_SIDE_PX else resize_to_square(image, size, self.spec.interpolation)
            for image in images
        ]
        slots = self._slots[: self._batch.size]
        layout = torch.from_numpy(self._resizer.pack(fitting, slots.numpy()))
        if self._graph is None or self._graph[0] != self._batch.size:
            self._graph = None
            examples = slots.to(self._device), layout.to(self._device)
            self._graph = self._batch.size, CapturedGraph(compile_for_gpu(self.run_packed, *examples), *examples)
        embeddings, logits = self._graph[1](slots, layout)
        return embeddings[: len(images)].cpu().numpy(), logits[: len(images)].cpu().numpy()

    def run_packed(self, slots: Tensor, layout: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings and logits, float32, of images packed by ``DeviceResize.pack``, on the device."""
        squares = self._resizer.resize(slots, layout)
        pixels = normalise_by(squares, self._constants, is_grey=self.spec.channel_order == "grey").to(self._dtype)
        early = run_early_layers(self._network, pixels.contiguous(memory_format=torch.channels_last))
        embeddings, logits = run_late_layers(self._network, early)
        return embeddings.float(), logits.float()


def compile_for_gpu(
    function: Callable[..., tuple[Tensor, ...]], *examples: Tensor
) -> Callable[..., tuple[Tensor, ...]]:
    """Return the function compiled by torch; unchanged on processors and where there is no C compiler.

    Raises:
        torch.cuda.OutOfMemoryError: the GPU has too little memory for these examples.
    """
    if examples[0].device.type != "cuda":
        return function
    compiled = torch.compile(function, dynamic=False)
    try:
        with _first_process_compiles():
            compiled(*examples)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("the network runs uncompiled, at a third of the speed (is a C compiler installed?): %s", cause)
        return function
    return compiled


@contextlib.contextmanager
def _first_process_compiles() -> Iterator[None]:
    """Let one of several starting processes compile first; the others wait and then find its compiled code cached."""
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


class CapturedGraph:
    """A function of tensors as a CUDA graph, recorded once and replayed: no kernel launch waits for Python.

    The shapes of the inputs are fixed. On a processor the function is called directly.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], *examples: Tensor) -> None:
        """``examples``: inputs with the shapes and types of all later calls. The function must not synchronise.

        Raises:
            torch.cuda.OutOfMemoryError: the GPU has too little memory for the graph.
        """
        self._function, self._graph = function, None
        if examples[0].device.type != "cuda":
            return
        self._inputs = [example.clone() for example in examples]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_CALLS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._outputs = function(*self._inputs)
        self._graph = graph

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the function's outputs, which are valid until the next call."""
        if self._graph is None:
            return self._function(*inputs)
        for captured, value in zip(self._inputs, inputs, strict=True):
            captured.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs


def fold_batch_norms(network: nn.Module) -> Any:
    """Copy a network in evaluation mode and fold batch normalisation into the preceding convolutions.

    Networks of an unknown architecture are copied unchanged: the order of their layers is not known.
    """
    network = copy.deepcopy(network)
    if not has_known_layers(network):
        return network
    for parent in list(network.modules()):
        previous: tuple[str, nn.Module | None] = ("", None)
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(previous[1], nn.Conv2d):
                setattr(parent, previous[0], fuse_conv_bn_eval(previous[1], child))
                setattr(parent, name, getattr(child, "act", nn.Identity()))
            previous = (name, child)
    return network


class DeviceResize:
    """Resize images of at most ``MAX_SIDE_PX`` per side to squares on one device, with the bytes of Pillow or OpenCV.

    Pillow resizes in two passes, with coefficients rounded to 22 bits and a result rounded to bytes after each pass
    (its ``Resample.c``). OpenCV keeps 15 bits of the sums over columns (``resize.cpp``). Integer arithmetic is exact,
    so the bytes are equal to those of ``resize_to_square``.
    """

    def __init__(self, size_px: int, interpolation: Interpolation, *, device: torch.device) -> None:
        self.size_px, self._interpolation = size_px, interpolation
        indices, coefficients = tap_tables(size_px, MAX_SIDE_PX, interpolation)
        self._indices = torch.from_numpy(indices).to(device)
        self._coefficients = torch.from_numpy(coefficients).to(device)

    def pack(self, images: Sequence[np.ndarray], slots: np.ndarray) -> np.ndarray:
        """Copy images [h, w, 3] into ``slots``, uint8 [n, MAX_SIDE_PX, MAX_SIDE_PX, 3]; other pixels stay unchanged.

        Returns:
            The layout that ``resize`` needs, int64 [n, 3]: height and width of the content of each slot (1 x 1 for an
            unused slot), and 1 if the image is transposed.
        """
        layout = np.tile(np.array([1, 1, 0]), (len(slots), 1))
        for slot, row, image in zip(slots, layout, images, strict=False):
            height, width = image.shape[:2]
            # For these sizes Pillow's first pass is the vertical one (found by comparing every size with Pillow).
            is_vertical_first = height > self.size_px and 2 * width < height + self.size_px
            if is_vertical_first and self._interpolation == "bilinear":
                image = image.transpose(1, 0, 2)
                row[2] = 1
            row[:2] = image.shape[:2]
            slot[: image.shape[0], : image.shape[1]] = image
        return layout

    def resize(self, slots: Tensor, layout: Tensor) -> Tensor:
        """Return squares uint8 [n, size_px, size_px, 3] of packed images, on the device."""
        if self._interpolation == "opencv_bilinear":
            sums = self._weighted_sums(slots.transpose(1, 2), layout[:, 1]) >> OPENCV_COLUMN_SHIFT
            sums = self._weighted_sums(sums.transpose(1, 2), layout[:, 0], shift=OPENCV_ROW_SHIFT, start=2)
            return (sums >> 2).to(torch.uint8)
        resized_rows = self._pillow_pass(slots.transpose(1, 2), layout[:, 1])
        squares = self._pillow_pass(resized_rows.transpose(1, 2), layout[:, 0])
        is_transposed = layout[:, 2].bool()[:, None, None, None]
        return torch.where(is_transposed, squares.transpose(1, 2), squares)

    def _pillow_pass(self, images: Tensor, lengths: Tensor) -> Tensor:
        """Resize axis 1 of uint8 [n, length, m, 3] to ``size_px``."""
        sums = self._weighted_sums(images, lengths, start=1 << (PILLOW_BITS - 1))
        return (sums >> PILLOW_BITS).to(torch.uint8)

    def _weighted_sums(self, images: Tensor, lengths: Tensor, *, shift: int = 0, start: int = 0) -> Tensor:
        """Return start + the sum over taps of (coefficient * pixel) >> shift, along axis 1 of [n, length, m, 3]."""
        indices, coefficients = self._indices[lengths], self._coefficients[lengths]
        row = torch.arange(len(images), device=images.device)[:, None]
        total = torch.full((), start, dtype=torch.int32, device=images.device)
        for tap in range(coefficients.shape[2]):
            products = images[row, indices[:, :, tap]] * coefficients[:, :, tap, None, None]
            total = total + (products >> shift if shift else products)
        return total
