"""Heads: small networks from features to probabilities or values, and their files. Fitting is in ``training``."""

import itertools
import json
from dataclasses import asdict, dataclass, field
from typing import get_args

import numpy as np
import safetensors.numpy

from models.heads.metrics import EXPRESSIONS, UNITS
from models.heads.recipes import BRANCHES, Branch, Features

OUTPUT_NAMES: dict[Branch, tuple[str, ...]] = {"expr": EXPRESSIONS, "va": ("valence", "arousal"), "au": UNITS}
ACTIVATIONS: dict[Branch, str] = {"expr": "softmax", "va": "tanh", "au": "sigmoid"}
_BLOCK_ROWS = 8192
_HOW = (
    "x = embeddings, logits, or embeddings followed by logits, as 'features' says; for each seed s and layer k in "
    "order: x = x @ tensor['seed{s}.{branch}.{k}.weight'].T + tensor['seed{s}.{branch}.{k}.bias'], then ReLU if "
    "another layer follows, else 'activation'; outputs are the mean over seeds"
)


@dataclass(frozen=True)
class BranchConfig:
    """Inputs and layers of one branch; ``hidden_units`` 0 is a linear branch."""

    features: Features
    hidden_units: int

    def __post_init__(self) -> None:
        if self.features not in get_args(Features) or not isinstance(self.hidden_units, int) or self.hidden_units < 0:
            raise ValueError(f"expected features of {get_args(Features)} and hidden units of at least 0, got {self}")


@dataclass(frozen=True)
class HeadConfig:
    """What a head is, without its weights."""

    task: str
    embedding_size: int
    logits_size: int
    seeds: int
    branches: dict[Branch, BranchConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.branches) != set(BRANCHES[self.task]):
            raise ValueError(f"{self.task}: expected branches {BRANCHES[self.task]}, got {tuple(self.branches)}")


class Head:
    """A fitted head: one or several seeds, each with its branches."""

    def __init__(self, config: HeadConfig, tensors: dict[str, np.ndarray]) -> None:
        """``tensors``: float32, ``seed0.expr.0.weight`` [out, in], ``seed0.expr.0.bias`` [out], ...

        Raises:
            ValueError: a tensor is missing or has another shape than the configuration says.
        """
        self.config = config
        expected = dict(_shapes(config))
        for name, shape in expected.items():
            got = tensors[name].shape if name in tensors else "none"
            if got != shape:
                raise ValueError(f"head: expected tensor {name} of shape {shape}, got {got}")
        self.tensors = {name: tensors[name].astype(np.float32) for name in expected}

    def predict(self, embeddings: np.ndarray, logits: np.ndarray) -> dict[Branch, np.ndarray]:
        """Outputs float32 [n, K] of each branch: probabilities in 0..1 or values in -1..1, averaged over seeds.

        ``embeddings`` [n, D] and ``logits`` [n, C] as the backbone gives them.

        Raises:
            ValueError: the features are not of the sizes that the head was fitted on.
        """
        wanted, got = (self.config.embedding_size, self.config.logits_size), (embeddings.shape[1], logits.shape[1])
        if wanted != got:
            raise ValueError(f"head: expected embeddings and logits of sizes {wanted}, got {got}")
        outputs = {b: np.empty((len(embeddings), len(OUTPUT_NAMES[b])), np.float32) for b in self.config.branches}
        for first in range(0, len(embeddings), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            for branch, settings in self.config.branches.items():
                x = _chosen(embeddings[block], logits[block], settings.features)
                seeds = [self._run(x, branch, seed) for seed in range(self.config.seeds)]
                outputs[branch][block] = np.mean(seeds, axis=0)
        return outputs

    def _run(self, x: np.ndarray, branch: Branch, seed: int) -> np.ndarray:
        layers = 2 if self.config.branches[branch].hidden_units else 1
        for layer in range(layers):
            name = f"seed{seed}.{branch}.{layer}"
            x = x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
            if layer + 1 < layers:
                x = np.maximum(x, 0)
        return _activate(x, branch)


def _chosen(embeddings: np.ndarray, logits: np.ndarray, features: Features) -> np.ndarray:
    if features == "both":
        return np.concatenate([embeddings, logits], axis=1, dtype=np.float32)
    return np.asarray(embeddings if features == "embeddings" else logits, np.float32)


def _activate(x: np.ndarray, branch: Branch) -> np.ndarray:
    if branch == "va":
        return np.tanh(x)
    if branch == "au":
        return 0.5 * (1 + np.tanh(0.5 * x))
    exponent = np.exp(x - x.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def _shapes(config: HeadConfig) -> list[tuple[str, tuple[int, ...]]]:
    shapes: list[tuple[str, tuple[int, ...]]] = []
    sizes = {"embeddings": config.embedding_size, "scores": config.logits_size}
    for seed in range(config.seeds):
        for branch, settings in config.branches.items():
            width = sizes.get(settings.features, sum(sizes.values()))
            hidden = (settings.hidden_units,) if settings.hidden_units else ()
            steps = (width, *hidden, len(OUTPUT_NAMES[branch]))
            for layer, (inner, outer) in enumerate(itertools.pairwise(steps)):
                name = f"seed{seed}.{branch}.{layer}"
                shapes += [(f"{name}.weight", (outer, inner)), (f"{name}.bias", (outer,))]
    return shapes


def head_to_bytes(head: Head) -> dict[str, bytes]:
    """``head.safetensors`` and ``head.json``: enough to compute the outputs without this project."""
    described = {
        branch: asdict(settings) | {"activation": ACTIVATIONS[branch], "outputs": list(OUTPUT_NAMES[branch])}
        for branch, settings in head.config.branches.items()
    }
    config = asdict(head.config) | {"branches": described, "how": _HOW}
    return {
        "head.safetensors": safetensors.numpy.save(head.tensors),
        "head.json": json.dumps(config, indent=1).encode() + b"\n",
    }


def head_from_bytes(files: dict[str, bytes]) -> Head:
    """The head of the two files.

    Raises:
        ValueError: they are not a head's files, or do not fit each other.
    """
    try:
        config = json.loads(files["head.json"])
        branches = {b: BranchConfig(c["features"], c["hidden_units"]) for b, c in config["branches"].items()}
        sizes = (config["embedding_size"], config["logits_size"], config["seeds"])
        tensors = safetensors.numpy.load(files["head.safetensors"])
        return Head(HeadConfig(config["task"], *sizes, branches), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, safetensors.SafetensorError) as error:
        raise ValueError(f"head: expected head.json and head.safetensors of a head, got: {error!r}") from error
