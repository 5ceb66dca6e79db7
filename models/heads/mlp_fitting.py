"""Fit multi-layer perceptrons by Adam on batches of shuffled rows, with fast layers for the processor."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_contracts.vocabulary import BranchName
from models.heads.fitting import fit_epochs
from models.heads.head import OUTPUT_NAMES, FitSettings, FittedPart
from models.heads.losses import BranchLosses
from models.heads.recipes import HeadRecipe, hidden_sizes
from models.heads.rows import BLOCK_ROWS, RowReader, TrainingRows, moments
from models.heads.sequences import Labels


def fit_mlp(
    train: TrainingRows, validation: TrainingRows | None, recipe: HeadRecipe, settings: FitSettings
) -> FittedPart:
    """See ``Head.fit_part``."""
    device = torch.device(settings.device)
    rows = _labelled(train, recipe, "training")
    mean = deviation = None
    if recipe.standardize:
        mean, deviation = moments(train, rows, recipe.features, scores=recipe.scores)
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    width = train.width(recipe.features)
    networks: dict[str, nn.Module] = {branch: _network(width, branch, recipe, settings) for branch in recipe.branches}
    network = nn.ModuleDict(networks).to(device)

    def reader(data: TrainingRows, batch_rows: int) -> RowReader:
        return RowReader(
            data,
            recipe.features,
            scores=recipe.scores,
            batch_rows=batch_rows,
            mean=mean,
            deviation=deviation,
            device=settings.device,
        )

    def run(batch: tuple[Tensor, Labels]) -> tuple[dict[BranchName, Tensor], Labels]:
        inputs, labels = batch
        return {branch: network[branch](inputs) for branch in recipe.branches}, labels

    train_reader, validate = reader(train, recipe.batch_size), None
    if validation is not None:
        known = _labelled(validation, recipe, "validation")
        validation_reader = reader(validation, recipe.batch_size if recipe.checkpoint == "loss" else BLOCK_ROWS)
        validate = functools.partial(_batches, validation, recipe, validation_reader, known)
    fitted = fit_epochs(
        network,
        recipe,
        BranchLosses(recipe, {branch: train.labels[branch][rows] for branch in recipe.branches}, device=device),
        run=run,
        train=lambda: _batches(train, recipe, train_reader, random.permutation(rows)),
        validation=validate,
        progress=settings.progress,
    )
    tensors = {}
    for branch in recipe.branches:
        layers = [module for module in networks[branch].children() if isinstance(module, nn.Linear)]
        for number, layer in enumerate(layers):
            weight, bias = layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu()
            if number == 0 and mean is not None and deviation is not None:
                # Fold the standardisation into the first layer.
                weight = weight / deviation.double()
                bias = bias - weight @ mean.double()
            tensors[f"{branch}.{number}.weight"] = weight.float().numpy()
            tensors[f"{branch}.{number}.bias"] = bias.float().numpy()
    return replace(fitted, tensors=tensors)


def _labelled(data: TrainingRows, recipe: HeadRecipe, name: str) -> np.ndarray:
    rows = data.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
    if not len(rows):
        raise ValueError(f"{'+'.join(recipe.branches)}: expected labelled {name} rows, found none")
    return rows


def _batches(
    data: TrainingRows, recipe: HeadRecipe, reader: RowReader, order: np.ndarray
) -> Iterator[tuple[Tensor, Labels]]:
    for index, inputs in reader.blocks(order):
        yield inputs, {branch: data.labels[branch][index] for branch in recipe.branches}


def _network(width: int, branch: BranchName, recipe: HeadRecipe, settings: FitSettings) -> nn.Sequential:
    layers: list[nn.Module] = []
    sizes = (width, *hidden_sizes(recipe.hidden_units), len(OUTPUT_NAMES[branch]))
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        # Rounding would be visible in the outputs of a linear head; in a hidden layer, dropout adds more noise.
        is_rounded = settings.precision == "bfloat16" and number == 0 and len(sizes) > 2
        layers.append((RoundedLinear if is_rounded else nn.Linear)(inputs, outputs))
        if number < len(sizes) - 2:
            random = np.random.default_rng([settings.seed, *branch.encode(), *([number] if number else [])])
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
