"""Layers in training: where they start, which of them learn, with which optimizer, and how they are kept."""

from typing import Any

import torch
from torch import Tensor, nn

from models.pretraining.recipes import Phase


def trained_layers(network: Any, phase: Phase, *, frozen_stages: int) -> list[nn.Parameter]:
    """Ready a network for a phase, and the parameters that learn in it.

    Frozen layers keep the statistics of their batch normalisation as well. ``frozen_stages`` counts the first stages of
    timm's EfficientNets and MobileNets, the stem with them.
    """
    head_only = phase.layers == "head"
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not head_only or name.startswith("classifier"))
    network.train(not head_only)
    if not head_only and frozen_stages:
        for module in (network.conv_stem, network.bn1, *network.blocks[:frozen_stages]):
            module.eval().requires_grad_(False)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def make_optimizer(parameters: list[nn.Parameter], phase: Phase, *, weight_decay: float) -> torch.optim.Optimizer:
    """Adam; by ``weight_decay``, weights of layers shrink, norms and biases do not."""
    layers = [p for p in parameters if p.ndim > 1]
    rest = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": layers, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], phase.learning_rate)


def load_trunk(network: nn.Module, start: dict[str, Tensor]) -> None:
    """Give a network all starting weights but those of its class layer, which stays as it is.

    Raises:
        ValueError: a tensor is missing or of another shape.
    """
    expected = network.state_dict()
    trunk = {name: tensor for name, tensor in start.items() if not name.startswith("classifier")}
    for name, tensor in expected.items():
        if not name.startswith("classifier") and (name not in trunk or trunk[name].shape != tensor.shape):
            got = tuple(trunk[name].shape) if name in trunk else "none"
            raise ValueError(f"starting weights: expected tensor {name} {tuple(tensor.shape)}, got {got}")
    network.load_state_dict({name: trunk.get(name, tensor) for name, tensor in expected.items()})


def stored(tensor: Tensor) -> Tensor:
    """Half precision for the many weights of layers, full for what is few and delicate (norms, biases)."""
    kept = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return kept.half() if kept.ndim > 1 else kept
