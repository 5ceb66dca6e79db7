"""Layers of heads while they are fitted: the large first one, in bfloat16 where the processor has it, and dropout."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class RoundedLinear(nn.Linear):
    """A linear layer whose two large products, with the inputs and with the gradient, take factors in bfloat16.

    Weights and gradients are float32; sums inside a product are too. Inputs get no gradient, and their rounded copy is
    overwritten by the next call: one call, one backward pass, and so on.
    """

    _rounded: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs float32 [n, out] of float32 [n, in]."""
        if self._rounded is None or len(self._rounded) < len(inputs):
            self._rounded = torch.empty(inputs.shape, dtype=torch.bfloat16, device=inputs.device)
        rounded = self._rounded[: len(inputs)].copy_(inputs)
        outputs: Tensor = _RoundedProduct.apply(rounded, self.weight, self.bias)
        return outputs


class _RoundedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.inputs = inputs
        return torch.mm(inputs, weight.to(torch.bfloat16).t()).float().add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        product = torch.mm(gradient.to(torch.bfloat16).t(), ctx.inputs)
        return None, product.float(), gradient.sum(0)


class SeededDropout(nn.Module):
    """Dropout with a random generator of its own; torch's takes longer to draw than the layer to compute."""

    def __init__(self, share: float, random: np.random.Generator) -> None:
        super().__init__()
        self._share, self._random = share, random
        self._drawn = np.empty(0, np.float32)

    def forward(self, values: Tensor) -> Tensor:
        """The values; while training, each 0 with the probability ``share`` and else divided by 1 - share."""
        if not self.training or not self._share:
            return values
        if len(self._drawn) < values.numel():
            self._drawn = np.empty(values.numel(), np.float32)
        drawn = self._drawn[: values.numel()]
        self._random.random(dtype=np.float32, out=drawn)
        kept = torch.from_numpy(drawn).reshape(values.shape) >= self._share
        return values * kept.to(values).div_(1 - self._share)
