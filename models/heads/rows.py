"""Labelled rows that heads are fitted on. Features may be in memory-mapped files; labels are in memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data_contracts.vocabulary import BranchName, ScoreForm
from models.engines.progress import report_progress
from models.heads.recipes import Features
from models.heads.sequences import input_width, is_labelled

# Blocks that stay in a processor's cache while they are converted and multiplied.
BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Features and labels of n rows in any order.

    Attributes:
        embeddings: float16 or float32 [n, D]; may be a read-only memory map; never loaded completely.
        logits: float32 [n, C]; likewise.
        labels: ``expr`` int8 [n], -1 unlabelled; ``va`` float32 [n, 2], NaN unlabelled; ``au`` int8 [n, 12], -1
            unlabelled.
        outputs: of earlier parts of a recipe, float32 [n, K] each; see ``HeadRecipe.inputs_from``.
    """

    embeddings: np.ndarray
    logits: np.ndarray
    labels: dict[BranchName, np.ndarray]
    outputs: dict[BranchName, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {len(self.embeddings), len(self.logits), *(len(values) for values in self.labels.values())}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"expected features and labels of one length of at least 1, got {sorted(counts)} rows")

    def __len__(self) -> int:
        return len(self.embeddings)

    def width(self, features: Features) -> int:
        """Return the number of inputs of a head."""
        return input_width(features, self.embeddings.shape[1], self.logits.shape[1])

    def labelled(self, branches: tuple[BranchName, ...], *, drop_partial_units: bool = False) -> np.ndarray:
        """Return the indices of rows with a label of at least one branch, ascending, int [m]."""
        return np.flatnonzero(is_labelled(self.labels, branches, drop_partial_units=drop_partial_units))


class RowReader:
    """Reads a head's inputs in batches, gathered and converted in buffers that are reused.

    New memory for every batch would take longer than the batch's matrix products.
    """

    def __init__(
        self,
        rows: TrainingRows,
        features: Features,
        *,
        scores: ScoreForm = "logits",
        inputs_from: tuple[BranchName, ...] = (),
        batch_rows: int = BLOCK_ROWS,
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Read batches of at most ``batch_rows``, as (x - mean) / deviation if these, float32 [width], are given."""
        arrays, self._logits = ((rows.embeddings, "embeddings"), (rows.logits, "scores")), rows.logits
        self._parts = [array for array, name in arrays if features in (name, "both")]
        self._parts += [rows.outputs[branch] for branch in inputs_from]
        self._gathered = [np.empty((batch_rows, array.shape[1]), array.dtype) for array in self._parts]
        self._inputs = torch.empty(batch_rows, sum(array.shape[1] for array in self._parts))
        self._scores, self._device = scores, torch.device(device)
        self._mean = None if mean is None else mean.to(self._device)
        self._factor = None if deviation is None else (1 / deviation).to(self._device)

    def read(self, index: np.ndarray) -> Tensor:
        """Return float32 [len(index), width] of the rows; valid until the next call.

        Raises:
            IndexError: there are more rows than a batch holds.
        """
        count = len(index)
        if count > len(self._inputs):
            raise IndexError(f"expected at most {len(self._inputs)} rows, got {count}")
        inputs, column = self._inputs[:count], 0
        for array, buffer in zip(self._parts, self._gathered, strict=True):
            # Mode "clip" changes nothing for existing rows and avoids a copy that numpy makes otherwise.
            np.take(array, index, axis=0, out=buffer[:count], mode="clip")
            # float16 to float32 by torch's copy: numpy's conversion is many times slower.
            part = inputs[:, column : column + buffer.shape[1]].copy_(torch.from_numpy(buffer[:count]))
            if array is self._logits and self._scores == "probabilities":
                part.copy_(torch.softmax(part, dim=1))
            column += buffer.shape[1]
        inputs = inputs.to(self._device)
        if self._mean is not None:
            inputs.sub_(self._mean)
        if self._factor is not None:
            inputs.mul_(self._factor)
        return inputs

    def blocks(self, index: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield (rows, their inputs) for each batch, in the order of the index."""
        for first in range(0, len(index), len(self._inputs)):
            block = index[first : first + len(self._inputs)]
            yield block, self.read(block)


def moments(
    rows: TrainingRows,
    index: np.ndarray,
    features: Features,
    *,
    scores: ScoreForm = "logits",
    inputs_from: tuple[BranchName, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the inputs, float32 [width]; the deviation of a constant input is 1.

    Raises:
        ValueError: an input is not finite.
    """
    reader = RowReader(rows, features, scores=scores, inputs_from=inputs_from)

    def blocks() -> Iterator[Tensor]:
        for number, (_, inputs) in enumerate(reader.blocks(index)):
            report_progress("measuring the inputs: {:,} of {:,} rows", number * BLOCK_ROWS, len(index))
            yield inputs

    return moments_of(blocks())


def moments_of(blocks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the same of blocks of inputs, float32 [n, width], n at least 1. The blocks are overwritten."""
    count, pivot = 0, torch.zeros(0)
    total, squares = torch.zeros(0), torch.zeros(0)
    for inputs in blocks:
        if not count:
            # Subtract a typical value first, so that float32 sums lose no precision.
            pivot = inputs.mean(0)
            total, squares = (torch.zeros(len(pivot), dtype=torch.float64) for _ in range(2))
        inputs.sub_(pivot)
        total += inputs.sum(0)
        squares += torch.einsum("nw,nw->w", inputs, inputs)
        count += len(inputs)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    if not torch.isfinite(deviation).all():
        raise ValueError("expected finite features, got NaN or infinity")
    return (mean + pivot).float(), torch.where(deviation > 1e-6, deviation, 1.0).float()
