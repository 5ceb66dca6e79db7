"""Fit multi-layer perceptrons by Adam on batches of shuffled rows, with fast layers for the processor."""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.engines.precision import Precision
from models.heads.fitting import Adam, checkpoint_metric, fit_epochs
from models.heads.head import OUTPUT_NAMES, FittedPart
from models.heads.losses import BranchLosses, activate
from models.heads.recipes import Branch, HeadRecipe, hidden_sizes
from models.heads.rows import BLOCK_ROWS, RowReader, TrainingRows, moments


class MlpFit:
    """The branches of one part of a recipe, fitted together with one seed.

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
        labels = {branch: train.labels[branch][self._rows] for branch in recipe.branches}
        self._losses = BranchLosses(recipe, labels, device=self._device)

    def run(self, validation: TrainingRows | None) -> FittedPart:
        """Fit all epochs, and return the weights of the best one."""
        history, best_epoch = fit_epochs(
            self._networks,
            self._recipe,
            train_epoch=self._train_epoch,
            validate=None if validation is None else lambda: self._validate(validation),
        )
        return FittedPart(self._tensors(), history, best_epoch)

    def _tensors(self) -> dict[str, np.ndarray]:
        """Return the weights by ``branch.layer``, with the standardisation folded into the first layer."""
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
        losses = []
        for batch, inputs in self._reader.blocks(self._random.permutation(self._rows)):
            optimizer.zero_grad()
            loss = self._loss(self._train, batch, inputs)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _loss(self, rows: TrainingRows, index: np.ndarray, inputs: Tensor) -> Tensor:
        branches = self._recipe.branches
        outputs = {branch: activate(self._networks[branch](inputs), branch) for branch in branches}
        total = self._losses(outputs, {branch: rows.targets(index, branch) for branch in branches})
        if self._recipe.l2:
            layers = [module for module in self._networks.modules() if isinstance(module, nn.Linear)]
            total = total + self._recipe.l2 * torch.stack([layer.weight.square().sum() for layer in layers]).sum()
        return total

    def _validate(self, validation: TrainingRows) -> float:
        recipe = self._recipe
        known = validation.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
        if not len(known):
            raise ValueError(f"{'+'.join(recipe.branches)}: expected labelled validation rows, found none")
        if recipe.checkpoint == "loss":
            blocks = self._read(validation, recipe.batch_size).blocks(known)
            return float(torch.stack([self._loss(validation, *block) for block in blocks]).mean())
        (branch,) = recipe.branches
        network, blocks = self._networks[branch], self._read(validation, BLOCK_ROWS).blocks(known)
        outputs = [activate(network(inputs), branch).cpu().numpy() for _, inputs in blocks]
        return checkpoint_metric(recipe, validation.labels[branch][known], np.concatenate(outputs))


def _network(width: int, branch: Branch, recipe: HeadRecipe, precision: Precision, seed: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    sizes = (width, *hidden_sizes(recipe.hidden_units), len(OUTPUT_NAMES[branch]))
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        # Rounding would be visible in the outputs of a linear head; in a hidden layer, dropout adds more noise.
        is_rounded = precision == "bfloat16" and number == 0 and len(sizes) > 2
        layers.append((RoundedLinear if is_rounded else nn.Linear)(inputs, outputs))
        if number < len(sizes) - 2:
            random = np.random.default_rng([seed, *branch.encode(), *([number] if number else [])])
            layers += [nn.ReLU(), SeededDropout(recipe.dropout, random)]
    for module in layers:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return nn.Sequential(*layers)


class RoundedLinear(nn.Linear):
    """A linear layer whose two large products, with the inputs and with the gradient, take factors in bfloat16.

    Weights, gradients, and sums inside a product are float32. Inputs get no gradient, and their rounded copy is
    overwritten by the next call: call backward before the next forward.
    """

    _rounded: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs float32 [n, out] of float32 [n, in]."""
        if self._rounded is None or len(self._rounded) < len(inputs):
            self._rounded = torch.empty(inputs.shape, dtype=torch.bfloat16, device=inputs.device)
        rounded = self._rounded[: len(inputs)].copy_(inputs)
        outputs: Tensor = _RoundedProduct.apply(rounded, self.weight, self.bias)
        return outputs


class _RoundedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.inputs = inputs
        return torch.mm(inputs, weight.to(torch.bfloat16).t()).float().add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        product = torch.mm(gradient.to(torch.bfloat16).t(), ctx.inputs)
        return None, product.float(), gradient.sum(0)


class SeededDropout(nn.Module):
    """Dropout with its own random generator: NumPy draws faster than torch, whose draws take longer than the layer."""

    def __init__(self, share: float, random: np.random.Generator) -> None:
        super().__init__()
        self._share, self._random = share, random
        self._drawn = np.empty(0, np.float32)

    def forward(self, values: Tensor) -> Tensor:
        """Return the values; in training, each is 0 with probability ``share``, else divided by 1 - share."""
        if not self.training or not self._share:
            return values
        if len(self._drawn) < values.numel():
            self._drawn = np.empty(values.numel(), np.float32)
        drawn = self._drawn[: values.numel()]
        self._random.random(dtype=np.float32, out=drawn)
        kept = torch.from_numpy(drawn).reshape(values.shape) >= self._share
        return values * kept.to(values).div_(1 - self._share)
