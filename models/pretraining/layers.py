"""Layers in training: starting weights, trained parameters, optimizer, optimizer steps, and storage."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.network import has_known_layers, load_tensors
from models.pretraining.recipes import Phase


def trained_layers(network: Any, phase: Phase, *, frozen_stages: int) -> list[nn.Parameter]:
    """Prepare a timm network for a phase and return the parameters that are trained in it.

    Frozen layers also keep the statistics of their batch normalisation. ``frozen_stages`` counts the first stages,
    including the stem, of timm's EfficientNets and MobileNets.

    Raises:
        ValueError: ``frozen_stages`` is not 0 and the network has no such stages.
    """
    network.requires_grad_(phase.layers == "all")
    network.get_classifier().requires_grad_(True)
    network.train(phase.layers == "all")
    if phase.layers == "all" and frozen_stages:
        if not has_known_layers(network):
            raise ValueError(f"frozen_stages: expected 0 for {type(network).__name__}, got {frozen_stages}")
        for module in (network.conv_stem, network.bn1, *network.blocks[:frozen_stages]):
            module.eval().requires_grad_(False)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def make_optimizer(parameters: list[nn.Parameter], phase: Phase, *, weight_decay: float) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay, which does not apply to norms and biases."""
    layers = [p for p in parameters if p.ndim > 1]
    norms_and_biases = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": layers, "weight_decay": weight_decay}, {"params": norms_and_biases, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], phase.learning_rate)


def load_trunk(network: Any, start: dict[str, Tensor]) -> None:
    """Load starting weights into all layers of a timm network except the class layer.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    class_layer = network.get_classifier()
    (prefix,) = (name for name, module in network.named_modules() if module is class_layer)
    own = network.state_dict()
    trunk = {name: start[name] for name in own if name in start and not name.startswith(f"{prefix}.")}
    class_tensors = {name: tensor for name, tensor in own.items() if name.startswith(f"{prefix}.")}
    load_tensors(network, trunk | class_tensors, name="starting weights")


def to_stored_precision(tensor: Tensor) -> Tensor:
    """Copy weights of layers in half precision, and norms and biases, which are few and delicate, in full precision."""
    copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return copy.half() if copy.ndim > 1 else copy


def sharpness_aware_step(
    optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor], *, network: nn.Module, rho: float
) -> Tensor:
    """Take one step of sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412, algorithm 1).

    The gradient is that at w + rho * g / |g| (equation 2); the returned loss is that at w. ``loss_of`` must compute the
    loss of the same batch in every call. With ``rho`` 0 this is a plain step of the optimizer. Batch normalisation
    updates its running statistics at w only.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    optimizer.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()
    if rho > 0:
        moves = _move_uphill(parameters, rho)
        optimizer.zero_grad(set_to_none=True)
        with _frozen_statistics(network):
            loss_of().backward()
        with torch.no_grad():
            for parameter, move in moves:
                parameter.sub_(move)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def _move_uphill(parameters: Sequence[Tensor], rho: float) -> list[tuple[Tensor, Tensor]]:
    gradients = [(p, p.grad) for p in parameters if p.grad is not None]
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for _, g in gradients]))
    scale = rho / (length + 1e-12)
    moves = [(parameter, gradient * scale) for parameter, gradient in gradients]
    for parameter, move in moves:
        parameter.add_(move)
    return moves


@contextlib.contextmanager
def _frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch normalisation use the moments of the batch without updating its running statistics."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
