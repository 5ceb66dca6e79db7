"""Fitting heads: one part of a recipe at a time, several seeds, the best epoch kept. Recipes are in ``recipes``."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from models.feature_rows import TrainingRows
from models.heads import OUTPUT_NAMES, BranchConfig, Head, HeadConfig
from models.losses import ccc_loss, class_weights, expression_loss, unit_loss, unit_weights
from models.metrics import accuracy, score_branch, score_branches
from models.recipes import Branch, HeadRecipe, TaskRecipe

logger = logging.getLogger(__name__)
_ADAM_EPSILON = 1e-7  # as Keras has it


@dataclass
class FittedHead:
    """A head averaged over seeds, with its figures on the validation rows (empty without validation).

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
    train: TrainingRows,
    validation: TrainingRows | None,
    *,
    task: str,
    recipe: TaskRecipe,
    epochs: Sequence[Sequence[int]] | None = None,
    device: str = "cpu",
) -> FittedHead:
    """Fit the recipe once per seed (0, 1, ...) and average the outputs.

    Without validation rows every part runs ``epochs[seed][part]`` epochs (the recipe's number if not given) and the
    last one is kept. Deterministic for a machine and a number of threads.

    Raises:
        ValueError: a branch has no labelled row, or the features are not finite.
    """
    tensors: dict[str, np.ndarray] = {}
    seed_figures, all_histories, best_epochs = [], [], []
    for seed in range(recipe.seeds):
        histories, best = [], []
        for number, part in enumerate(recipe.parts):
            settings = part.replace(epochs=epochs[seed][number], patience=0) if epochs else part
            trainer = _Trainer(train, settings, seed=seed, device=device)
            history, epoch = trainer.run(validation)
            tensors |= {f"seed{seed}.{name}": value for name, value in trainer.tensors().items()}
            histories.append(history)
            best.append(epoch)
        all_histories.append(histories)
        best_epochs.append(best)
        if validation is not None:
            alone = {name.replace(f"seed{seed}.", "seed0."): v for name, v in tensors.items() if f"seed{seed}." in name}
            one_seed = Head(_config(task, recipe, train, seeds=1), alone)
            seed_figures.append(evaluate_head(one_seed, validation))
    head = Head(_config(task, recipe, train, seeds=recipe.seeds), tensors)
    figures = evaluate_head(head, validation) if validation is not None else {}
    return FittedHead(head, figures, seed_figures, all_histories, best_epochs)


def _config(task: str, recipe: TaskRecipe, rows: TrainingRows, *, seeds: int) -> HeadConfig:
    branches = {b: BranchConfig(part.features, part.hidden_units) for part in recipe.parts for b in part.branches}
    return HeadConfig(task, rows.embeddings.shape[1], rows.logits.shape[1], seeds, branches)


def evaluate_head(head: Head, rows: TrainingRows) -> dict[str, float]:
    """Challenge figures of a head on labelled rows: class of the largest probability, units from 0.5 on."""
    outputs: dict[Branch, list[np.ndarray]] = {branch: [] for branch in head.config.branches}
    for block in rows.blocks(np.arange(len(rows))):
        found = head.predict(np.take(rows.embeddings, block, axis=0), np.take(rows.logits, block, axis=0))
        for branch, values in found.items():
            outputs[branch].append(values)
    decisions = {branch: _decide(branch, np.concatenate(parts)) for branch, parts in outputs.items()}
    return score_branches(rows.labels, decisions)


def _decide(branch: Branch, outputs: np.ndarray) -> np.ndarray:
    if branch == "expr":
        return outputs.argmax(axis=1)
    return outputs if branch == "va" else (outputs >= 0.5).astype(np.int8)


