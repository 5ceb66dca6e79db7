"""Linear heads of valence and arousal fitted on all rows at once: the CCC itself, by L-BFGS, without chance.

The loss is 1 minus the mean CCC over all labelled rows, plus the penalty; Adam only sees the CCC of each batch.
"""

import logging

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from models.feature_rows import BLOCK_ROWS, RowReader, TrainingRows, moments
from models.metrics import score_branch
from models.recipes import HeadRecipe

logger = logging.getLogger(__name__)
_TINY = 1e-7  # as in ``losses.ccc_loss``
# Up to here products are in float64 throughout: they cost less than reading the rows.
_FEW_INPUTS = 64
# Of few inputs many rows at a time: else calls cost more than what they compute.
_BLOCK_NUMBERS = 1 << 19


class CccFit:
    """The one branch ``va``; every seed gives the same head.

    Raises:
        ValueError: no row is labelled, or the features are not finite.
    """

    def __init__(self, train: TrainingRows, recipe: HeadRecipe) -> None:
        self._train, self._recipe = train, recipe
        self._rows = train.labelled(recipe.branches)
        if not len(self._rows):
            raise ValueError("va: expected labelled training rows, found none")
        self._width = train.width(recipe.features)
        self._mean, self._deviation = moments(train, self._rows, recipe.features)
        if not recipe.standardize:
            self._mean, self._deviation = torch.zeros(self._width), torch.ones(self._width)
        self._kind = torch.float64 if self._width <= _FEW_INPUTS else torch.float32
        self._reader = self._read(train)
        target = torch.from_numpy(train.labels["va"][self._rows]).double()
        self._target_sums = torch.stack([target.sum(0), target.square().sum(0)])
        self._best = np.zeros((2, self._width + 1))

    def run(self, validation: TrainingRows | None) -> tuple[list[dict[str, float]], int]:
        """History of all iterations (at most ``epochs`` of the recipe), and the one whose weights are kept."""
        recipe, history = self._recipe, list[dict[str, float]]()
        best, best_iteration = -np.inf, 0

        def keep_best(intermediate_result) -> None:  # type: ignore[no-untyped-def]
            nonlocal best, best_iteration
            weights, entry = intermediate_result.x.reshape(2, -1), {"epoch": float(len(history) + 1)}
            entry["train_loss"] = float(intermediate_result.fun)
            value = entry["epoch"]
            if validation is not None:
                entry[recipe.checkpoint], value = self._checkpoint(weights, validation)
            history.append(entry)
            if value > best:
                best, best_iteration, self._best = value, len(history), weights.copy()
            if recipe.patience and len(history) - best_iteration >= recipe.patience:
                raise StopIteration

        options = {"maxiter": recipe.epochs, "ftol": 1e-9, "gtol": 1e-6}
        minimize(
            self._loss_and_gradient,
            self._best.ravel(),
            jac=True,
            method="L-BFGS-B",
            callback=keep_best,
            options=options,
        )
        if not best_iteration:
            raise ValueError("va: expected a loss that can be lessened, found none; are all labels equal?")
        logger.debug("va: kept iteration %d of %d", best_iteration, len(history))
        return history, best_iteration

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by ``branch.layer``, the standardisation folded in."""
        weight = self._best[:, :-1] / self._deviation.double().numpy()
        bias = self._best[:, -1] - weight @ self._mean.double().numpy()
        return {"va.0.weight": weight.astype(np.float32), "va.0.bias": bias.astype(np.float32)}

    def _read(self, rows: TrainingRows) -> RowReader:
        mean, deviation = (self._mean, self._deviation) if self._recipe.standardize else (None, None)
        block_rows = max(BLOCK_ROWS, _BLOCK_NUMBERS // self._width)
        return RowReader(rows, self._recipe.features, batch_rows=block_rows, mean=mean, deviation=deviation)

    def _loss_and_gradient(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """One pass over the rows: the gradient of a CCC is a sum of three sums whose factors are known at the end."""
        weights = torch.from_numpy(flat.reshape(2, -1))
        sums = torch.zeros(3, 2, dtype=torch.float64)  # of v, v^2 and v y
        slopes = torch.zeros(6, self._width + 1, dtype=torch.float64)  # of (1, v, y) dv/d(weights and bias)
        targets = self._train.labels["va"]
        for index, inputs in self._reader.blocks(self._rows):
            value, inputs = self._values(weights, inputs)
            target = torch.from_numpy(targets[index]).double()
            sums += torch.stack([value.sum(0), value.square().sum(0), (value * target).sum(0)])
            slope = 1 - value.square()
            columns = torch.cat([slope, slope * value, slope * target], dim=1)
            slopes[:, :-1] += torch.mm(columns.t().to(self._kind), inputs).double()
            slopes[:, -1] += columns.sum(0)
        loss, factors = _ccc_and_factors(sums, self._target_sums, len(self._rows))
        gradient = (factors[:, :, None] * slopes.reshape(3, 2, -1)).sum(0)
        gradient[:, :-1] += 2 * self._recipe.l2 * weights[:, :-1]
        penalty = self._recipe.l2 * weights[:, :-1].square().sum()
        return float(loss + penalty), gradient.numpy().ravel()

    def _values(self, weights: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """tanh of the outputs float64 [n, 2], and the inputs in the kind of number that is multiplied."""
        inputs = inputs.to(self._kind)
        return torch.tanh(torch.mm(inputs, weights[:, :-1].t().to(self._kind)).double() + weights[:, -1]), inputs

    def _checkpoint(self, flat: np.ndarray, validation: TrainingRows) -> tuple[float, float]:
        """The checkpoint's value on the validation rows, and the same as something to be made large."""
        recipe, weights = self._recipe, torch.from_numpy(flat)
        known = validation.labelled(recipe.branches)
        if not len(known):
            raise ValueError("va: expected labelled validation rows, found none")
        parts = [self._values(weights, inputs)[0] for _, inputs in self._read(validation).blocks(known)]
        labels, outputs = validation.labels["va"][known], torch.cat(parts).float().numpy()
        ccc = score_branch("va", labels, outputs)["mean_ccc"]
        if recipe.checkpoint == "loss":
            loss = 1 - ccc + recipe.l2 * float(weights[:, :-1].square().sum())
            return loss, -loss
        return ccc, ccc


def _ccc_and_factors(sums: Tensor, target_sums: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """1 - mean CCC, and by how much each row's 1, v and y enter into its derivative after v, [3, 2].

    ``sums`` [3, 2] of v, v^2 and v y; ``target_sums`` [2, 2] of y and y^2.
    """
    mean_v, square_v, product = sums / count
    mean_y, square_y = target_sums / count
    covariance = product - mean_v * mean_y
    # var v + var y + (mean v - mean y)^2; its derivative after v_i is 2 (v_i - mean y) / n.
    spread = square_v + square_y - 2 * mean_v * mean_y + _TINY
    ccc = 2 * covariance / spread
    constant = -2 * mean_y / spread + 2 * ccc * mean_y / spread
    factors = torch.stack([constant, -2 * ccc / spread, 2 / spread]) / (-2 * count)
    return 1 - ccc.mean(), factors
