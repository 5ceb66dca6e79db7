"""Fit heads of any kind: every part of a recipe with every seed. Parts shared by kinds: Adam, epochs, checkpoints."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from models.engines.precision import Precision
from models.heads.head import BranchConfig, Head, HeadConfig, head_class
from models.heads.metrics import accuracy, score_branch, score_branches
from models.heads.recipes import Branch, HeadRecipe, TaskRecipe
from models.heads.rows import BLOCK_ROWS, RowReader, TrainingRows
from models.heads.sequences import SubjectSequence

logger = logging.getLogger(__name__)
TrainingData = TrainingRows | Sequence[SubjectSequence]
_DECAY, _SQUARE_DECAY = 0.9, 0.999
_EPSILON = 1e-7  # as in Keras


@dataclass
class FittedHead:
    """A head averaged over seeds, with its metrics on the validation data (empty without validation).

    Attributes:
        figures: of the averaged head, with thresholds of 0.5 and no smoothing.
        seed_figures: of every seed alone.
        histories: per seed and part, one dict per epoch.
        best_epochs: per seed and part, the epoch that was kept, from 1.
    """

    head: Head
    figures: dict[str, float] = field(default_factory=dict)
    seed_figures: list[dict[str, float]] = field(default_factory=list)
    histories: list[list[list[dict[str, float]]]] = field(default_factory=list)
    best_epochs: list[list[int]] = field(default_factory=list)


def fit_seeds(
    train: TrainingData,
    validation: TrainingData | None,
    *,
    task: str,
    recipe: TaskRecipe,
    epochs: Sequence[Sequence[int]] | None = None,
    precision: Precision = "float32",
    device: str = "cpu",
) -> FittedHead:
    """Fit the recipe once per seed (0, 1, ...), and average the outputs.

    The data is what the recipe's kind of head works on. Without validation data, every part runs ``epochs[seed][part]``
    epochs (by default the recipe's number), and the last one is kept. ``precision`` is that of large matrix products.
    Deterministic for a machine and a number of threads.

    Raises:
        ValueError: a branch has no label, or the features are not finite.
    """
    kind = head_class(recipe.kind)
    tensors: dict[str, np.ndarray] = {}
    seed_figures, histories, best_epochs = [], [], []
    for seed in range(recipe.seeds):
        parts = []
        for number, part in enumerate(recipe.parts):
            settings = part.replace(epochs=epochs[seed][number], patience=0) if epochs else part
            parts.append(kind.fit_part(train, validation, settings, seed=seed, precision=precision, device=device))
        alone = {name: tensor for part in parts for name, tensor in part.tensors.items()}
        tensors |= {f"seed{seed}.{name}": tensor for name, tensor in alone.items()}
        histories.append([part.history for part in parts])
        best_epochs.append([part.best_epoch for part in parts])
        if validation is not None and recipe.seeds > 1:
            tensors_alone = {f"seed0.{name}": tensor for name, tensor in alone.items()}
            one_seed = kind(_config(task, recipe, train, seeds=1), tensors_alone)
            seed_figures.append(evaluate_head(one_seed, validation))
    head = kind(_config(task, recipe, train, seeds=recipe.seeds), tensors)
    figures = evaluate_head(head, validation) if validation is not None else {}
    if validation is not None and recipe.seeds == 1:
        seed_figures = [figures]
    return FittedHead(head, figures, seed_figures, histories, best_epochs)


def _config(task: str, recipe: TaskRecipe, data: TrainingData, *, seeds: int) -> HeadConfig:
    branches = {b: BranchConfig(part.features, part.hidden_units) for part in recipe.parts for b in part.branches}
    one = data if isinstance(data, TrainingRows) else data[0]
    return HeadConfig(task, one.embeddings.shape[1], one.logits.shape[1], seeds, branches)


def evaluate_head(head: Head, data: TrainingData) -> dict[str, float]:
    """Return the challenge metrics of a head on labelled data, without post-processing (see ``decide``)."""
    decided: dict[Branch, list[np.ndarray]] = {branch: [] for branch in head.config.branches}
    labels: dict[Branch, list[np.ndarray]] = {branch: [] for branch in head.config.branches}
    for sequence in _blocks_of_rows(head, data) if isinstance(data, TrainingRows) else data:
        for branch, outputs in head.predict_sequence(sequence).items():
            decided[branch].append(decide(branch, outputs[sequence.present]))
            labels[branch].append(sequence.labels[branch][sequence.present])
    joined = {branch: np.concatenate(parts) for branch, parts in decided.items()}
    return score_branches({branch: np.concatenate(parts) for branch, parts in labels.items()}, joined)


def _blocks_of_rows(head: Head, rows: TrainingRows) -> Iterator[SubjectSequence]:
    """Yield rows as sequences for a head that works on rows: time has no meaning."""
    # Embeddings that no branch takes are not read.
    takes_embeddings = any(branch.features != "scores" for branch in head.config.branches.values())
    reader = RowReader(rows, "embeddings") if takes_embeddings else None
    for first in range(0, len(rows), BLOCK_ROWS):
        block = np.arange(first, min(first + BLOCK_ROWS, len(rows)))
        embeddings = reader.read(block).numpy() if reader else rows.embeddings[first : first + BLOCK_ROWS]
        labels = {branch: values[block] for branch, values in rows.labels.items()}
        present = np.ones(len(block), bool)
        yield SubjectSequence(
            embeddings, rows.logits[first : first + BLOCK_ROWS], present, np.zeros(len(block)), labels
        )


def decide(branch: Branch, outputs: np.ndarray) -> np.ndarray:
    """Return decisions without post-processing: the class with the largest output, action units from 0.5, values."""
    if branch == "expr":
        return outputs.argmax(axis=1)
    return outputs if branch == "va" else (outputs >= 0.5).astype(np.int8)


def checkpoint_metric(recipe: HeadRecipe, labels: np.ndarray, outputs: np.ndarray) -> float:
    """Return the recipe's checkpoint, a metric of its only branch, on validation rows that are labelled."""
    (branch,) = recipe.branches
    if recipe.checkpoint == "accuracy":
        return accuracy(labels, decide(branch, outputs))
    return score_branch(branch, labels, decide(branch, outputs))[recipe.checkpoint]


class Adam:
    """Adam (Kingma and Ba 2015) for float32 tensors. torch's own optimizers load its compiler: 100 MB of memory."""

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float, epsilon: float = _EPSILON) -> None:
        self._parameters = list(parameters)
        self._learning_rate, self._epsilon, self._steps = learning_rate, epsilon, 0
        self._state = [tuple(torch.zeros_like(p, requires_grad=False) for _ in range(3)) for p in self._parameters]

    def zero_grad(self) -> None:
        """Delete the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
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


def fit_epochs(
    network: nn.Module,
    recipe: HeadRecipe,
    *,
    train_epoch: Callable[[Adam], float],
    validate: Callable[[], float] | None,
) -> tuple[list[dict[str, float]], int]:
    """Fit a network by Adam, and load the weights of the epoch with the best checkpoint (without validation: the last).

    Args:
        network: all parameters.
        recipe: number of epochs, learning rate, patience and checkpoint.
        train_epoch: updates the parameters on all training data, in training mode; returns the mean loss.
        validate: returns the recipe's checkpoint on the validation data, in evaluation mode and without gradients.

    Returns:
        (one dict per epoch, the epoch that was kept, from 1).

    Raises:
        ValueError: the checkpoint is NaN in every epoch.
    """
    optimizer = Adam(network.parameters(), learning_rate=recipe.learning_rate)
    history: list[dict[str, float]] = []
    best, best_epoch, best_state = -np.inf, 0, None
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        entry = {"epoch": float(epoch), "train_loss": train_epoch(optimizer)}
        value = float(epoch)
        if validate is not None:
            network.eval()
            with torch.no_grad():
                entry[recipe.checkpoint] = validate()
            value = -entry["loss"] if recipe.checkpoint == "loss" else entry[recipe.checkpoint]
        history.append(entry)
        if value > best:
            best, best_epoch = value, epoch
            best_state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if recipe.patience and epoch - best_epoch >= recipe.patience:
            break
    if best_state is None:
        raise ValueError(f"{'+'.join(recipe.branches)}: expected a finite loss, got NaN in every epoch")
    network.load_state_dict(best_state)
    logger.debug("%s: kept epoch %d of %d", "+".join(recipe.branches), best_epoch, len(history))
    return history, best_epoch
