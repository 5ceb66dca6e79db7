"""Losses of heads and of pre-training, with their class weights and the masks of the published recipe."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, nll_loss

from data_contracts.vocabulary import EXPRESSIONS, BranchName
from models.heads.recipes import HeadRecipe
from models.heads.sequences import Labels

_TINY = 1e-7  # as in Keras


class BranchLosses:
    """The loss of a recipe: the sum of the losses of its branches, with class weights from the training labels."""

    def __init__(self, recipe: HeadRecipe, labels: Labels, *, device: str | torch.device = "cpu") -> None:
        """Compute class weights from the labels of all training rows: ``expr`` [n], ``au`` [n, 12]."""
        self._recipe, self._device = recipe, torch.device(device)
        self._weights: dict[str, Tensor] = {}
        factors = recipe.branch_weights or (1.0,) * len(recipe.branches)
        self._factors = dict(zip(recipe.branches, factors, strict=True))
        if "expr" in recipe.branches:
            self._weights["expr"] = class_weights(labels["expr"], balanced=recipe.balanced).to(self._device)
        if "au" in recipe.branches:
            units = labels["au"]
            whole = units[(units >= 0).all(axis=1)] if recipe.drop_partial_units else units
            self._weights["au"] = unit_weights(whole, balanced=recipe.balanced).to(self._device)

    def __call__(self, outputs: Mapping[BranchName, Tensor], labels: Labels) -> Tensor:
        """Return the loss of outputs [n, K] before their activation, and labels as in ``TrainingRows``."""
        recipe, total = self._recipe, torch.zeros((), device=self._device)
        for branch in recipe.branches:
            output, target = outputs[branch], torch.from_numpy(labels[branch]).to(self._device)
            if branch == "va":
                masked = recipe.published_masking
                loss = value_loss(torch.tanh(output), target.to(output.dtype), published_masking=masked)
                total = total + self._factors[branch] * loss
                continue
            weight = self._weights[branch].to(output.dtype)
            if branch == "au":
                loss = unit_loss(
                    output, target.to(output.dtype), unit_weight=weight, published_masking=recipe.published_masking
                )
            else:
                loss = expression_loss(
                    output,
                    target.long(),
                    class_weight=weight,
                    published_masking=recipe.published_masking,
                    published_weighting=recipe.published_weighting,
                )
            total = total + self._factors[branch] * loss
        return total


def activate(x: Tensor, branch: BranchName) -> Tensor:
    """Return the outputs of a branch from those of its last layer: softmax, tanh or sigmoid; x [n, K]."""
    if branch == "expr":
        return torch.softmax(x, dim=1)
    return torch.tanh(x) if branch == "va" else torch.sigmoid(x)


def expression_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_weight: Tensor,
    published_masking: bool = False,
    published_weighting: bool = False,
) -> Tensor:
    """Return the mean over labelled rows (target not -1) of weight[class] * -log p[class], p = softmax(logits).

    Args:
        logits: float [n, 8].
        target: int64 [n].
        class_weight: float [8].
        published_masking: the mean over all rows, as the authors' multi-task notebook computes it (A3 c103): p is set
            to 0 in unlabelled rows, whose class is 0, and the loss is computed from p clipped to 1e-7..1 - 1e-7 and
            divided by its sum. So an unlabelled row costs weight[0] * log 8, and p that is clipped has no gradient.
        published_weighting: mean(weight[class]) * mean(-log p[class]), because the notebook multiplies an array [n] by
            an array [n, 1], which gives [n, n] (A3 c101). The weights change the size of the batch's loss, not the
            share of a row in it.
    """
    known, index = target >= 0, target.clamp(min=0)
    if published_masking:
        clipped = (torch.softmax(logits, dim=1) * known[:, None]).clamp(_TINY, 1 - _TINY)
        loss = nll_loss(torch.log_softmax(torch.log(clipped), dim=1), index, reduction="none")
        counted = torch.ones_like(loss)
    else:
        loss = nll_loss(torch.log_softmax(logits, dim=1), index, reduction="none")
        counted = known.to(loss.dtype)
    weight, rows = class_weight[index] * counted, counted.sum().clamp(min=1)
    if published_weighting:
        return (weight.sum() / rows) * ((loss * counted).sum() / rows)
    return (weight * loss).sum() / rows


def unit_loss(logits: Tensor, target: Tensor, *, unit_weight: Tensor, published_masking: bool = False) -> Tensor:
    """Return the weighted binary cross entropy of sigmoid(logits) and ``target``, both [n, 12].

    It is the mean over labelled entries (target not -1). ``unit_weight`` [2, 12] has the weights of 0 and of 1.

    With published masking, it is the mean over all entries, as in the authors' multi-task notebook (A3 c102, c103): in
    rows with an unlabelled entry, all labels and probabilities are 0, so their loss is 0. The loss is computed from
    probabilities p clipped to 1e-7..1 - 1e-7, as log(p + 1e-7), so p that is clipped has no gradient.
    """
    known = target >= 0
    if published_masking:
        known = known.all(dim=1, keepdim=True)
    positive = target.clamp(min=0) * known
    weight = torch.where(positive > 0, unit_weight[1], unit_weight[0])
    if published_masking:
        p = (torch.sigmoid(logits) * known).clamp(_TINY, 1 - _TINY)
        return -(weight * (positive * torch.log(p + _TINY) + (1 - positive) * torch.log(1 - p + _TINY))).mean()
    entropy = binary_cross_entropy_with_logits(logits, positive, weight=weight * known, reduction="sum")
    return entropy / known.sum().clamp(min=1)


def value_loss(value: Tensor, target: Tensor, *, published_masking: bool = False) -> Tensor:
    """Return the CCC loss of the rows with a target (not NaN); both [n, 2].

    With published masking, the other rows count as pairs (0, 0), as in the authors' multi-task notebook (A3 c103).
    """
    known = ~torch.isnan(target).any(dim=1, keepdim=True)
    if published_masking:
        return ccc_loss(value * known, torch.where(known, target, torch.zeros_like(target)))
    rows = known[:, 0]
    return ccc_loss(value[rows], target[rows]) if rows.any() else value.sum() * 0


def ccc_loss(value: Tensor, target: Tensor) -> Tensor:
    """Return 1 - (CCC_V + CCC_A) / 2 with population moments over the batch (Savchenko 2022, section 2); [n, 2] each.

    1e-7 is added to the denominators (A3 c33).
    """
    mean_x, mean_y = value.mean(0), target.mean(0)
    covariance = ((value - mean_x) * (target - mean_y)).mean(0)
    spread = value.var(0, correction=0) + target.var(0, correction=0) + (mean_x - mean_y).square()
    return 1 - (2 * covariance / (spread + _TINY)).mean()


def class_weights(labels: np.ndarray, *, balanced: bool = True) -> Tensor:
    """Return max n / n per expression, float64 [8], of int labels [n] (-1: ignored); 1 if a class has no row."""
    counts = np.bincount(labels[labels >= 0], minlength=len(EXPRESSIONS))
    if not balanced:
        return torch.ones(len(counts), dtype=torch.float64)
    return torch.from_numpy(np.where(counts > 0, counts.max() / np.maximum(counts, 1), 1.0))


def unit_weights(labels: np.ndarray, *, balanced: bool = True) -> Tensor:
    """Return N / (2 negatives) and N / (2 positives) per action unit, float64 [2, k], of labels [n, k] (-1: ignored).

    A value that never occurs gets 1.
    """
    counts = np.array([[np.count_nonzero(unit == value) for unit in labels.T] for value in (0, 1)])
    if not balanced:
        return torch.ones(counts.shape, dtype=torch.float64)
    return torch.from_numpy(np.where(counts > 0, counts.sum(axis=0) / (2 * np.maximum(counts, 1)), 1.0))


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
