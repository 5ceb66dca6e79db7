"""Features of a simulated data set: what a backbone sees of the latent state.

A backbone sees the state with a constant error per subject (faces differ), an error that changes within a second (pose,
light), and noise of every frame. A fixed random network makes the embedding of this view. The scores of the classes are
linear in an own view of the state, with smaller errors of valence and arousal: published scores predict these better
than embeddings do. The network belongs to the backbone, not to the seed of the data.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_contracts.vocabulary import SIMULATED_PREFIX, ScoreForm
from tasks.simulate.latent import EXPR, STATE_SIZE, VA, correlated_noise
from tasks.simulate.plan import SimulatedSubject

_STREAM = 6
_HIDDEN = 256
# Small enough that the network keeps most of what it sees: larger sums saturate its hidden layer.
_GAIN = 0.43
# Time constant of pose and light.
_POSE_FRAMES = 8.0


# Standard deviations of the errors of a view, relative to the state: constant in a subject, changing within a
# second, and of a single frame; each of evidence for expressions, valence and arousal, and action units. Embeddings
# have no constant error of expressions: small data sets have a dozen subjects, whose errors would outweigh all else.
_EMBEDDING_ERRORS = ((0.00, 0.80, 0.40), (1.80, 1.70, 1.00), (0.50, 1.10, 0.35))
_SCORE_ERRORS = ((0.65, 0.70, 0.90), (0.35, 0.90, 0.80), (0.90, 0.60, 0.90))


@dataclass(frozen=True)
class SimulatedBackbone:
    """A backbone: sizes of its outputs, and its errors relative to those of the best one.

    Attributes:
        classes: names of the classes in the order of the scores.
        embedding_error, score_error: factors of the errors of the two views of the state.
        published_scores: what the authors' heads take as scores of the backbone that this one stands for.
    """

    name: str
    embedding_size: int
    classes: tuple[str, ...]
    embedding_error: float
    score_error: float
    published_scores: ScoreForm = "logits"

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return all fields, without ``published_scores`` while it is the usual one; see ``fingerprint``."""
        usual = "published_scores" if self.published_scores == "logits" else None
        return {name: value for name, value in asdict(self).items() if name != usual}


_EIGHT = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
_SEVEN = ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
BACKBONES = {
    backbone.name: backbone
    for backbone in (
        SimulatedBackbone(f"{SIMULATED_PREFIX}mobilenet", 1024, _SEVEN, 1.45, 1.40, "probabilities"),
        SimulatedBackbone(f"{SIMULATED_PREFIX}enet_b0", 1280, _EIGHT, 1.00, 1.00),
        SimulatedBackbone(f"{SIMULATED_PREFIX}enet_b2", 1408, _EIGHT, 1.80, 1.20),
    )
}


@dataclass(frozen=True, eq=False)
class _Network:
    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray
    scores: np.ndarray


def draw_features(
    backbone: SimulatedBackbone, seed: int, subject: SimulatedSubject, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings float16 [frames, size] and scores (raw logits) float32 [frames, classes].

    ``state``: float32 [frames, 22].
    """
    network = _network(backbone)
    blocks = list(iter_features(backbone, seed, subject, state, network=network))
    return np.concatenate([one for one, _ in blocks]), np.concatenate([one for _, one in blocks])


def iter_features(
    backbone: SimulatedBackbone,
    seed: int,
    subject: SimulatedSubject,
    state: np.ndarray,
    *,
    network: _Network | None = None,
    block_frames: int = 2048,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield embeddings and scores of ``draw_features`` in blocks of frames."""
    network = network or _network(backbone)
    faces = np.random.default_rng([seed, _STREAM, subject.number])
    # The same face misleads all backbones, each to its own degree.
    look = faces.standard_normal((2, STATE_SIZE), np.float32)
    random = np.random.default_rng([seed, _STREAM, subject.number, _digits(backbone.name)])
    seen = _view(random, state, look[0], _EMBEDDING_ERRORS, backbone.embedding_error)
    for_scores = _view(random, state, look[1], _SCORE_ERRORS, backbone.score_error)
    for start in range(0, len(seen), block_frames):
        part = slice(start, start + block_frames)
        hidden = np.tanh(seen[part] @ network.hidden + network.hidden_bias)
        embedding = np.maximum(hidden @ network.output + network.output_bias, 0)
        yield embedding.astype(np.float16), for_scores[part] @ network.scores


def _view(
    random: np.random.Generator,
    state: np.ndarray,
    look: np.ndarray,
    errors: Sequence[tuple[float, float, float]],
    factor: float,
) -> np.ndarray:
    sizes = (EXPR.stop, VA.stop - EXPR.stop, STATE_SIZE - VA.stop)
    subject, pose, frame = (np.repeat(np.array(one, np.float32), sizes) * np.float32(factor) for one in errors)
    view = state + subject * look
    view += pose * correlated_noise(random, len(state), STATE_SIZE, _POSE_FRAMES)
    view += frame * random.standard_normal(state.shape, np.float32)
    return np.asarray(view, np.float32)


def _network(backbone: SimulatedBackbone) -> _Network:
    random = np.random.default_rng(_digits(backbone.name))
    hidden = _GAIN * random.standard_normal((STATE_SIZE, _HIDDEN)) / math.sqrt(STATE_SIZE)
    output = random.standard_normal((_HIDDEN, backbone.embedding_size)) / math.sqrt(_HIDDEN)
    scores = np.zeros((STATE_SIZE, len(backbone.classes)))
    for column, name in enumerate(backbone.classes):
        if name in _ROWS:
            scores[_ROWS[name], column] = 2.0
        scores[VA, column] = 2.0 * np.array(_AFFECT[name])
    scores += 0.3 * random.standard_normal(scores.shape)
    arrays = (
        hidden,
        random.uniform(-0.5, 0.5, _HIDDEN),
        output,
        random.uniform(-0.2, 0.6, backbone.embedding_size),
        scores,
    )
    return _Network(*(array.astype(np.float32) for array in arrays))


# Row of the state that a class of AffectNet shows, and its valence and arousal.
_ROWS = {"Neutral": 0, "Anger": 1, "Disgust": 2, "Fear": 3, "Happiness": 4, "Sadness": 5, "Surprise": 6}
_AFFECT = {
    "Neutral": (0.0, -1.2),
    "Anger": (-1.0, 1.0),
    "Contempt": (-1.0, -0.3),
    "Disgust": (-1.2, 0.2),
    "Fear": (-0.6, 1.2),
    "Happiness": (1.6, 0.3),
    "Sadness": (-1.2, -0.8),
    "Surprise": (0.2, 1.4),
}


def _digits(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
