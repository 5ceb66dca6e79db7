"""Backbones for processors: the networks of ``backbones``, run by OpenVINO on one thread, without torch.

Batches are small, for activations must stay in the cache, and always of one size: a picture's features are the same
bits whatever other pictures are with it, on one kind of processor.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.backbones.weights import resize_to_square, spec_of, weights_digest
from models.engines.openvino import (
    compile_network,
    converted_network,
    outputs_of,
    run_network,
    supported_precision,
)
from models.engines.precision import Precision

_BATCH = 4


class CpuBackbone:
    """A network ready to look at faces; an object serves one thread at a time."""

    def __init__(self, name: str, *, weights: Path | None = None, precision: Precision = "bfloat16") -> None:
        """``weights``: a safetensors file instead of the bundled ones.

        Raises:
            ValueError: unknown name, no weights to be had, or a file that does not fit.
        """
        self.spec = spec_of(name, weights)
        self.weights_digest = weights_digest(name, str(weights) if weights else None)
        precision = supported_precision(precision)
        self.engine = f"openvino, {precision}"
        made_from = hashlib.sha256(f"{self.weights_digest} {self.spec!r}".encode()).hexdigest()
        early = converted_network(f"{name}-early", made_from, lambda: _convert(name, weights, "early"))
        late = converted_network(f"{name}-late", made_from, lambda: _convert(name, weights, "late"))
        size = self.spec.input_px
        # The first layers stay exact: see network_parts.
        self._early = compile_network(early, shape=[_BATCH, size, size, 3], precision="float32")
        between = list(self._early.get_output_tensor(0).shape)
        self._late = compile_network(late, shape=between, precision=precision)
        self._late.set_input_tensor(self._early.get_output_tensor(0))
        self._pixels = np.zeros((_BATCH, size, size, 3), np.uint8)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of the logits."""
        return self.spec.class_names

    def extract(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings float32 [n, D] and logits float32 [n, C] of RGB uint8 pictures [h, w, 3].

        Raises:
            FloatingPointError: the network gives values that are not finite.
        """
        embeddings = np.empty((len(images), self.spec.embedding_size), np.float32)
        logits = np.empty((len(images), len(self.class_names)), np.float32)
        for first in range(0, len(images), _BATCH):
            block = slice(first, min(first + _BATCH, len(images)))
            count = block.stop - first
            for place, image in enumerate(images[block]):
                self._pixels[place] = resize_to_square(image, self.spec.input_px)
            self._pixels[count:] = 0
            run_network(self._early, self._pixels)
            self._late.infer()
            found, scores = outputs_of(self._late)
            embeddings[block], logits[block] = found[:count], scores[:count]
        if not (np.isfinite(embeddings).all() and np.isfinite(logits).all()):
            raise FloatingPointError(f"backbone {self.spec.name}: expected finite features, got NaN or infinity")
        return embeddings, logits


def _convert(name: str, weights: Path | None, part: str) -> Any:
    import openvino
    import torch

    from models.backbones.network import load_backbone
    from models.backbones.network_parts import EarlyPart, LatePart

    backbone = load_backbone(name, weights=weights)
    size = backbone.spec.input_px
    early = EarlyPart(backbone).eval()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    if part == "early":
        return openvino.convert_model(early, example_input=example)
    with torch.no_grad():
        between = early(example)
    return openvino.convert_model(LatePart(backbone).eval(), example_input=between)
