"""Fit heads of any kind: every part of a recipe with every seed. ``fit_epochs`` is the training loop of all kinds."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from data_contracts.vocabulary import BranchName, Precision, TaskName
from models.heads.fit_progress import FitProgress
from models.heads.head import BranchConfig, FitSettings, FittedPart, Head, HeadConfig, head_class
from models.heads.losses import BranchLosses, activate
from models.heads.metrics import MAIN_METRIC, main_score, score_branch, score_branches
from models.heads.recipes import HeadRecipe, TaskRecipe
from models.heads.rows import BLOCK_ROWS, RowReader, TrainingRows
from models.heads.sequences import Labels, SubjectSequence

logger = logging.getLogger(__name__)
TrainingData = TrainingRows | Sequence[SubjectSequence]
Batch = TypeVar("Batch")
# Outputs of a batch before their activation, [n, K] per branch, and the labels of its n rows.
Predicted = tuple[dict[BranchName, Tensor], Labels]
LossFunction = Callable[[dict[BranchName, Tensor], Labels], Tensor]
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
    task: TaskName,
    recipe: TaskRecipe,
    epochs: Sequence[Sequence[int]] | None = None,
    precision: Precision = "float32",
    device: str = "cpu",
    first_seed: int = 0,
) -> FittedHead:
    """Fit the recipe once per seed (``first_seed``, ``first_seed`` + 1, ...), and average the outputs.

    The data is what the recipe's kind of head works on. Without validation data, every part runs ``epochs[i][part]``
    epochs for the i-th seed (by default the recipe's number), and the last one is kept. The tensors of the i-th seed
    are named ``seed{i}``. ``precision`` is that of large matrix products. Deterministic for a machine and a number of
    threads.

    Raises:
        ValueError: a branch has no label, or the features are not finite.
    """
    kind = head_class(recipe.kind)
    tensors: dict[str, np.ndarray] = {}
    seed_figures, histories, best_epochs = [], [], []
    progress = FitProgress(recipe)
    for seed in range(recipe.seeds):
        parts = []
        # With the outputs of the parts of this seed that later parts take as inputs.
        seen = [train, validation]
        for number, part in enumerate(recipe.parts):
            fixed = part.replace(epochs=epochs[seed][number], patience=0) if epochs else part
            settings = FitSettings(first_seed + seed, precision, device, progress)
            progress.start_part(seed, number, fixed)
            parts.append(kind.fit_part(seen[0], seen[1], fixed, settings))
            if any(set(later.inputs_from) & set(part.branches) for later in recipe.parts):
                seen = [_add_outputs(kind, part, parts[-1], data) for data in seen]
            progress.end_part()
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


def _add_outputs(
    kind: type[Head], part: HeadRecipe, fitted: FittedPart, rows: TrainingData | None
) -> TrainingRows | None:
    """Return the rows with the outputs of a fitted part, before seeds are averaged."""
    if not isinstance(rows, TrainingRows):
        return None
    outputs = dict(rows.outputs)
    for branch in part.branches:
        sizes = rows.embeddings.shape[1], rows.logits.shape[1]
        config = HeadConfig(branch, *sizes, seeds=1, branches={branch: _branch_config(part)})
        tensors = {f"seed0.{name}": x for name, x in fitted.tensors.items() if name.startswith(f"{branch}.")}
        head = kind(config, tensors)
        blocks = _blocks_of_rows(head, rows)
        outputs[branch] = np.concatenate([head.predict_sequence(block)[branch] for block in blocks])
    return replace(rows, outputs=outputs)


def _config(task: TaskName, recipe: TaskRecipe, data: TrainingData, *, seeds: int) -> HeadConfig:
    branches = {b: _branch_config(part) for part in recipe.parts for b in part.branches}
    one = data if isinstance(data, TrainingRows) else data[0]
    return HeadConfig(task, one.embeddings.shape[1], one.logits.shape[1], seeds, branches)


def _branch_config(part: HeadRecipe) -> BranchConfig:
    scores = "logits" if part.features == "embeddings" else part.scores
    return BranchConfig(
        part.features, part.hidden_units, scores=scores, temporal=part.temporal, inputs_from=part.inputs_from
    )


def evaluate_head(head: Head, data: TrainingData) -> dict[str, float]:
    """Return the challenge metrics of a head on labelled data, without post-processing (see ``decide``)."""
    decisions: dict[BranchName, list[np.ndarray]] = {branch: [] for branch in head.config.branches}
    labels: dict[BranchName, list[np.ndarray]] = {branch: [] for branch in head.config.branches}
    for sequence in _blocks_of_rows(head, data) if isinstance(data, TrainingRows) else data:
        for branch, outputs in head.predict_sequence(sequence).items():
            decisions[branch].append(decide(branch, outputs[sequence.present]))
            labels[branch].append(sequence.labels[branch][sequence.present])
    return score_branches(
        {branch: np.concatenate(parts) for branch, parts in labels.items()},
        {branch: np.concatenate(parts) for branch, parts in decisions.items()},
    )


def _blocks_of_rows(head: Head, rows: TrainingRows) -> Iterator[SubjectSequence]:
    """Yield rows as sequences for a head that works on rows: time has no meaning."""
    # Embeddings that no branch takes are not read.
    takes_embeddings = any(branch.features != "scores" for branch in head.config.branches.values())
    reader = RowReader(rows, "embeddings") if takes_embeddings else None
    for first in range(0, len(rows), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        count = len(rows.logits[block])
        embeddings = reader.read(np.arange(first, first + count)).numpy() if reader else rows.embeddings[block]
        labels = {branch: values[block] for branch, values in rows.labels.items()}
        yield SubjectSequence(embeddings, rows.logits[block], np.ones(count, bool), np.zeros(count), labels)


def decide(branch: BranchName, outputs: np.ndarray) -> np.ndarray:
    """Return decisions about outputs [n, K] without post-processing.

    They are the class with the largest output, int [n]; values [n, 2]; or action units at 0.5 and above, int8 [n, 12].
    """
    if branch == "expr":
        return outputs.argmax(axis=1)
    return outputs if branch == "va" else (outputs >= 0.5).astype(np.int8)


class Adam:
    """Adam (Kingma and Ba 2015) as in Keras, which adds epsilon before the bias correction; for floating tensors.

    torch's own optimizers add it after the correction, and load torch's compiler: 100 MB of memory. Weight decay is
    decoupled, as in AdamW (Loshchilov and Hutter 2019), and leaves biases alone.
    """

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float, weight_decay: float = 0.0) -> None:
        self._parameters = list(parameters)
        self._learning_rate, self._weight_decay, self._steps = learning_rate, weight_decay, 0
        self._state = [tuple(torch.zeros_like(p, requires_grad=False) for _ in range(3)) for p in self._parameters]

    def zero_grad(self) -> None:
        """Delete the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self._steps += 1
        size = self._learning_rate * (1 - _SQUARE_DECAY**self._steps) ** 0.5 / (1 - _DECAY**self._steps)
        for parameter, (mean, square, scratch) in zip(self._parameters, self._state, strict=True):
            gradient = parameter.grad
            if gradient is not None:
                mean.lerp_(gradient, 1 - _DECAY)
                square.mul_(_SQUARE_DECAY).addcmul_(gradient, gradient, value=1 - _SQUARE_DECAY)
                torch.sqrt(square, out=scratch).add_(_EPSILON)
                if self._weight_decay and parameter.ndim > 1:
                    parameter.mul_(1 - self._learning_rate * self._weight_decay)
                parameter.addcdiv_(mean, scratch, value=-size)


def fit_epochs(
    network: nn.Module,
    recipe: HeadRecipe,
    losses: BranchLosses,
    *,
    run: Callable[[Batch], Predicted],
    train: Callable[[], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]] | None,
    progress: FitProgress | None = None,
) -> FittedPart:
    """Fit a network by Adam, and keep the epoch with the best checkpoint (without validation: the last).

    Args:
        network: all parameters. Those of at least two dimensions are the weights that ``recipe.l2`` applies to.
        recipe: number of epochs, learning rate, l2, patience and checkpoint.
        losses: of the recipe.
        run: returns the outputs and labels of a batch.
        train: returns the training batches of one epoch, in random order.
        validation: returns the validation batches.
        progress: counts batches and epochs.

    Raises:
        ValueError: the checkpoint is NaN in every epoch.
    """
    optimizer = Adam(network.parameters(), learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]

    def loss_of(outputs: dict[BranchName, Tensor], labels: Labels) -> Tensor:
        loss = losses(outputs, labels)
        return loss + recipe.l2 * torch.stack([w.square().sum() for w in weights]).sum() if recipe.l2 else loss

    history: list[dict[str, float]] = []
    best, best_epoch, best_state = -np.inf, 0, None
    if progress:
        progress.start_epochs()
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        train_loss = _train_epoch(optimizer, loss_of, map(run, train()), progress)
        entry = {"epoch": float(epoch), "train_loss": train_loss}
        value = float(epoch)
        if validation is not None:
            network.eval()
            with torch.no_grad():
                value = entry[recipe.checkpoint] = _checkpoint(recipe, loss_of, list(map(run, validation())))
            value = -value if recipe.checkpoint == "loss" else value
        history.append(entry)
        if progress:
            progress.end_epoch()
        if value > best:
            best, best_epoch = value, epoch
            best_state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if recipe.patience and epoch - best_epoch >= recipe.patience:
            break
    if best_state is None:
        raise ValueError(f"{'+'.join(recipe.branches)}: expected a finite loss, got NaN in every epoch")
    network.load_state_dict(best_state)
    logger.debug("%s: kept epoch %d of %d", "+".join(recipe.branches), best_epoch, len(history))
    return FittedPart({name: tensor.cpu().numpy() for name, tensor in best_state.items()}, history, best_epoch)


