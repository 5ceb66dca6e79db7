"""One part of a recipe fitted by Adam with one seed: batches of shuffled rows, the best epoch kept."""

import logging

import numpy as np
import torch
from torch import Tensor, nn

from models.engines.precision import Precision
from models.heads.adam import Adam
from models.heads.feature_rows import BLOCK_ROWS, RowReader, TrainingRows, moments
from models.heads.head import OUTPUT_NAMES
from models.heads.layers import RoundedLinear, SeededDropout
from models.heads.losses import ccc_loss, class_weights, expression_loss, unit_loss, unit_weights
from models.heads.metrics import accuracy, score_branch
from models.heads.recipes import Branch, HeadRecipe

logger = logging.getLogger(__name__)
_ADAM_EPSILON = 1e-7  # as Keras has it


def decide(branch: Branch, outputs: np.ndarray) -> np.ndarray:
    """Decisions from outputs [n, K] without any post-processing: the largest class, units from 0.5 on, values."""
    if branch == "expr":
        return outputs.argmax(axis=1)
    return outputs if branch == "va" else (outputs >= 0.5).astype(np.int8)


class AdamFit:
    """The branches of one part, fitted together.

    Raises:
        ValueError: no row is labelled, or the features are not finite.
    """

    def __init__(
        self, train: TrainingRows, recipe: HeadRecipe, *, seed: int, precision: Precision, device: str = "cpu"
    ) -> None:
        self._train, self._recipe, self._device = train, recipe, torch.device(device)
        self._rows = train.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
        if not len(self._rows):
            raise ValueError(f"{'+'.join(recipe.branches)}: expected labelled training rows, found none")
        torch.manual_seed(seed)
        self._random = np.random.default_rng(seed)
        width = train.width(recipe.features)
        self._mean, self._deviation = torch.zeros(width), torch.ones(width)
        if recipe.standardize:
            self._mean, self._deviation = moments(train, self._rows, recipe.features)
        self._reader = self._read(train, recipe.batch_size)
        networks: dict[str, nn.Module] = {
            branch: _network(width, branch, recipe, precision, seed) for branch in recipe.branches
        }
        self._networks = nn.ModuleDict(networks).to(self._device)
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
        optimizer = Adam(self._networks.parameters(), learning_rate=recipe.learning_rate, epsilon=_ADAM_EPSILON)
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
                weight, bias = layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu()
                if number == 0:
                    weight = weight / self._deviation.double()
                    bias = bias - weight @ self._mean.double()
                found[f"{branch}.{number}.weight"] = weight.float().numpy()
                found[f"{branch}.{number}.bias"] = bias.float().numpy()
        return found

    def _read(self, rows: TrainingRows, batch_rows: int) -> RowReader:
        mean, deviation = (self._mean, self._deviation) if self._recipe.standardize else (None, None)
        return RowReader(
            rows,
            self._recipe.features,
            batch_rows=batch_rows,
            mean=None if mean is None else mean.to(self._device),
            deviation=None if deviation is None else deviation.to(self._device),
            device=self._device,
        )

    def _train_epoch(self, optimizer: Adam) -> float:
        self._networks.train()
        losses = []
        for batch, inputs in self._reader.blocks(self._random.permutation(self._rows)):
            optimizer.zero_grad()
            loss = self._loss(self._train, batch, inputs)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _loss(self, rows: TrainingRows, index: np.ndarray, inputs: Tensor) -> Tensor:
        recipe = self._recipe
        total = torch.zeros((), device=self._device)
        for branch in recipe.branches:
            output = _activate(self._networks[branch](inputs), branch)
            target = rows.targets(index, branch).to(self._device)
            if branch == "au":
                weight, published = self._weights["au"], recipe.published_masking
                total = total + unit_loss(output, target, unit_weight=weight, published_masking=published)
            elif branch == "va":
                total = total + ccc_loss(output, target)
            else:
                total = total + expression_loss(output, target, class_weight=self._weights["expr"])
        if recipe.l2:
            layers = [module for module in self._networks.modules() if isinstance(module, nn.Linear)]
            total = total + recipe.l2 * torch.stack([layer.weight.square().sum() for layer in layers]).sum()
        return total

    @torch.no_grad()
    def _checkpoint_value(self, validation: TrainingRows) -> float:
        self._networks.eval()
        recipe = self._recipe
        known = validation.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
        if not len(known):
            raise ValueError(f"{'+'.join(recipe.branches)}: expected labelled validation rows, found none")
        if recipe.checkpoint == "loss":
            blocks = self._read(validation, recipe.batch_size).blocks(known)
            return float(torch.stack([self._loss(validation, *block) for block in blocks]).mean())
        (branch,) = recipe.branches
        network, blocks = self._networks[branch], self._read(validation, BLOCK_ROWS).blocks(known)
        parts = [decide(branch, _activate(network(inputs), branch).cpu().numpy()) for _, inputs in blocks]
        decisions, labels = np.concatenate(parts), validation.labels[branch][known]
        if recipe.checkpoint == "accuracy":
            return accuracy(labels, decisions)
        return score_branch(branch, labels, decisions)[recipe.checkpoint]


def _network(width: int, branch: Branch, recipe: HeadRecipe, precision: Precision, seed: int) -> nn.Sequential:
    outputs = len(OUTPUT_NAMES[branch])
    if recipe.hidden_units:
        # Outputs of a linear head would show the rounding; a hidden layer is as sure of itself as its dropout.
        hidden = (RoundedLinear if precision == "bfloat16" else nn.Linear)(width, recipe.hidden_units)
        dropout = SeededDropout(recipe.dropout, np.random.default_rng([seed, *branch.encode()]))
        network = nn.Sequential(hidden, nn.ReLU(), dropout, nn.Linear(recipe.hidden_units, outputs))
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
