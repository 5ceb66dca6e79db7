"""Linear heads of valence and arousal fitted on all rows at once: the CCC itself, by L-BFGS, without chance.

The loss is 1 minus the mean CCC over all labelled rows, plus the penalty; Adam only sees the CCC of each batch.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from models.heads.ccc_sums import WideInputs
from models.heads.feature_rows import RowReader, TrainingRows, moments
from models.heads.recipes import HeadRecipe

if TYPE_CHECKING:
    from models.heads.ccc_few_inputs import FewInputs

logger = logging.getLogger(__name__)
_TINY = 1e-7  # as in ``losses.ccc_loss``
# Up to here inputs are kept in memory: 170 MB at most for as many rows as Aff-Wild2 has.
_FEW_INPUTS = 32


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
        self._sums, self._target_sums = self._collect(train, self._rows)
        self._best = np.zeros((2, self._width + 1))

    def run(self, validation: TrainingRows | None) -> tuple[list[dict[str, float]], int]:
        """History of all iterations (at most ``epochs`` of the recipe), and the one whose weights are kept."""
        recipe, history = self._recipe, list[dict[str, float]]()
        validated = None if validation is None else self._validate(validation)
        best, best_iteration = -np.inf, 0

        def keep_best(intermediate_result) -> None:  # type: ignore[no-untyped-def]
            nonlocal best, best_iteration
            weights, entry = intermediate_result.x.reshape(2, -1), {"epoch": float(len(history) + 1)}
            entry["train_loss"] = float(intermediate_result.fun)
            value = entry["epoch"]
            if validated:
                entry[recipe.checkpoint], value = validated(weights)
            history.append(entry)
            if value > best:
                best, best_iteration, self._best = value, len(history), weights.copy()
            if recipe.patience and len(history) - best_iteration >= recipe.patience:
                raise StopIteration

        options = {"maxiter": recipe.epochs, "ftol": 1e-9, "gtol": 1e-6}
        # SciPy's steps are products of a few numbers; with a thread per core for them, each takes milliseconds.
        with threadpool_limits(1, user_api="blas"):
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

    def _loss_and_gradient(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """One pass over the rows: the gradient of a CCC is a sum of three sums whose factors are known at the end."""
        weights = flat.reshape(2, -1)
        sums, slopes = self._sums.sums(weights)
        loss, factors = _ccc_and_factors(sums, self._target_sums, len(self._sums))
        gradient = (factors[:, :, None] * slopes.reshape(3, 2, -1)).sum(0)
        gradient[:, :-1] += 2 * self._recipe.l2 * weights[:, :-1]
        return loss + self._penalty(weights), gradient.ravel()

    def _penalty(self, weights: np.ndarray) -> float:
        return float(self._recipe.l2 * np.square(weights[:, :-1]).sum())

    def _validate(self, validation: TrainingRows) -> Callable[[np.ndarray], tuple[float, float]]:
        """From weights to the checkpoint's value on the validation rows, and the same as something to be made large."""
        known = validation.labelled(self._recipe.branches)
        if not len(known):
            raise ValueError("va: expected labelled validation rows, found none")
        rows, target_sums = self._collect(validation, known)

        def value(weights: np.ndarray) -> tuple[float, float]:
            loss, _ = _ccc_and_factors(rows.sums(weights, slopes=False)[0], target_sums, len(known))
            if self._recipe.checkpoint == "loss":
                return loss + self._penalty(weights), -loss - self._penalty(weights)
            return 1 - loss, 1 - loss

        return value

    def _collect(self, rows: TrainingRows, index: np.ndarray) -> tuple["WideInputs | FewInputs", np.ndarray]:
        """The rows as something that sums over them, and the sums of their labels and of the squares, [2, 2]."""
        mean, deviation = (self._mean, self._deviation) if self._recipe.standardize else (None, None)
        reader = RowReader(rows, self._recipe.features, mean=mean, deviation=deviation)
        labels = rows.labels["va"]
        target = labels[index].astype(np.float64)
        target_sums = np.stack([target.sum(0), np.square(target).sum(0)])
        if self._width > _FEW_INPUTS:
            return WideInputs(reader, index, labels), target_sums
        # Compiled loops take a compiler along, 60 MB of it: only where they are used.
        from models.heads.ccc_few_inputs import FewInputs

        return FewInputs(reader, index, labels), target_sums


def _ccc_and_factors(sums: np.ndarray, target_sums: np.ndarray, count: int) -> tuple[float, np.ndarray]:
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
    factors = np.stack([constant, -2 * ccc / spread, 2 / spread]) / (-2 * count)
    return float(1 - ccc.mean()), factors
