"""A backbone's network as others run it: normalisation inside, whole or in two parts. For conversion, not for training.

The two parts are there for precision: the first layers need more of it than the others, which do most of the work
(figures in docs/performance.md).
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.network import Backbone, channel_constants, normalise_by, run_early_layers, run_late_layers


def _plain_copy(backbone: Backbone) -> Any:
    """A copy in the plain memory layout, which converters want and the original has left for speed."""
    return copy.deepcopy(backbone.network).to(memory_format=torch.contiguous_format)


class _Input(nn.Module):
    """``normalise`` for one backbone, its constants made before anything is traced."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._constants = channel_constants(backbone.spec, torch.device("cpu"))
        self._grey = backbone.spec.channel_order == "grey"

    def forward(self, pixels: Tensor) -> Tensor:
        return normalise_by(pixels, self._constants, grey=self._grey)


class WholeNetwork(nn.Module):
    """uint8 pictures [n, px, px, 3] to embeddings [n, D] and logits [n, C]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network, self.input = _plain_copy(backbone), _Input(backbone)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits."""
        features = self.network.forward_features(self.input(pixels))
        embeddings = self.network.forward_head(features, pre_logits=True)
        return embeddings, self.network.classifier(embeddings)


class EarlyPart(nn.Module):
    """uint8 pictures [n, px, px, 3] to what the second block gives."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network, self.input = _plain_copy(backbone), _Input(backbone)

    def forward(self, pixels: Tensor) -> Tensor:
        """Activations [n, c, h, w]."""
        return run_early_layers(self.network, self.input(pixels))


class LatePart(nn.Module):
    """What the second block gives to embeddings [n, D] and logits [n, C]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = _plain_copy(backbone)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits."""
        return run_late_layers(self.network, x)
