"""Labelled rows that heads are fitted on: features that may lie in a memory-mapped file, and labels in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.recipes import Branch, Features

_BLOCK_ROWS = 8192


@dataclass(frozen=True, eq=False, repr=False)
class TrainingRows:
    """Features and labels of n rows.

    Attributes:
        embeddings: float16 or float32 [n, D]; may be a read-only memory map, and is never loaded whole.
        logits: float32 [n, C]; likewise.
        labels: ``expr`` int8 [n], -1 unlabelled; ``va`` float32 [n, 2], NaN unlabelled; ``au`` int8 [n, 12], -1
            unlabelled.
    """

    embeddings: np.ndarray
    logits: np.ndarray
    labels: dict[Branch, np.ndarray]

    def __post_init__(self) -> None:
        counts = {len(self.embeddings), len(self.logits), *(len(values) for values in self.labels.values())}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"expected features and labels of one length of at least 1, got {sorted(counts)} rows")

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        return f"TrainingRows({len(self)} rows, embeddings {self.embeddings.shape}, logits {self.logits.shape})"

    def width(self, features: Features) -> int:
        """Number of inputs of a head."""
        sizes = {"embeddings": self.embeddings.shape[1], "scores": self.logits.shape[1]}
        return sizes[features] if features != "both" else sum(sizes.values())

    def labelled(self, branches: tuple[Branch, ...], *, drop_partial_units: bool = False) -> np.ndarray:
        """Indices of rows with a label of at least one branch, ascending."""
        known = np.zeros(len(self), bool)
        for branch in branches:
            labels = self.labels[branch]
            if branch == "expr":
                known |= labels >= 0
            elif branch == "va":
                known |= ~np.isnan(labels).any(axis=1)
            else:
                known |= (labels >= 0).all(axis=1) if drop_partial_units else (labels >= 0).any(axis=1)
        return np.flatnonzero(known)

    def inputs(self, rows: np.ndarray, features: Features) -> Tensor:
        """float32 [len(rows), width] of the rows, gathered from wherever they lie."""
        parts = []
        if features != "scores":
            # float16 to float32 by torch's copy: numpy's conversion is many times slower.
            parts.append(torch.from_numpy(np.take(self.embeddings, rows, axis=0)).float())
        if features != "embeddings":
            parts.append(torch.from_numpy(np.take(self.logits, rows, axis=0)).float())
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def targets(self, rows: np.ndarray, branch: Branch) -> Tensor:
        """Labels of the rows: int64 [m] for ``expr``, float32 for the others."""
        values = torch.from_numpy(self.labels[branch][rows])
        return values.long() if branch == "expr" else values.float()

    def blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The indices in blocks that fit in memory."""
        for first in range(0, len(rows), _BLOCK_ROWS):
            yield rows[first : first + _BLOCK_ROWS]

    def moments(self, rows: np.ndarray, features: Features) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation float32 [width] of the inputs; 1 where an input is constant."""
        total = squares = torch.zeros(self.width(features), dtype=torch.float64)
        for block in self.blocks(rows):
            values = self.inputs(block, features).double()
            total, squares = total + values.sum(0), squares + values.square().sum(0)
        mean = total / len(rows)
        deviation = (squares / len(rows) - mean.square()).clamp(min=0).sqrt()
        if not torch.isfinite(deviation).all():
            raise ValueError("expected finite features, got NaN or infinity")
        return mean.float(), torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)).float()
