"""Fitting heads: every part of a recipe, several seeds, one head of their average. Recipes are in ``recipes``.

How one part is fitted stands in ``adam_fit`` and, for linear heads of valence and arousal, in ``ccc_fit``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.engines.precision import Precision
from models.heads.adam_fit import AdamFit, decide
from models.heads.ccc_fit import CccFit
from models.heads.feature_rows import BLOCK_ROWS, RowReader, TrainingRows
from models.heads.head import BranchConfig, Head, HeadConfig
from models.heads.metrics import score_branches
from models.heads.recipes import Branch, HeadRecipe, TaskRecipe


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
    precision: Precision = "float32",
    device: str = "cpu",
) -> FittedHead:
    """Fit the recipe once per seed (0, 1, ...) and average the outputs.

    Without validation rows every part runs ``epochs[seed][part]`` epochs (the recipe's number if not given) and the
    last one is kept. ``precision`` is that of the products in the first layer of a hidden head. Deterministic for a
    machine and a number of threads.

    Raises:
        ValueError: a branch has no labelled row, or the features are not finite.
    """
    tensors: dict[str, np.ndarray] = {}
    seed_figures, all_histories, best_epochs = [], [], []
    for seed in range(recipe.seeds):
        histories, best = [], []
        for number, part in enumerate(recipe.parts):
            settings = part.replace(epochs=epochs[seed][number], patience=0) if epochs else part
            fit = _start(train, settings, seed=seed, precision=precision, device=device)
            history, epoch = fit.run(validation)
            tensors |= {f"seed{seed}.{name}": value for name, value in fit.tensors().items()}
            histories.append(history)
            best.append(epoch)
        all_histories.append(histories)
        best_epochs.append(best)
        if validation is not None and recipe.seeds > 1:
            alone = {name.replace(f"seed{seed}.", "seed0."): v for name, v in tensors.items() if f"seed{seed}." in name}
            one_seed = Head(_config(task, recipe, train, seeds=1), alone)
            seed_figures.append(evaluate_head(one_seed, validation))
    head = Head(_config(task, recipe, train, seeds=recipe.seeds), tensors)
    figures = evaluate_head(head, validation) if validation is not None else {}
    if validation is not None and recipe.seeds == 1:
        seed_figures = [figures]
    return FittedHead(head, figures, seed_figures, all_histories, best_epochs)


def _start(
    train: TrainingRows, recipe: HeadRecipe, *, seed: int, precision: Precision, device: str
) -> AdamFit | CccFit:
    if recipe.takes_all_rows_at_once:
        return CccFit(train, recipe)
    return AdamFit(train, recipe, seed=seed, precision=precision, device=device)


def _config(task: str, recipe: TaskRecipe, rows: TrainingRows, *, seeds: int) -> HeadConfig:
    branches = {b: BranchConfig(part.features, part.hidden_units) for part in recipe.parts for b in part.branches}
    return HeadConfig(task, rows.embeddings.shape[1], rows.logits.shape[1], seeds, branches)


def evaluate_head(head: Head, rows: TrainingRows) -> dict[str, float]:
    """Challenge figures of a head on labelled rows: class of the largest probability, units from 0.5 on."""
    decided: dict[Branch, list[np.ndarray]] = {branch: [] for branch in head.config.branches}
    # Embeddings that no branch takes are not read.
    takes_embeddings = any(branch.features != "scores" for branch in head.config.branches.values())
    embeddings = RowReader(rows, "embeddings") if takes_embeddings else None
    for first in range(0, len(rows), BLOCK_ROWS):
        block = np.arange(first, min(first + BLOCK_ROWS, len(rows)))
        inputs = embeddings.read(block).numpy() if embeddings else rows.embeddings[first : first + BLOCK_ROWS]
        for branch, values in head.predict(inputs, rows.logits[first : first + BLOCK_ROWS]).items():
            decided[branch].append(decide(branch, values))
    decisions = {branch: np.concatenate(parts) for branch, parts in decided.items()}
    return score_branches(rows.labels, decisions)
