"""The interface of heads, and their files. A head is a small network from features to probabilities or values.

To add a kind of head, write a class that implements ``Head`` and add its name to ``recipes.HEAD_KINDS``.
"""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import numpy as np
import safetensors.numpy

from data_contracts.vocabulary import (
    ACTION_UNITS,
    BRANCHES_OF_TASK,
    DIMENSIONS,
    EXPRESSIONS,
    BranchName,
    Precision,
    ScoreForm,
    TaskName,
)
from models.heads.fit_progress import FitProgress
from models.heads.recipes import HEAD_KINDS, Features, HeadRecipe, HiddenUnits, TemporalLayers, hidden_sizes
from models.heads.sequences import SubjectSequence

# ``clip`` limits values to -1..1.
Activation = Literal["softmax", "tanh", "sigmoid", "clip"]
OUTPUT_NAMES: dict[BranchName, tuple[str, ...]] = {"expr": EXPRESSIONS, "va": DIMENSIONS, "au": ACTION_UNITS}
ACTIVATIONS: dict[BranchName, Activation] = {"expr": "softmax", "va": "tanh", "au": "sigmoid"}

# What a kind of head is fitted on: TrainingRows, or a list of SubjectSequence.
Data = TypeVar("Data")


@dataclass(frozen=True)
class BranchConfig:
    """Inputs and hidden layers of one branch; see ``HeadRecipe`` for features, scores, hidden units and inputs_from.

    ``activation``: of the outputs; None: that of the branch in ``ACTIVATIONS``. ``temporal``: of a temporal head.
    """

    features: Features
    hidden_units: HiddenUnits
    activation: Activation | None = None
    scores: ScoreForm = "logits"
    temporal: TemporalLayers | None = None
    inputs_from: tuple[BranchName, ...] = ()

    def __post_init__(self) -> None:
        if self.features not in get_args(Features):
            raise ValueError(f"expected features of {get_args(Features)}, got {self}")
        if self.activation not in (None, *get_args(Activation)):
            raise ValueError(f"expected an activation of {get_args(Activation)}, got {self}")
        if self.scores not in get_args(ScoreForm):
            raise ValueError(f"expected scores of {get_args(ScoreForm)}, got {self}")
        hidden_sizes(self.hidden_units)


@dataclass(frozen=True)
class HeadConfig:
    """A head without its weights."""

    task: TaskName
    embedding_size: int
    logits_size: int
    seeds: int
    branches: dict[BranchName, BranchConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.branches) != set(BRANCHES_OF_TASK[self.task]):
            raise ValueError(
                f"{self.task}: expected branches {BRANCHES_OF_TASK[self.task]}, got {tuple(self.branches)}"
            )
        known: set[BranchName] = set()
        for branch, settings in self.branches.items():
            if not set(settings.inputs_from) <= known:
                raise ValueError(f"{branch}: expected inputs from earlier branches, got {settings.inputs_from}")
            known.add(branch)


@dataclass(frozen=True)
class FitSettings:
    """Settings of one fit besides the recipe; ``precision`` is that of large matrix products.

    ``progress`` counts epochs and rows.
    """

    seed: int
    precision: Precision = "float32"
    device: str = "cpu"
    progress: FitProgress | None = None


@dataclass(frozen=True, eq=False)
class FittedPart:
    """One part of a recipe, fitted with one seed.

    Attributes:
        tensors: float32 weights; every name starts with its branch, as in ``expr.0.weight``.
        history: one dict per epoch, with ``epoch``, ``train_loss`` and, with validation data, the checkpoint.
        best_epoch: the epoch that was kept, from 1.
    """

    tensors: dict[str, np.ndarray]
    history: list[dict[str, float]]
    best_epoch: int


