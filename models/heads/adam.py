"""Adam (Kingma and Ba 2015) for a few float32 tensors; torch's own optimizers first load its compiler, 100 MB of it."""

from collections.abc import Iterable

import torch
from torch import Tensor

_DECAY, _SQUARE_DECAY = 0.9, 0.999


class Adam:
    """Steps of Adam; state and temporaries stay where they are."""

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float, epsilon: float) -> None:
        self._parameters = list(parameters)
        self._learning_rate, self._epsilon, self._steps = learning_rate, epsilon, 0
        self._state = [tuple(torch.zeros_like(p, requires_grad=False) for _ in range(3)) for p in self._parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter along its gradient; one without a gradient stays."""
        self._steps += 1
        size = self._learning_rate / (1 - _DECAY**self._steps)
        factor = (1 - _SQUARE_DECAY**self._steps) ** -0.5
        for parameter, (mean, square, scratch) in zip(self._parameters, self._state, strict=True):
            gradient = parameter.grad
            if gradient is not None:
                mean.lerp_(gradient, 1 - _DECAY)
                square.mul_(_SQUARE_DECAY).addcmul_(gradient, gradient, value=1 - _SQUARE_DECAY)
                torch.sqrt(square, out=scratch).mul_(factor).add_(self._epsilon)
                parameter.addcdiv_(mean, scratch, value=-size)
