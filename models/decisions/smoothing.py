"""Interpolation of frames without a face, and smoothing over time windows. One subject at a time, frames in order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from data_contracts.vocabulary import BranchName

Direction = Literal["linear", "published"]
WindowUnit = Literal["frames", "seconds"]
Space = Literal["probability", "logit"]
# For subjects whose video is unknown: the frame rate of most videos of Aff-Wild2.
NOMINAL_FRAMES_PER_SECOND = 30.0
_SMALLEST_PROBABILITY = 1e-6
# The weights of a Gaussian window take memory.
_LARGEST_HALF_WIDTH = 10_000


@dataclass(frozen=True)
class Smoothing:
    """A way to smooth outputs over time.

    Attributes:
        method: name in ``SMOOTHERS``.
        half_width: of the window on each side of its centre, in ``unit``.
        unit: ``seconds`` if windows in videos of different frame rates shall last equally long.
        space: what is smoothed: the probability or value p, or its ``logit``: log p for expressions, log(p / (1 - p))
            for action units, and artanh p for valence and arousal. Logits are turned back into p.
    """

    method: str = "none"
    half_width: float = 0
    unit: WindowUnit = "frames"
    space: Space = "probability"

    def __post_init__(self) -> None:
        get_smoother(self.method)
        if not 0 <= self.half_width <= _LARGEST_HALF_WIDTH:
            raise ValueError(f"half_width: expected 0 to {_LARGEST_HALF_WIDTH:,}, got {self.half_width}")
        if self.unit not in get_args(WindowUnit) or self.space not in get_args(Space):
            raise ValueError(f"expected a unit of {get_args(WindowUnit)} and a space of {get_args(Space)}, got {self}")

    def half_width_frames(self, frames_per_second: float) -> int:
        """Return the half width in a video of this frame rate."""
        return int(self.half_width * (frames_per_second if self.unit == "seconds" else 1) + 0.5)

    def describe(self) -> str:
        """Return the method and the whole window in words: ``mean of 15 frames``, ``gaussian of 3.33 s, logit``."""
        if self.method == "none":
            return "none"
        width = f"{2 * self.half_width:g} s" if self.unit == "seconds" else f"{2 * int(self.half_width) + 1} frames"
        return f"{self.method} of {width}{', logit' if self.space == 'logit' else ''}"


# A Gaussian window extends over two standard deviations on each side.
GAUSSIAN_REACH = 2.0
# Convolve wider Gaussians in the frequency domain, where the width hardly matters.
_DIRECT_HALF_WIDTH_FRAMES = 50


@dataclass(frozen=True)
class Smoother:
    """One method of smoothing.

    Attributes:
        apply: (values float32 [T, K] without NaN, half width in frames, at least 1) -> float32 [T, K]. T is at least 2
            and may be less than the window; windows are cut at the ends, not padded.
        searched_half_widths_seconds: what recipes try that do not name other windows.
    """

    apply: Callable[[np.ndarray, int], np.ndarray]
    searched_half_widths_seconds: tuple[float, ...]


def interpolate_missing(values: np.ndarray, present: np.ndarray, *, direction: Direction = "linear") -> np.ndarray:
    """Fill the frames that are not present. Frames before the first and after the last present one copy that one.

    ``linear`` interpolates between the neighbours (Savchenko 2022, section 2). ``published`` reproduces the authors'
    ABAW3 notebook, which swaps the weights of the two neighbours, so that every gap is filled backwards.

    Args:
        values: [T, K].
        present: bool [T].
        direction: which of the two.

    Returns:
        float32 [T, K]; NaN throughout if no frame is present.

    Raises:
        ValueError: the shapes do not match.
    """
    if present.shape != values.shape[:1]:
        raise ValueError(f"expected one flag for each of {len(values)} frames, got {present.shape}")
    filled = np.array(values, np.float32)
    known, gaps = np.flatnonzero(present), np.flatnonzero(~present)
    if not len(known):
        return np.full_like(filled, np.nan)
    following = np.searchsorted(known, gaps)
    before = known[np.maximum(following - 1, 0)]
    after = known[np.minimum(following, len(known) - 1)]
    before, after = np.where(following == 0, after, before), np.where(following == len(known), before, after)
    span = np.maximum(after - before, 1)
    weight_after = (gaps - before) / span
    if direction == "published":
        weight_after = np.where(after > before, 1 - weight_after, weight_after)
    weight = weight_after[:, None]
    filled[gaps] = (1 - weight) * filled[before].astype(np.float64) + weight * filled[after].astype(np.float64)
    return filled


def smooth(values: np.ndarray, *, method: str, half_width_frames: int = 0) -> np.ndarray:
    """Smooth values [T, K] over windows of 2 * half_width + 1 frames that are cut at the ends; returns float32.

    ``method`` is a name in ``SMOOTHERS``. Interpolate missing frames first. A subject without any face (NaN throughout)
    is returned unchanged.

    Raises:
        ValueError: the half width is negative, the method is unknown, or some values are NaN.
    """
    smoother = get_smoother(method)
    if half_width_frames < 0:
        raise ValueError(f"half_width_frames: expected at least 0, got {half_width_frames}")
    values = np.asarray(values, np.float32)
    is_missing = np.isnan(values)
    if half_width_frames == 0 or len(values) < 2 or is_missing.all():
        return values.copy()
    if is_missing.any():
        raise ValueError("smooth: expected a value in every frame, got NaN in some; interpolate missing frames first")
    return smoother.apply(values, half_width_frames)


def smooth_outputs(
    branch: BranchName, values: np.ndarray, smoothing: Smoothing, *, frames_per_second: float
) -> np.ndarray:
    """Smooth the outputs [T, K] of a branch, or some of their columns (not of expressions); returns float32.

    Interpolate missing frames first. A subject without any face (NaN throughout) is returned unchanged.
    """
    width = smoothing.half_width_frames(frames_per_second)
    if smoothing.space == "probability" or width == 0 or smoothing.method == "none":
        return smooth(values, method=smoothing.method, half_width_frames=width)
    smoothed = smooth(to_logits(branch, values), method=smoothing.method, half_width_frames=width)
    return from_logits(branch, smoothed)


def to_logits(branch: BranchName, values: np.ndarray) -> np.ndarray:
    """Return the logits float64 [T, K] of outputs, as ``Smoothing.space`` defines them.

    Probabilities are at least 1e-6, and values at least 1e-6 away from -1 and 1.
    """
    values = np.asarray(values, np.float64)
    if branch == "expr":
        return np.log(np.maximum(values, _SMALLEST_PROBABILITY))
    if branch == "va":
        return np.arctanh(np.clip(values, -1 + _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY))
    inner = np.clip(values, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return np.log(inner) - np.log1p(-inner)


def from_logits(branch: BranchName, logits: np.ndarray) -> np.ndarray:
    """Return the outputs float32 [T, K] of logits; expressions sum to 1."""
    logits = np.asarray(logits, np.float64)
    if branch == "expr":
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        found = exponents / exponents.sum(axis=1, keepdims=True)
    elif branch == "va":
        found = np.tanh(logits)
    else:
        found = 1 / (1 + np.exp(-logits))
    return np.asarray(found, np.float32)


def get_smoother(name: str) -> Smoother:
    """Return the smoother of that name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in SMOOTHERS:
        raise ValueError(f"smoothing method: expected one of {', '.join(SMOOTHERS)}, got {name!r}")
    return SMOOTHERS[name]


