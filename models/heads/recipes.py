"""How heads are fitted. ``models.recipes`` has the named recipes, ``models.decisions`` those of post-processing."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from data_contracts.vocabulary import BranchName, ScoreForm

Features = Literal["embeddings", "scores", "both"]
Checkpoint = Literal["loss", "accuracy", "macro_f1", "mean_ccc", "mean_f1", "p_mtl"]
HiddenUnits = int | tuple[int, ...]
# Fields of ``HeadRecipe`` that change nothing while they are 0 or None.
_ADDED_LATER = ("epoch_rows", "temporal", "weight_decay", "inputs_from", "branch_weights")
# Kinds of heads, and where their classes are; a class is imported when a head of its kind is fitted or loaded.
HEAD_KINDS: dict[str, str] = {
    "mlp": "models.heads.mlp:MlpHead",
    "tcn": "models.heads.temporal.head:TcnHead",
    "transformer": "models.heads.temporal.head:TransformerHead",
}
_LIMITS: dict[str, tuple[float, float]] = {
    "l2": (0, 1000),
    "batch_size": (1, 1 << 20),
    "epochs": (1, 10_000),
    "learning_rate": (1e-9, 10),
    "patience": (0, 10_000),
    "dropout": (0, 0.99),
    "seeds": (1, 100),
    "epoch_rows": (0, 1 << 40),
    "weight_decay": (0, 1000),
}
_LAYER_LIMITS = {"layers": 12, "kernel": 99, "heads": 64, "window": 10_000}
# Metrics that decide which epoch of a single branch is kept; several branches have the sum of their main metrics.
_METRICS: dict[BranchName, tuple[Checkpoint, ...]] = {
    "expr": ("accuracy", "macro_f1"),
    "va": ("mean_ccc",),
    "au": ("mean_f1",),
}


@dataclass(frozen=True)
class TemporalLayers:
    """Layers of a temporal head, besides its width (``hidden_units``). Positions are 1/30 s apart.

    Attributes:
        layers: number of layers over time. Layer k of a TCN, from 0, has the dilation 2^k.
        kernel: positions that a convolution of a TCN takes, odd.
        heads: attention heads of a Transformer.
        window: positions of a training example, and all that a Transformer attends to; even.
    """

    layers: int = 4
    kernel: int = 5
    heads: int = 4
    window: int = 300

    def __post_init__(self) -> None:
        for name, most in _LAYER_LIMITS.items():
            if not 1 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name}: expected a number of at least 1 and at most {most:,}, got {value}")
        if not self.kernel % 2:
            raise ValueError(f"kernel: expected an odd number, got {self.kernel}")
        if self.window % 2:
            raise ValueError(f"window: expected an even number, got {self.window}")


@dataclass(frozen=True)
class HeadRecipe:
    """How the branches of one head are fitted.

    Attributes:
        branches: fitted together on the same rows, with the sum of their losses.
        features: ``embeddings``, ``scores``, or ``both`` in that order.
        scores: what scores are: the logits of the backbone, or their softmax.
        hidden_units: size of the hidden ReLU layer, or of several, first to last; 0: a linear head.
        l2: factor of the sum of squared weights (not biases) that is added to the loss.
        checkpoint: the loss or metric on the validation rows that decides which epoch is kept; ``p_mtl``: the sum of
            the main metrics of several branches.
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
        temporal: layers of the kinds ``tcn`` and ``transformer``; None: ``TemporalLayers()``.
        weight_decay: share of the weights that each step subtracts, times the learning rate (as in AdamW).
        inputs_from: branches of earlier parts whose outputs, of the same seed, follow the features as inputs.
        branch_weights: factor of the loss of each branch; empty: 1 for all.
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
    temporal: TemporalLayers | None = None
    weight_decay: float = 0.0
    inputs_from: tuple[BranchName, ...] = ()
    branch_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.branches or len(set(self.branches)) < len(self.branches):
            raise ValueError(f"branches: expected at least one, each once, got {list(self.branches)}")
        for name, (least, most) in _LIMITS.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name}: expected a number of at least {least:,} and at most {most:,}, got {value}")
        if any(not 0 < weight <= 1000 for weight in self.branch_weights) or (
            self.branch_weights and len(self.branch_weights) != len(self.branches)
        ):
            raise ValueError(
                f"branch_weights: expected a positive number of at most 1,000 for each of {', '.join(self.branches)}, "
                f"or none, got {list(self.branch_weights)}"
            )
        if self.inputs_from and (self.kind != "mlp" or set(self.inputs_from) & set(self.branches)):
            raise ValueError(
                f"inputs_from: expected other branches than {', '.join(self.branches)} and kind mlp, got "
                f"{list(self.inputs_from)} and kind {self.kind}"
            )
        hidden_sizes(self.hidden_units)
        metrics = _METRICS[self.branches[0]] if len(self.branches) == 1 else ("p_mtl",)
        if self.checkpoint not in (choices := ("loss", *metrics)):
            raise ValueError(
                f"checkpoint: expected {' or '.join(choices)} of {'+'.join(self.branches)}, got {self.checkpoint}"
            )
        if self.kind not in HEAD_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(HEAD_KINDS)}, got {self.kind!r}")

    def replace(self, **changes: Any) -> "HeadRecipe":
        """Return the recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    def set_fields(self) -> dict[str, Any]:
        """Return all fields, without those that were added later and are not set."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value or name not in _ADDED_LATER}

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return what the names of fitted heads depend on, such that heads in existing stores keep their names."""
        # Added later, with the values that earlier versions implied.
        added = {n for n in ("published_weighting", "shared_hidden") if getattr(self, n) == self.published_masking}
        if self.kind == "mlp":
            added.add("kind")
        if self.scores == "logits" or self.features == "embeddings":
            added.add("scores")
        fields = {name: value for name, value in self.set_fields().items() if name not in added}
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
        raise ValueError(f"hidden_units: expected a size of at least 0, or several of at least 1, got {hidden_units!r}")
    return sizes


@dataclass(frozen=True)
class TaskRecipe:
    """What is fitted for a task: one head recipe, or one per branch, fitted separately and combined in one head."""

    parts: tuple[HeadRecipe, ...]

    def replace(self, **changes: Any) -> "TaskRecipe":
        """Return the recipe with the same fields changed in every part."""
        return TaskRecipe(tuple(part.replace(**changes) for part in self.parts))

    def set_fields(self) -> dict[str, Any]:
        """Return the fields of all parts; see ``HeadRecipe.set_fields``."""
        return {"parts": [part.set_fields() for part in self.parts]}

    @property
    def seeds(self) -> int:
        """Number of seeds that are averaged; the same in all parts."""
        return self.parts[0].seeds

    @property
    def kind(self) -> str:
        """Kind of head; the same in all parts."""
        return self.parts[0].kind
