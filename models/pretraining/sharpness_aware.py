"""Sharpness-aware minimisation around any optimizer (Foret et al. 2021, arXiv 2010.01412, algorithm 1)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def sharpness_aware_step(
    optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor], *, network: nn.Module, rho: float
) -> Tensor:
    """One step with the gradient taken at w + rho * g / |g| (equation 2), and the loss at w.

    ``loss_of`` computes the loss of the same batch anew each time. With ``rho`` 0 it is a plain step of the optimizer.
    Batch normalisation counts its running statistics at w only.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()
    if rho > 0:
        moves = _climb(parameters, rho)
        optimizer.zero_grad(set_to_none=True)
        with _frozen_statistics(network):
            loss_of().backward()
        with torch.no_grad():
            for parameter, move in moves:
                parameter.sub_(move)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def _climb(parameters: Sequence[Tensor], rho: float) -> list[tuple[Tensor, Tensor]]:
    gradients = [(p, p.grad) for p in parameters if p.grad is not None]
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for _, g in gradients]))
    scale = rho / (length + 1e-12)
    moves = [(parameter, gradient * scale) for parameter, gradient in gradients]
    for parameter, move in moves:
        parameter.add_(move)
    return moves


class _frozen_statistics:  # noqa: N801
    """While the block runs, batch normalisation uses the batch's moments but does not remember them."""

    def __init__(self, network: nn.Module) -> None:
        norms = (module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
        self._norms = [(norm, norm.momentum) for norm in norms]

    def __enter__(self) -> None:
        for norm, _ in self._norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, momentum in self._norms:
            norm.momentum = momentum
