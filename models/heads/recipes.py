"""Recipes: named, complete settings for fitting heads. ``models.decisions`` has those of post-processing."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, ScoreForm, TaskName

Features = Literal["embeddings", "scores", "both"]
Checkpoint = Literal["loss", "accuracy", "macro_f1", "mean_ccc", "mean_f1"]
RecipeName = Literal["paper", "default"]
HiddenUnits = int | tuple[int, ...]
# Kinds of heads, and where their classes are; a class is imported when a head of its kind is fitted or loaded.
HEAD_KINDS: dict[str, str] = {"mlp": "models.heads.mlp:MlpHead"}


@dataclass(frozen=True)
class HeadRecipe:
    """How the branches of one head are fitted.

    Attributes:
        branches: fitted together on the same rows, with the sum of their losses.
        features: ``embeddings``, ``scores``, or ``both`` in that order.
        scores: what scores are: the logits of the backbone, or their softmax.
        hidden_units: size of the hidden ReLU layer, or of several, first to last; 0: a linear head.
        l2: factor of the sum of squared weights (not biases) that is added to the loss.
        checkpoint: the loss or metric on the validation rows that decides which epoch is kept.
        published_masking: keep rows without a label, with output and label set to 0, and compute losses from
            probabilities instead of logits (as in the authors' multi-task notebook, see ``losses``); otherwise every
            branch uses its labelled rows only.
        published_weighting: multiply the mean loss of expressions by the mean class weight of the batch, as in the
            authors' multi-task notebook; otherwise the loss of every row by the weight of its class.
        shared_hidden: all branches share the hidden layers; otherwise each has its own. In the tensors of a fitted
            head, every branch has a copy.
        balanced: weight classes by max n / n, and values of action units by N / (2 n); otherwise all rows are equal.
        drop_partial_units: skip rows in which any action unit is unlabelled.
        epoch_rows: random rows that an epoch visits at most, drawn anew for each; 0: all. Neighbouring frames are
            almost equal, so validating more often shortens the fit of long videos.
        patience: epochs without a better checkpoint after which fitting stops; 0: never.
        standardize: scale inputs to zero mean and unit variance over the training rows (folded into the weights).
        seeds: number of heads that are fitted and averaged.
        kind: name in ``HEAD_KINDS``.
    """

    branches: tuple[BranchName, ...]
    features: Features
    hidden_units: HiddenUnits
    l2: float
    batch_size: int
    epochs: int
    checkpoint: Checkpoint
    learning_rate: float = 1e-3
    published_masking: bool = False
    published_weighting: bool = False
    shared_hidden: bool = False
    balanced: bool = True
    drop_partial_units: bool = False
    patience: int = 0
    standardize: bool = False
    dropout: float = 0.0
    seeds: int = 1
    kind: str = "mlp"
    scores: ScoreForm = "logits"
    epoch_rows: int = 0

    def __post_init__(self) -> None:
        if min(self.batch_size, self.epochs, self.seeds) < 1:
            raise ValueError("expected batch_size, epochs and seeds of at least 1")
        if self.epoch_rows < 0:
            raise ValueError(f"expected epoch_rows of at least 0, got {self.epoch_rows}")
        hidden_sizes(self.hidden_units)
        if self.kind not in HEAD_KINDS:
            raise ValueError(f"kind of head: expected one of {', '.join(HEAD_KINDS)}, got {self.kind!r}")

    def replace(self, **changes: Any) -> "HeadRecipe":
        """Return the recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return what the names of fitted heads depend on, such that heads in existing stores keep their names."""
        # Added later; the first two follow from the other fields in all named recipes.
        added = {"published_weighting", "shared_hidden"}
        if self.kind == "mlp":
            added.add("kind")
        if self.scores == "logits" or self.features == "embeddings":
            added.add("scores")
        if not self.epoch_rows:
            added.add("epoch_rows")
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in added}
        # Earlier versions had a field for the optimizer. Only linear heads of the default recipe for valence and
        # arousal were fitted by L-BFGS; they are fitted by Adam now, so their names change.
        was_lbfgs = self.branches == ("va",) and self.checkpoint == "mean_ccc" and bool(hidden_sizes(self.hidden_units))
        return fields | {"optimizer": "lbfgs" if was_lbfgs else "adam"}


def hidden_sizes(hidden_units: HiddenUnits) -> tuple[int, ...]:
    """Return the size of each hidden layer, first to last; none for 0.

    Raises:
        ValueError: a size is not an integer of at least 1, or, as the only one, 0.
    """
    sizes = hidden_units if isinstance(hidden_units, tuple) else (hidden_units,) if hidden_units != 0 else ()
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"expected hidden_units of at least 0, or several of at least 1, got {hidden_units!r}")
    return sizes


@dataclass(frozen=True)
class TaskRecipe:
    """What is fitted for a task: one head recipe, or one per branch, fitted separately and combined in one head."""

    parts: tuple[HeadRecipe, ...]

    def replace(self, **changes: Any) -> "TaskRecipe":
        """Return the recipe with the same fields changed in every part."""
        return TaskRecipe(tuple(part.replace(**changes) for part in self.parts))

    @property
    def seeds(self) -> int:
        """Number of seeds that are averaged; the same in all parts."""
        return self.parts[0].seeds

    @property
    def kind(self) -> str:
        """Kind of head; the same in all parts."""
        return self.parts[0].kind


# Savchenko 2022, section 3, and the authors' ABAW3 notebook where the two differ (batch sizes, epochs, checkpoints).
# Comments name the cells of the notebook, which contain the linear and the hidden variant.
_PAPER: dict[TaskName, HeadRecipe] = {
    "expr": HeadRecipe(("expr",), "embeddings", 128, 0.0, 256, 10, "accuracy"),  # A3 c39, c40
    "va": HeadRecipe(("va",), "scores", 0, 1 / 512, 512, 20, "loss"),  # A3 c64, c65
    "au": HeadRecipe(("au",), "embeddings", 128, 0.0, 512, 20, "loss", drop_partial_units=True),  # A3 c81, c82
    "mtl": HeadRecipe(
        ("va", "expr", "au"),
        "both",
        0,
        1 / 256,
        256,
        20,
        "loss",
        published_masking=True,
        published_weighting=True,
        shared_hidden=True,
        drop_partial_units=True,
    ),  # A3 c103, c104
}
_DEFAULT: dict[BranchName, HeadRecipe] = {
    "expr": HeadRecipe(
        ("expr",),
        "embeddings",
        128,
        1e-4,
        256,
        40,
        "macro_f1",
        patience=8,
        standardize=True,
        dropout=0.5,
        seeds=3,
        epoch_rows=200_000,
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
        epoch_rows=200_000,
    ),
    "au": HeadRecipe(
        ("au",),
        "embeddings",
        128,
        1e-4,
        512,
        40,
        "mean_f1",
        patience=8,
        standardize=True,
        dropout=0.5,
        seeds=3,
        epoch_rows=200_000,
    ),
}


def get_recipe(
    name: RecipeName, *, task: TaskName, hidden_units: HiddenUnits | None = None, published_scores: ScoreForm = "logits"
) -> TaskRecipe:
    """Return the recipe of that name for ``expr``, ``va``, ``au`` or ``mtl``.

    ``paper`` fits as published. ``default`` fits each branch on its labelled rows, keeps the epoch with the best
    challenge metric on all validation rows, and averages seeds; its mtl head combines its three single-task heads.

    ``hidden_units`` selects the variant with these hidden layers (None: that of the best published result). The
    published variants differ in more than layers: single-task heads carry L2 only if they are linear, multi-task heads
    always. ``published_scores``: of the backbone (``BackboneSpec``). ``paper`` takes scores in this form, ``default``
    logits.

    Raises:
        ValueError: the recipe or task is unknown, or ``hidden_units`` is not valid.
    """
    if name not in ("paper", "default") or task not in BRANCHES_OF_TASK:
        raise ValueError(
            f"expected recipe paper or default for {', '.join(BRANCHES_OF_TASK)}, got {name!r} for {task!r}"
        )
    if name == "paper":
        recipe = TaskRecipe((_PAPER[task].replace(scores=published_scores),))
    else:
        recipe = TaskRecipe(tuple(_DEFAULT[branch] for branch in BRANCHES_OF_TASK[task]))
    if hidden_units is None:
        return recipe
    changed = recipe.replace(hidden_units=hidden_units)
    if name == "default" or task == "mtl":
        return changed
    is_linear = not hidden_sizes(hidden_units)
    return changed.replace(l2=1 / _PAPER[task].batch_size if is_linear else 0.0)
