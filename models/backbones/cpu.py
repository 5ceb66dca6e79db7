"""Backbones for processors: the networks of ``network``, run by OpenVINO on one thread, without torch.

Batches are small, so that activations stay in the cache, and always of one size, so that the features of an image are
the same bits whatever other images are in its batch, on one type of processor.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_contracts.vocabulary import Precision
from models.backbones.extractor import FeatureExtractor
from models.backbones.registry import BackboneSpec
from models.backbones.resizing import resize_to_square
from models.backbones.weights import spec_of, weights_digest
from models.engines.openvino import (
    get_outputs,
    is_cached,
    load_network,
    run_network,
    supported_precision,
)

Part = Literal["early", "late"]
_BATCH = 4


class CpuBackbone(FeatureExtractor):
    """A backbone in OpenVINO."""

    def __init__(self, name: str, *, weights: Path | None = None, precision: Precision = "bfloat16") -> None:
        """``weights``: a safetensors file to use instead of the bundled one.

        Raises:
            ValueError: unknown name, no weights available, or a file that does not fit.
        """
        self.spec = spec_of(name, weights)
        self.weights_digest = weights_digest(name, str(weights) if weights else None)
        precision = supported_precision(precision)
        self.engine = f"openvino, {precision}"
        digest = _digest(self.spec, self.weights_digest)
        size = self.spec.input_px

        def load(part: Part, shape: list[int], precision: Precision) -> Any:
            return load_network(
                f"{name}-{part}", digest, lambda: _convert(name, weights, part), shape=shape, precision=precision
            )

        # The early part needs float32: see the docstring of ``network``.
        self._early = load("early", [_BATCH, size, size, 3], "float32")
        self._late = load("late", list(self._early.get_output_tensor(0).shape), precision)
        self._late.set_input_tensor(self._early.get_output_tensor(0))
        self._pixels = np.zeros((_BATCH, size, size, 3), np.uint8)

    def _run_batches(self, images: Sequence[np.ndarray]) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray]]]:
        for first in range(0, len(images), _BATCH):
            batch = slice(first, min(first + _BATCH, len(images)))
            count = batch.stop - first
            for place, image in enumerate(images[batch]):
                self._pixels[place] = resize_to_square(image, self.spec.input_px, self.spec.interpolation)
            self._pixels[count:] = 0
            run_network(self._early, self._pixels)
            self._late.infer(share_outputs=True)
            embeddings, logits = get_outputs(self._late)
            yield batch, (embeddings[:count], logits[:count])


def is_converted(name: str, weights: Path | None) -> bool:
    """Return whether this machine has the converted network, which proves that the weights fit. Needs no OpenVINO.

    Raises:
        ValueError: as ``CpuBackbone``.
    """
    digest = weights_digest(name, str(weights) if weights else None)
    return is_cached(f"{name}-late", _digest(spec_of(name, weights), digest))


def _digest(spec: BackboneSpec, weights_digest: str) -> str:
    return hashlib.sha256(f"{weights_digest} {spec!r}".encode()).hexdigest()


def _convert(name: str, weights: Path | None, part: Part) -> Any:
    import torch
    from openvino.tools.ovc import convert_model

    from models.backbones.network import ConvertibleNetwork, load_backbone

    backbone = load_backbone(name, weights=weights)
    example = torch.zeros(2, backbone.spec.input_px, backbone.spec.input_px, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # Image sizes become constants of the converted network, as intended.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        if part == "late":
            example = ConvertibleNetwork(backbone, "early")(example)
        return convert_model(ConvertibleNetwork(backbone, part), example_input=example)
