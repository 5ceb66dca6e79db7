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
        mean, deviation = moments(train, rows, recipe.features, scores=recipe.scores, inputs_from=recipe.inputs_from)
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    width = train.width(recipe.features) + sum(train.outputs[branch].shape[1] for branch in recipe.inputs_from)
    network = BranchNetworks(width, recipe, settings).to(device)

    def reader(data: TrainingRows, batch_rows: int) -> RowReader:
        return RowReader(
            data,
            recipe.features,
            scores=recipe.scores,
            inputs_from=recipe.inputs_from,
            batch_rows=batch_rows,
            mean=mean,
            deviation=deviation,
            device=settings.device,
        )

    def run(batch: tuple[Tensor, Labels]) -> tuple[dict[BranchName, Tensor], Labels]:
        inputs, labels = batch
        return network(inputs), labels

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
        train=lambda: _batches(train, recipe, train_reader, _draw(rows, recipe, random)),
        validation=validate,
        progress=settings.progress,
    )
    tensors = {}
    for branch in recipe.branches:
        for number, layer in enumerate(network.layers(branch)):
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


def _draw(rows: np.ndarray, recipe: HeadRecipe, random: np.random.Generator) -> np.ndarray:
    """Return the rows of one epoch in random order."""
    order = random.permutation(rows)
    return order[: recipe.epoch_rows] if recipe.epoch_rows else order


def _batches(
    data: TrainingRows, recipe: HeadRecipe, reader: RowReader, order: np.ndarray
) -> Iterator[tuple[Tensor, Labels]]:
    for index, inputs in reader.blocks(order):
        yield inputs, {branch: data.labels[branch][index] for branch in recipe.branches}


class BranchNetworks(nn.Module):
    """The layers of all branches of a recipe: hidden layers of each branch, or shared by all, and an output layer."""

    def __init__(self, width: int, recipe: HeadRecipe, settings: FitSettings) -> None:
        super().__init__()
        self._hidden, self._output = nn.ModuleDict(), nn.ModuleDict()
        self._hidden_of = {branch: "shared" if recipe.shared_hidden else branch for branch in recipe.branches}
        sizes = (width, *hidden_sizes(recipe.hidden_units))
        for branch, hidden in self._hidden_of.items():
            layers: list[nn.Linear] = []
            if hidden not in self._hidden:
                self._hidden[hidden] = _hidden_layers(sizes, hidden, recipe, settings)
                layers += _linear_layers(self._hidden[hidden])
            output = nn.Linear(sizes[-1], len(OUTPUT_NAMES[branch]))
            self._output[branch] = output
            for layer in [*layers, output]:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor) -> dict[BranchName, Tensor]:
        """Return the outputs of each branch before their activation, [n, K], of inputs [n, width]."""
        hidden = {name: layers(inputs) for name, layers in self._hidden.items()}
        return {branch: self._output[branch](hidden[name]) for branch, name in self._hidden_of.items()}

    def layers(self, branch: BranchName) -> list[nn.Linear]:
        """Return the linear layers from the inputs to the outputs of a branch."""
        return _linear_layers(nn.ModuleList([*self._hidden[self._hidden_of[branch]].children(), self._output[branch]]))


def _hidden_layers(sizes: tuple[int, ...], name: str, recipe: HeadRecipe, settings: FitSettings) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        # Rounding would be visible in the outputs of a linear head; in a hidden layer, dropout adds more noise.
        is_rounded = settings.precision == "bfloat16" and number == 0
        random = np.random.default_rng([settings.seed, *name.encode(), *([number] if number else [])])
        layers += [(RoundedLinear if is_rounded else nn.Linear)(inputs, outputs), nn.ReLU()]
        layers.append(SeededDropout(recipe.dropout, random))
    return nn.Sequential(*layers)


def _linear_layers(layers: nn.Module) -> list[nn.Linear]:
    return [layer for layer in layers.children() if isinstance(layer, nn.Linear)]


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