class _Trainer:
    """One part of a recipe with one seed."""

    def __init__(self, train: TrainingRows, recipe: HeadRecipe, *, seed: int, device: str) -> None:
        self._train, self._recipe, self._device = train, recipe, torch.device(device)
        self._rows = train.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
        if not len(self._rows):
            raise ValueError(f"{'+'.join(recipe.branches)}: expected labelled training rows, found none")
        torch.manual_seed(seed)
        self._random = np.random.default_rng(seed)
        width = train.width(recipe.features)
        mean, deviation = torch.zeros(width), torch.ones(width)
        if recipe.standardize:
            mean, deviation = train.moments(self._rows, recipe.features)
        self._mean, self._deviation = mean.to(self._device), deviation.to(self._device)
        self._networks = nn.ModuleDict({b: _network(width, b, recipe) for b in recipe.branches}).to(self._device)
        self._weights: dict[str, Tensor] = {}
        for branch in recipe.branches:
            labels = train.labels[branch][self._rows]
            if branch == "expr":
                self._weights[branch] = class_weights(labels, balanced=recipe.balanced).to(self._device)
            elif branch == "au":
                self._weights[branch] = unit_weights(labels, balanced=recipe.balanced).to(self._device)

    def run(self, validation: TrainingRows | None) -> tuple[list[dict[str, float]], int]:
        """History of all epochs, and the epoch whose weights are kept."""
        recipe = self._recipe
        optimizer = torch.optim.Adam(self._networks.parameters(), lr=recipe.learning_rate, eps=_ADAM_EPSILON)
        history: list[dict[str, float]] = []
        best, best_epoch, best_state = -np.inf, 0, None
        for epoch in range(1, recipe.epochs + 1):
            entry = {"epoch": float(epoch), "train_loss": self._train_epoch(optimizer)}
            if validation is not None:
                entry[recipe.checkpoint] = self._checkpoint_value(validation)
            history.append(entry)
            value = entry.get(recipe.checkpoint, float(epoch))
            if validation is not None and recipe.checkpoint == "loss":
                value = -value
            if value > best:
                best, best_epoch = value, epoch
                best_state = {name: tensor.clone() for name, tensor in self._networks.state_dict().items()}
            if recipe.patience and epoch - best_epoch >= recipe.patience:
                break
        if best_state is None:
            raise ValueError(f"{'+'.join(recipe.branches)}: expected a finite loss, got NaN in every epoch")
        self._networks.load_state_dict(best_state)
        logger.debug("%s: kept epoch %d of %d", "+".join(recipe.branches), best_epoch, len(history))
        return history, best_epoch

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by ``branch.layer``, the standardisation folded into the first layer."""
        found: dict[str, np.ndarray] = {}
        for branch, network in self._networks.items():
            layers = [module for module in network.children() if isinstance(module, nn.Linear)]
            for number, layer in enumerate(layers):
                weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
                if number == 0:
                    weight = weight / self._deviation.double()
                    bias = bias - weight @ self._mean.double()
                found[f"{branch}.{number}.weight"] = weight.float().cpu().numpy()
                found[f"{branch}.{number}.bias"] = bias.float().cpu().numpy()
        return found

    def _train_epoch(self, optimizer: torch.optim.Optimizer) -> float:
        self._networks.train()
        order, size, losses = self._random.permutation(self._rows), self._recipe.batch_size, []
        for first in range(0, len(order), size):
            optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._train, order[first : first + size])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _outputs(self, rows: TrainingRows, index: np.ndarray) -> dict[Branch, Tensor]:
        inputs = (rows.inputs(index, self._recipe.features).to(self._device) - self._mean) / self._deviation
        return {b: _activate(self._networks[b](inputs), b) for b in self._recipe.branches}

    def _loss(self, rows: TrainingRows, index: np.ndarray) -> Tensor:
        recipe = self._recipe
        total = torch.zeros((), device=self._device)
        for branch, output in self._outputs(rows, index).items():
            target = rows.targets(index, branch).to(self._device)
            if branch == "au":
                weight, published = self._weights["au"], recipe.published_masking
                total = total + unit_loss(output, target, unit_weight=weight, published_masking=published)
            elif branch == "va":
                total = total + ccc_loss(output, target)
            else:
                total = total + expression_loss(output, target, class_weight=self._weights["expr"])
        penalty = [module.weight.square().sum() for module in self._networks.modules() if isinstance(module, nn.Linear)]
        return total + recipe.l2 * torch.stack(penalty).sum()

    @torch.no_grad()
    def _checkpoint_value(self, validation: TrainingRows) -> float:
        self._networks.eval()
        recipe = self._recipe
        known = validation.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
        if not len(known):
            raise ValueError(f"{'+'.join(recipe.branches)}: expected labelled validation rows, found none")
        if recipe.checkpoint == "loss":
            size = recipe.batch_size
            batches = [known[first : first + size] for first in range(0, len(known), size)]
            return float(torch.stack([self._loss(validation, batch) for batch in batches]).mean())
        (branch,) = recipe.branches
        parts = [self._outputs(validation, block)[branch].cpu().numpy() for block in validation.blocks(known)]
        decisions, labels = _decide(branch, np.concatenate(parts)), validation.labels[branch][known]
        if recipe.checkpoint == "accuracy":
            return accuracy(labels, decisions)
        return score_branch(branch, labels, decisions)[recipe.checkpoint]


def _network(width: int, branch: Branch, recipe: HeadRecipe) -> nn.Sequential:
    outputs = len(OUTPUT_NAMES[branch])
    if recipe.hidden_units:
        hidden = nn.Linear(width, recipe.hidden_units)
        network = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(recipe.dropout), nn.Linear(recipe.hidden_units, outputs))
    else:
        network = nn.Sequential(nn.Linear(width, outputs))
    for module in network:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def _activate(x: Tensor, branch: Branch) -> Tensor:
    if branch == "expr":
        return torch.softmax(x, dim=1)
    return torch.tanh(x) if branch == "va" else torch.sigmoid(x)
