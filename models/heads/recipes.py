"""Recipes: named, complete settings for fitting heads. Post-processing has its own settings in ``postprocessing``."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Branch = Literal["expr", "va", "au"]
Features = Literal["embeddings", "scores", "both"]
Checkpoint = Literal["loss", "accuracy", "macro_f1", "mean_ccc", "mean_f1"]
RecipeName = Literal["paper", "default"]
Optimizer = Literal["adam", "lbfgs"]
BRANCHES: dict[str, tuple[Branch, ...]] = {
    "expr": ("expr",),
    "va": ("va",),
    "au": ("au",),
    "mtl": ("va", "expr", "au"),
}


@dataclass(frozen=True)
class HeadRecipe:
    """How the branches of one head are fitted.

    Attributes:
        branches: fitted together on the same rows, with the sum of their losses.
        features: ``embeddings``, ``scores`` (raw logits, as published for EfficientNets) or ``both``, in that order.
        hidden_units: units of the one hidden ReLU layer; 0 is a linear head.
        l2: factor of the sum of squared weights (not biases) that is added to the loss.
        checkpoint: which epoch is kept, by its value on the validation rows.
        published_masking: rows without a label stay in, with output and label set to 0 (as the authors' multi-task
            notebook does); otherwise every branch sees its labelled rows only.
        balanced: classes weighted by max n / n, units by N / (2 n) of either value; otherwise all rows count alike.
        drop_partial_units: leave out a row if any action unit of it is unlabelled.
        patience: epochs without a better checkpoint before fitting stops; 0 runs all epochs.
        standardize: inputs to zero mean and unit variance over the training rows (folded into the weights).
        seeds: how many heads are fitted and averaged.
        optimizer: ``lbfgs`` takes all rows at once where that can be done, which is a linear head of valence and
            arousal alone: ``epochs`` are its iterations, batches and dropout do not occur, and every seed gives the
            same. Any other head is fitted by Adam.
    """

    branches: tuple[Branch, ...]
    features: Features
    hidden_units: int
    l2: float
    batch_size: int
    epochs: int
    checkpoint: Checkpoint
    learning_rate: float = 1e-3
    published_masking: bool = False
    balanced: bool = True
    drop_partial_units: bool = False
    patience: int = 0
    standardize: bool = False
    dropout: float = 0.0
    seeds: int = 1
    optimizer: Optimizer = "adam"

    def __post_init__(self) -> None:
        if min(self.batch_size, self.epochs, self.seeds) < 1 or self.hidden_units < 0:
            raise ValueError("expected batch_size, epochs and seeds of at least 1 and hidden_units of at least 0")

    @property
    def takes_all_rows_at_once(self) -> bool:
        """Whether the head is fitted by L-BFGS."""
        return self.optimizer == "lbfgs" and self.branches == ("va",) and not self.hidden_units

    def replace(self, **changes: Any) -> "HeadRecipe":
        """The recipe with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class TaskRecipe:
    """What is fitted for a task: one head recipe, or one for each branch, fitted apart and put together."""

    parts: tuple[HeadRecipe, ...]

    def replace(self, **changes: Any) -> "TaskRecipe":
        """The same fields changed in every part."""
        return TaskRecipe(tuple(part.replace(**changes) for part in self.parts))

    @property
    def seeds(self) -> int:
        """How many seeds are averaged; the same for all parts."""
        return self.parts[0].seeds


# Savchenko 2022, section 3, and the authors' ABAW3 notebook where the two differ (batch sizes, epochs, checkpoints).
_PAPER = {
    "expr": HeadRecipe(("expr",), "embeddings", 128, 0.0, 256, 10, "accuracy"),
    "va": HeadRecipe(("va",), "scores", 0, 1 / 512, 512, 20, "loss"),
    "au": HeadRecipe(("au",), "embeddings", 128, 0.0, 512, 20, "loss", drop_partial_units=True),
    "mtl": HeadRecipe(
        ("va", "expr", "au"), "both", 0, 1 / 256, 256, 20, "loss", published_masking=True, drop_partial_units=True
    ),
}
_DEFAULT = {
    "expr": HeadRecipe(
        ("expr",), "embeddings", 128, 1e-4, 256, 40, "macro_f1", patience=8, standardize=True, dropout=0.5, seeds=3
    ),
    "va": HeadRecipe(
        ("va",),
        "embeddings",
        128,
        1e-2,
        128,
        60,
        "mean_ccc",
        patience=15,
        standardize=True,
        dropout=0.5,
        seeds=3,
        optimizer="lbfgs",
    ),
    "au": HeadRecipe(
        ("au",), "embeddings", 128, 1e-4, 512, 40, "mean_f1", patience=8, standardize=True, dropout=0.5, seeds=3
    ),
}


def get_recipe(name: RecipeName, *, task: str) -> TaskRecipe:
    """The recipe of that name for ``expr``, ``va``, ``au`` or ``mtl``.

    ``paper`` fits as published. ``default`` fits each branch on its labelled rows, keeps the epoch that is best by the
    challenge's own figure on all validation rows, and averages seeds; its mtl head is its three heads side by side.

    Raises:
        ValueError: unknown recipe or task.
    """
    if name not in ("paper", "default") or task not in BRANCHES:
        raise ValueError(f"expected recipe paper or default for {', '.join(BRANCHES)}, got {name!r} for {task!r}")
    if name == "paper":
        return TaskRecipe((_PAPER[task],))
    return TaskRecipe(tuple(_DEFAULT[branch] for branch in BRANCHES[task]))
