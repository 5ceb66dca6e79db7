"""The latent state of a simulated subject: evidence for every label, from which labels and features are drawn.

A state has 22 values per frame with unit variance over all subjects: evidence for eight expressions, valence, arousal,
and evidence for twelve action units. Six common factors correlate the tasks (a smile raises Happiness, valence, AU6
and AU12). Every value is the sum of a subject's constant and three Gaussian processes, slow to fast.

Nothing about correlations and time constants is published except what the paper's smoothing shows: wide windows help
expressions, valence and arousal, narrow ones action units. The tables below are assumptions that agree with it.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS
from tasks.simulate.plan import SimulatedSubject

EXPR, VA, AU = slice(0, 8), slice(8, 10), slice(10, 22)
STATE_SIZE = 22
_STREAM = 4
# Points per time constant of a slow process, which are joined by lines.
_STEPS = 16

# Common factors: joy, distress, hostility, alarm, energy, talk.
_LOADINGS: dict[str, tuple[float, ...]] = {
    "Neutral": (-0.35, -0.25, -0.35, -0.35, -0.45, -0.10),
    "Anger": (-0.20, 0.10, 0.75, 0.00, 0.30, 0.10),
    "Disgust": (-0.20, 0.20, 0.65, 0.10, 0.00, -0.10),
    "Fear": (-0.20, 0.40, 0.00, 0.70, 0.10, 0.00),
    "Happiness": (0.85, -0.15, -0.15, 0.00, 0.15, 0.10),
    "Sadness": (-0.20, 0.80, 0.00, 0.00, -0.30, -0.10),
    "Surprise": (0.10, -0.10, -0.10, 0.75, 0.30, 0.00),
    "Other": (-0.10, 0.00, 0.00, -0.10, 0.15, 0.60),
    "valence": (0.52, -0.32, -0.28, -0.05, 0.00, 0.05),
    "arousal": (0.10, -0.10, 0.15, 0.25, 0.50, 0.10),
    "AU1": (-0.05, 0.35, -0.15, 0.60, 0.05, 0.05),
    "AU2": (0.00, 0.05, -0.10, 0.70, 0.15, 0.05),
    "AU4": (-0.25, 0.40, 0.55, 0.05, 0.00, 0.00),
    "AU6": (0.75, -0.05, 0.10, -0.05, 0.10, 0.00),
    "AU7": (0.45, 0.15, 0.40, -0.20, 0.10, 0.00),
    "AU10": (0.45, 0.10, 0.35, 0.00, 0.15, 0.15),
    "AU12": (0.85, -0.10, -0.10, 0.00, 0.10, 0.05),
    "AU15": (-0.20, 0.65, 0.10, 0.00, -0.10, -0.05),
    "AU23": (-0.15, 0.10, 0.50, -0.10, 0.00, -0.10),
    "AU24": (-0.15, 0.15, 0.45, -0.05, -0.10, -0.30),
    "AU25": (0.25, -0.05, 0.00, 0.25, 0.25, 0.60),
    "AU26": (0.00, 0.00, -0.05, 0.40, 0.10, 0.50),
}
_NAMES = (*EXPRESSIONS, "valence", "arousal", *ACTION_UNITS)
LOADINGS = np.array([_LOADINGS[name] for name in _NAMES])
_OWN = np.sqrt(1 - (LOADINGS**2).sum(axis=1))

# Share of the variance of each task that is constant in a subject, and that of every process; and their time constants.
_SHARES = {
    "expr": (0.15, 0.70, 0.15, 0.00, 0.00),
    "va": (0.15, 0.50, 0.20, 0.15, 0.00),
    "au": (0.15, 0.20, 0.00, 0.00, 0.65),
}
_PROCESS_FRAMES = (700.0, 250.0, 80.0, 14.0)
# Annotators err for a while: time constant of the noise of labels.
_NOISE_FRAMES = 400.0


@dataclass(frozen=True, eq=False)
class LatentState:
    """The latent state of a subject.

    Attributes:
        state: float32 [frames, 22].
        noise: of the annotators, float32 [frames, 22], unit variance, correlated in time, independent of the state.
    """

    state: np.ndarray
    noise: np.ndarray


def draw_state(seed: int, subject: SimulatedSubject) -> LatentState:
    """Draw the latent state of one subject and the noise of its annotators."""
    random = np.random.default_rng([seed, _STREAM, subject.number])
    count, width = subject.frames, LOADINGS.shape[1] + STATE_SIZE
    parts = [random.standard_normal((1, width), np.float32)]
    parts += [_slow_process(random, count, width, frames) for frames in _PROCESS_FRAMES]
    shares = np.concatenate([np.tile(_SHARES[name], (size, 1)) for name, size in (("expr", 8), ("va", 2), ("au", 12))])
    state = np.zeros((count, STATE_SIZE), np.float32)
    for number, part in enumerate(parts):
        scale = np.sqrt(shares[:, number])
        common = (LOADINGS * scale[:, None]).T.astype(np.float32)
        own = (_OWN * scale).astype(np.float32)
        state += part[:, :6] @ common + part[:, 6:] * own
    noise = _slow_process(random, count, STATE_SIZE, _NOISE_FRAMES)
    return LatentState(state, noise)


def smooth_process(random: np.random.Generator, count: int, width: int, time_constant: float) -> np.ndarray:
    """Return smooth Gaussian processes of unit variance: white noise filtered twice, float32 [count, width]."""
    decay = math.exp(-2 / time_constant)
    burn = math.ceil(3 * time_constant)
    gain = math.sqrt((1 - decay**2) ** 3 / (1 + decay**2))
    white = random.standard_normal((count + burn, width), np.float32)
    filtered = lfilter([gain], [1, -2 * decay, decay**2], white, axis=0)[burn:]
    return np.asarray(filtered, np.float32)


def correlated_noise(random: np.random.Generator, count: int, width: int, time_constant: float) -> np.ndarray:
    """Return first-order autoregressive Gaussian noise of unit variance, float32 [count, width]."""
    decay = math.exp(-1 / time_constant)
    white = random.standard_normal((count, width), np.float32)
    white[1:] *= math.sqrt(1 - decay**2)
    return np.asarray(lfilter([1], [1, -decay], white, axis=0), np.float32)


def _slow_process(random: np.random.Generator, count: int, width: int, time_constant: float) -> np.ndarray:
    """Return ``smooth_process``; the values of a slow one are drawn every few frames, and joined by lines."""
    step = int(time_constant / _STEPS)
    if step < 2:
        return smooth_process(random, count, width, time_constant)
    points = smooth_process(random, count // step + 2, width, time_constant / step)
    at = np.arange(count, dtype=np.float32) / step
    left = at.astype(np.int64)
    share = (at - left)[:, None]
    return points[left] * (1 - share) + points[left + 1] * share
