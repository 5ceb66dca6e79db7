"""Losses of heads and of pre-training, with their class weights and the masks of the published recipe."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from data_contracts.vocabulary import EXPRESSIONS, BranchName
from models.heads.recipes import HeadRecipe

_TINY = 1e-7


class BranchLosses:
    """The loss of a recipe: the sum of the losses of its branches, with class weights from the training labels."""

    def __init__(
        self, recipe: HeadRecipe, labels: Mapping[BranchName, np.ndarray], *, device: str | torch.device = "cpu"
    ) -> None:
        """Compute class weights from the labels of all training rows: ``expr`` [n], ``au`` [n, 12]."""
        self._recipe, self._device = recipe, torch.device(device)
        self._weights: dict[str, Tensor] = {}
        if "expr" in recipe.branches:
            self._weights["expr"] = class_weights(labels["expr"], balanced=recipe.balanced).to(self._device)
        if "au" in recipe.branches:
            self._weights["au"] = unit_weights(labels["au"], balanced=recipe.balanced).to(self._device)

    def __call__(self, outputs: Mapping[BranchName, Tensor], labels: Mapping[BranchName, np.ndarray]) -> Tensor:
        """Return the loss of outputs [n, K] before their activation, and labels as in ``TrainingRows``."""
        total = torch.zeros((), device=self._device)
        for branch in self._recipe.branches:
            output, target = activate(outputs[branch], branch), _to_target(labels[branch], branch).to(self._device)
            if branch == "au":
                weight, published = self._weights["au"], self._recipe.published_masking
                total = total + unit_loss(output, target, unit_weight=weight, published_masking=published)
            elif branch == "va":
                total = total + ccc_loss(output, target)
            else:
                total = total + expression_loss(output, target, class_weight=self._weights["expr"])
        return total


def _to_target(labels: np.ndarray, branch: BranchName) -> Tensor:
    """Convert labels to int64 [n] for ``expr``, float32 [n, K] for the others."""
    values = torch.from_numpy(labels)
    return values.long() if branch == "expr" else values.float()


def activate(x: Tensor, branch: BranchName) -> Tensor:
    """Return the outputs of a branch from those of its last layer: softmax, tanh or sigmoid; x [n, K]."""
    if branch == "expr":
        return torch.softmax(x, dim=1)
    return torch.tanh(x) if branch == "va" else torch.sigmoid(x)


def expression_loss(probability: Tensor, target: Tensor, *, class_weight: Tensor) -> Tensor:
    """Return the mean over rows of weight[class] * -log p[class]; ``probability`` [n, 8], ``target`` int64 [n].

    A row with target -1 counts as published: its output is set to 0, so its loss is a constant, the clipped logarithm
    times the weight of class 0. Leave such rows out to ignore them.
    """
    known = target >= 0
    index = target.clamp(min=0)
    chosen = probability.gather(1, index[:, None])[:, 0] * known
    return (class_weight[index] * -torch.log(chosen.clamp(_TINY, 1 - _TINY))).mean()


def unit_loss(probability: Tensor, target: Tensor, *, unit_weight: Tensor, published_masking: bool = False) -> Tensor:
    """Return the weighted binary cross entropy of ``probability`` and ``target`` [n, 12]; ``unit_weight`` [2, 12].

    It is the mean over labelled entries (not -1). With published masking, it is the mean over all entries, with output
    and label of the unlabelled ones set to 0 (and so almost no loss).
    """
    known = (target >= 0).to(probability.dtype)
    positive = target.clamp(min=0)
    weight = torch.where(positive > 0, unit_weight[1], unit_weight[0])
    p = (probability * known).clamp(_TINY, 1 - _TINY)
    entropy = -(positive * torch.log(p) + (1 - positive) * torch.log(1 - p)) * weight
    if published_masking:
        return entropy.mean()
    return (entropy * known).sum() / known.sum().clamp(min=1)


def ccc_loss(value: Tensor, target: Tensor) -> Tensor:
    """Return 1 - (CCC_V + CCC_A) / 2 with population moments over the batch (Savchenko 2022, section 2); [n, 2] each.

    A row with a NaN target counts as published, as the pair (0, 0). Leave such rows out to ignore them.
    """
    known = ~torch.isnan(target).any(dim=1, keepdim=True)
    x, y = value * known, torch.where(known, target, torch.zeros_like(target))
    mean_x, mean_y = x.mean(0), y.mean(0)
    covariance = ((x - mean_x) * (y - mean_y)).mean(0)
    spread = x.var(0, correction=0) + y.var(0, correction=0) + (mean_x - mean_y).square()
    return 1 - (2 * covariance / (spread + _TINY)).mean()


def class_weights(labels: np.ndarray, *, balanced: bool = True) -> Tensor:
    """Return max n / n per expression, float32 [8], of int labels [n] (-1: ignored); 1 if a class has no row."""
    counts = np.bincount(labels[labels >= 0], minlength=len(EXPRESSIONS))
    if not balanced:
        return torch.ones(len(counts))
    weights = np.where(counts > 0, counts.max() / np.maximum(counts, 1), 1.0)
    return torch.tensor(weights, dtype=torch.float32)


def unit_weights(labels: np.ndarray, *, balanced: bool = True) -> Tensor:
    """Return N / (2 negatives) and N / (2 positives) per action unit, float32 [2, k], of labels [n, k] (-1: ignored).

    A value that never occurs gets 1.
    """
    counts = np.array([[np.count_nonzero(unit == value) for unit in labels.T] for value in (0, 1)])
    if not balanced:
        return torch.ones(counts.shape)
    weights = np.where(counts > 0, counts.sum(axis=0) / (2 * np.maximum(counts, 1)), 1.0)
    return torch.tensor(weights, dtype=torch.float32)


def smoothed_cross_entropy(
    logits: Tensor, target: Tensor, *, weights: Tensor, rows: Tensor, smoothing: float
) -> Tensor:
    """Return the mean over rows of r * -sum_c w_c q_c log p_c, q being the target smoothed over all classes.

    ``logits`` [n, C], ``target`` int64 [n], ``weights`` w [C] (they multiply the smoothed target, as in the authors'
    notebook train_emotions-pytorch), ``rows`` r [n].
    """
    count = logits.shape[1]
    q = torch.nn.functional.one_hot(target, count).float() * (1 - smoothing) + smoothing / count
    return -(rows * (weights * q * torch.log_softmax(logits, dim=1)).sum(dim=1)).mean()


def balanced_weights(classes: np.ndarray, rows: np.ndarray, count: int, power: float) -> Tensor:
    """Return (max n / n) ** power per class, n the sum of row weights, scaled so that the mean weight of a row is 1.

    ``classes`` int [N], -1: unlabelled, ignored; ``rows`` float [N].
    """
    known = classes >= 0
    sums = np.bincount(classes[known], rows[known], minlength=count)
    weights = np.where(sums > 0, sums.max() / np.maximum(sums, 1e-9), 1.0) ** power
    weights = weights * known.sum() / max((weights * sums).sum(), 1e-9)
    return torch.tensor(weights, dtype=torch.float32)


def log_prior(classes: np.ndarray, rows: np.ndarray, count: int) -> Tensor:
    """Return log p of each class, float32 [count], p its share of the row weights with one row added to every class.

    ``classes`` int [N], -1: unlabelled, ignored; ``rows`` float [N].
    """
    known = classes >= 0
    sums = np.bincount(classes[known], rows[known], minlength=count) + 1.0
    return torch.tensor(np.log(sums / sums.sum()), dtype=torch.float32)
