"""Where a training of a backbone stands, and what comes of it."""

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from models.backbones.registry import BackboneSpec


@dataclass
class Progress:
    """Where a training stands: everything that is needed to go on, and what is reported."""

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    best_value: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0


@dataclass
class TrainedBackbone:
    """A trained network's spec and tensors, the figures of the epoch that was kept, and all epochs' figures."""

    spec: BackboneSpec
    tensors: dict[str, Tensor]
    figures: dict[str, Any]
    history: list[dict[str, float]]
    kept_epoch: int
    seconds: float
