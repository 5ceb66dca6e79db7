"""A backbone's network as others run it: normalisation inside, whole or in two parts. For conversion, not for training.

The two parts are there for precision: the first layers need more of it than the others, which do most of the work
(figures in docs/performance.md).
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones import Backbone, normalise, run_early_layers, run_late_layers


def _plain_copy(backbone: Backbone) -> Any:
    """A copy in the plain memory layout, which converters want and the original has left for speed."""
    return copy.deepcopy(backbone.network).to(memory_format=torch.contiguous_format)


class WholeNetwork(nn.Module):
    """uint8 pictures [n, px, px, 3] to embeddings [n, D] and logits [n, C]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network, self.spec = _plain_copy(backbone), backbone.spec

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits."""
        features = self.network.forward_features(normalise(pixels, self.spec))
        embeddings = self.network.forward_head(features, pre_logits=True)
        return embeddings, self.network.classifier(embeddings)


class EarlyPart(nn.Module):
    """uint8 pictures [n, px, px, 3] to what the second block gives."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network, self.spec = _plain_copy(backbone), backbone.spec

    def forward(self, pixels: Tensor) -> Tensor:
        """Activations [n, c, h, w]."""
        return run_early_layers(self.network, normalise(pixels, self.spec))


class LatePart(nn.Module):
    """What the second block gives to embeddings [n, D] and logits [n, C]."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = _plain_copy(backbone)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits."""
        return run_late_layers(self.network, x)