class Head(ABC, Generic[Data]):
    """A fitted head: one or several seeds, each with its branches. A subclass fits a part and predicts a branch.

    Class attributes:
        kind: name in ``HEAD_KINDS``.
        works_on: ``rows`` if every frame is predicted from its own features alone. Such a head is fitted on
            ``TrainingRows``, and gets only frames with a face, a subject in parts. ``sequences`` if outputs depend on
            other frames or on time. Such a head is fitted on a list of ``SubjectSequence``, and gets each subject's
            sequence as a whole.
        how: how to compute the outputs from the tensors, for readers of ``head.json``.
    """

    kind: ClassVar[str]
    works_on: ClassVar[Literal["rows", "sequences"]]
    how: ClassVar[str] = ""

    def __init__(self, config: HeadConfig, tensors: dict[str, np.ndarray]) -> None:
        """Make a head of float32 tensors; names are those of ``FittedPart`` with a prefix: ``seed0.expr.0.weight``.

        Raises:
            ValueError: the tensors do not match the configuration.
        """
        self.config, self.tensors = config, tensors

    @classmethod
    def check_recipe(cls, recipe: HeadRecipe) -> None:
        """Check a part of a recipe before any work.

        Raises:
            ValueError: heads of this kind cannot be fitted so.
        """

    @classmethod
    @abstractmethod
    def fit_part(cls, train: Data, validation: Data | None, recipe: HeadRecipe, settings: FitSettings) -> FittedPart:
        """Fit the branches of one part of a recipe with one seed.

        Keep the epoch with the best checkpoint on the validation data, or the last one without validation data.
        Deterministic for a machine and a number of threads.

        Raises:
            ValueError: nothing is labelled, or the features are not finite.
        """

    @abstractmethod
    def predict_branch(
        self, branch: BranchName, weights: dict[str, np.ndarray], inputs: np.ndarray, sequence: SubjectSequence
    ) -> np.ndarray:
        """Return the outputs of a branch before their activation, float32 [T, K].

        Args:
            branch: which one.
            weights: tensors of one seed and this branch, without the prefix of their names.
            inputs: float32 [T, width], the features that the branch takes.
            sequence: the T frames.
        """

    def predict_sequence(self, sequence: SubjectSequence) -> dict[BranchName, np.ndarray]:
        """Return outputs float32 [T, K] of each branch: probabilities in 0..1 or values in -1..1, averaged over seeds.

        Values where the face is not present are ignored: post-processing interpolates there.

        Raises:
            ValueError: the features do not have the sizes that the head was fitted on.
        """
        expected = self.config.embedding_size, self.config.logits_size
        got = sequence.embeddings.shape[1], sequence.logits.shape[1]
        if expected != got:
            raise ValueError(f"head: expected embeddings and logits of sizes {expected}, got {got}")
        # A mask copies the features; do without where it selects all frames.
        is_whole = self.works_on == "sequences" or sequence.present.all()
        frames = slice(None) if is_whole else sequence.present
        chosen = sequence[frames]
        outputs = {b: np.zeros((len(sequence), len(OUTPUT_NAMES[b])), np.float32) for b in self.config.branches}
        of_seeds: dict[BranchName, list[np.ndarray]] = {}
        for branch, config in self.config.branches.items():
            activation = config.activation or ACTIVATIONS[branch]
            earlier = [of_seeds[other] for other in config.inputs_from]
            seeds = [_activate(values, activation) for values in self.predict_seeds(branch, chosen, earlier)]
            of_seeds[branch] = seeds
            outputs[branch][frames] = np.mean(seeds, axis=0)
        return outputs

    def predict_seeds(
        self, branch: BranchName, sequence: SubjectSequence, earlier: Sequence[Sequence[np.ndarray]] = ()
    ) -> Iterator[np.ndarray]:
        """Yield the outputs of a branch before their activation, float32 [T, K], of each seed.

        ``earlier``: the outputs [T, K] of each seed of the branches in ``inputs_from``, in their order.
        """
        config = self.config.branches[branch]
        features = sequence.inputs(config.features, config.scores)
        for seed in range(self.config.seeds):
            inputs = np.concatenate([features, *(seeds[seed] for seeds in earlier)], axis=1) if earlier else features
            yield self.predict_branch(branch, self.weights_of(seed, branch), inputs, sequence)

    def weights_of(self, seed: int, branch: BranchName) -> dict[str, np.ndarray]:
        """Return the tensors of one seed and branch, without the prefix of their names."""
        prefix = f"seed{seed}.{branch}."
        return {name.removeprefix(prefix): x for name, x in self.tensors.items() if name.startswith(prefix)}


def take_tensors(tensors: dict[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the tensors that a head needs, as float32.

    Raises:
        ValueError: a tensor is missing or does not have the expected shape.
    """
    for name, shape in expected.items():
        got = tensors[name].shape if name in tensors else "none"
        if got != shape:
            raise ValueError(f"head: expected tensor {name} of shape {shape}, got {got}")
    return {name: tensors[name].astype(np.float32) for name in expected}


def _activate(x: np.ndarray, activation: Activation) -> np.ndarray:
    if activation == "tanh":
        return np.tanh(x)
    if activation == "clip":
        return np.clip(x, -1, 1)
    if activation == "sigmoid":
        return 0.5 * (1 + np.tanh(0.5 * x))
    exponent = np.exp(x - x.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def head_class(kind: str) -> type[Head[Any]]:
    """Import and return the class of a kind of head.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in HEAD_KINDS:
        raise ValueError(f"kind of head: expected one of {', '.join(HEAD_KINDS)}, got {kind!r}")
    module, name = HEAD_KINDS[kind].split(":")
    found: type[Head[Any]] = getattr(importlib.import_module(module), name)
    return found


def head_to_bytes(head: Head[Any]) -> dict[str, bytes]:
    """Return ``head.safetensors`` and ``head.json``: enough to compute the outputs without this project."""
    branches = {
        branch: {n: value for n, value in asdict(settings).items() if n not in ("temporal", "inputs_from") or value}
        | {"activation": settings.activation or ACTIVATIONS[branch], "outputs": list(OUTPUT_NAMES[branch])}
        for branch, settings in head.config.branches.items()
    }
    config = asdict(head.config) | {"branches": branches, "how": head.how, "kind": head.kind}
    return {
        "head.safetensors": safetensors.numpy.save(head.tensors),
        "head.json": json.dumps(config, indent=1).encode() + b"\n",
    }


def head_from_bytes(files: dict[str, bytes]) -> Head[Any]:
    """Return the head of the two files.

    Raises:
        ValueError: they are not the files of a head, or do not match each other.
    """
    try:
        config = json.loads(files["head.json"])
        # Earlier versions knew one kind, and did not write it.
        kind = head_class(config.get("kind", "mlp"))
        branches = {
            branch: BranchConfig(
                settings["features"],
                _to_hidden_units(settings["hidden_units"]),
                None if (found := settings.get("activation")) == ACTIVATIONS[branch] else found,
                settings.get("scores", "logits"),
                TemporalLayers(**settings["temporal"]) if "temporal" in settings else None,
                tuple(settings.get("inputs_from", ())),
            )
            for branch, settings in config["branches"].items()
        }
        sizes = (config["embedding_size"], config["logits_size"], config["seeds"])
        tensors = safetensors.numpy.load(files["head.safetensors"])
        return kind(HeadConfig(config["task"], *sizes, branches), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"head: expected head.json and head.safetensors of a head, got: {error!r}") from error


def _to_hidden_units(value: Any) -> HiddenUnits:
    return tuple(value) if isinstance(value, list) else value