def _unchanged(values: np.ndarray, half_width_frames: int) -> np.ndarray:
    return values.copy()


def running_mean(values: np.ndarray, half_width_frames: int) -> np.ndarray:
    """Mean of each window, from differences of float64 running sums: the width does not matter for the speed."""
    count, half_width = len(values), min(half_width_frames, len(values))
    sums = np.zeros((count + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=sums[1:])
    frame = np.arange(count)
    start, end = np.maximum(frame - half_width, 0), np.minimum(frame + half_width + 1, count)
    result = np.empty(values.shape)
    inner = slice(half_width, max(count - half_width, half_width))
    np.subtract(sums[2 * half_width + 1 :], sums[: max(count - 2 * half_width, 0)], out=result[inner])
    edges = np.concatenate([frame[: inner.start], frame[inner.stop :]])
    result[edges] = sums[end[edges]] - sums[start[edges]]
    result /= (end - start)[:, None]
    return result.astype(np.float32)


def running_median(values: np.ndarray, half_width_frames: int) -> np.ndarray:
    """Median of each window; an even number of values (at the ends only) averages the two middle ones."""
    # scipy.ndimage takes a while to import; commands that do not smooth skip it.
    from scipy.ndimage import median_filter

    count, size = len(values), 2 * half_width_frames + 1
    result = np.empty_like(values)
    if count >= size:
        for column in range(values.shape[1]):  # one-dimensional filters are much faster than one over [size, 1]
            result[:, column] = median_filter(values[:, column], size=size)
    # The filter pads at the ends, so compute the cut windows separately.
    cut = min(half_width_frames, count)
    for frame in {*range(cut), *range(count - cut, count)}:
        window = values[max(frame - half_width_frames, 0) : frame + half_width_frames + 1]
        result[frame] = np.median(window, axis=0)
    return result


def gaussian(values: np.ndarray, half_width_frames: int) -> np.ndarray:
    """Window weighted by exp(-d^2 / (2 s^2)), s = half_width / 2; the weights of a cut window are renormalised."""
    from scipy.ndimage import correlate1d
    from scipy.signal import oaconvolve

    sigma = half_width_frames / GAUSSIAN_REACH
    kernel = np.exp(-0.5 * (np.arange(-half_width_frames, half_width_frames + 1) / sigma) ** 2)
    weights = correlate1d(np.ones(len(values)), kernel, mode="constant")
    if half_width_frames <= _DIRECT_HALF_WIDTH_FRAMES:
        sums = correlate1d(values.astype(np.float64), kernel, axis=0, mode="constant")
    else:
        sums = oaconvolve(values.astype(np.float64), kernel[:, None], mode="full", axes=0)
        sums = sums[half_width_frames : half_width_frames + len(values)]
    return (sums / weights[:, None]).astype(np.float32)


# To add a smoother, write a function and add a line here: post-processing, tuning and reports use it by its name.
# Mean and median are published with half widths of 2 and 7 frames (Savchenko 2022, table 5); the authors' later code
# has half widths of up to 200 frames. At 30 frames per second, those below are 2, 5, 7, 15, 25, 50 and 100 frames.
SMOOTHERS: dict[str, Smoother] = {
    "none": Smoother(_unchanged, (0.0,)),
    "mean": Smoother(running_mean, (0.07, 0.17, 0.23, 0.5, 0.83, 1.67, 3.33)),
    "median": Smoother(running_median, (0.07, 0.23, 0.5)),
    "gaussian": Smoother(gaussian, (0.23, 0.5, 1.67, 3.33)),
}
# The smoothings of the paper's five submissions (Savchenko 2022, section 3.4 and table 5), by windows in frames that
# include the centre.
PUBLISHED_SMOOTHINGS: dict[str, Smoothing] = {
    "none": Smoothing(),
    "mean 5": Smoothing("mean", 2),
    "median 5": Smoothing("median", 2),
    "mean 15": Smoothing("mean", 7),
    "median 15": Smoothing("median", 7),
}