def _train_epoch(
    optimizer: Adam, loss_of: LossFunction, batches: Iterable[Predicted], progress: FitProgress | None
) -> float:
    """Make one step for each batch, and return the mean loss of a row."""
    losses = []
    for outputs, labels in batches:
        optimizer.zero_grad()
        loss = loss_of(outputs, labels)
        loss.backward()
        optimizer.step()
        count = _row_count(outputs)
        losses.append((loss.detach(), count))
        if progress:
            progress.add_rows(count)
    return _mean_over_rows(losses)


def _checkpoint(recipe: HeadRecipe, loss_of: LossFunction, batches: list[Predicted]) -> float:
    """Return the loss of the batches, weighted by their rows as in Keras, or a metric of the recipe's only branch.

    ``p_mtl``: the sum of the main metrics of all branches.
    """
    if recipe.checkpoint == "loss":
        return _mean_over_rows([(loss_of(*batch), _row_count(batch[0])) for batch in batches])
    if recipe.checkpoint == "p_mtl":
        return sum(main_score(branch, *_decided(branch, batches)) for branch in recipe.branches)
    (branch,) = recipe.branches
    labels, decisions = _decided(branch, batches)
    if recipe.checkpoint == MAIN_METRIC[branch]:
        return main_score(branch, labels, decisions)
    return score_branch(branch, labels, decisions)[recipe.checkpoint]


def _decided(branch: BranchName, batches: list[Predicted]) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of a branch, and the decisions without post-processing."""
    outputs = np.concatenate([activate(outputs[branch], branch).cpu().numpy() for outputs, _ in batches])
    return np.concatenate([labels[branch] for _, labels in batches]), decide(branch, outputs)


def _row_count(outputs: dict[BranchName, Tensor]) -> int:
    return len(next(iter(outputs.values())))


def _mean_over_rows(losses: list[tuple[Tensor, int]]) -> float:
    """Return the mean of the losses of batches, weighted by the number of rows of each."""
    counts = [count for _, count in losses]
    return float(np.average(torch.stack([loss for loss, _ in losses]).double().cpu().numpy(), weights=counts))
