"""The layers of temporal heads in NumPy, for prediction: importing torch would take longer than most videos.

``networks`` has the same layers in torch, for fitting and for export.
"""

from collections.abc import Mapping

import numpy as np

from models.heads.head import BranchConfig
from models.heads.recipes import HeadRecipe, TemporalLayers, hidden_sizes

Weights = Mapping[str, np.ndarray]
# Positions that a TCN computes at once. They and their neighbours stay in a processor's cache.
_CHUNK_POSITIONS = 2048


def width_of(settings: BranchConfig | HeadRecipe) -> int:
    """Return the size of the hidden values.

    Raises:
        ValueError: there is not exactly one hidden size.
    """
    sizes = hidden_sizes(settings.hidden_units)
    if len(sizes) != 1:
        raise ValueError(f"temporal head: expected one size of hidden units, got {settings.hidden_units!r}")
    return sizes[0]


def project(weights: Weights, inputs: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the hidden values of frames, float32 [n, width], of inputs [n, D]; 0 where the face is not present."""
    hidden = np.maximum(_linear(weights, "project", inputs), 0)
    hidden[~present] = 0
    return hidden


def dilations(layers: int) -> tuple[int, ...]:
    """Return the dilation of each layer of a TCN: 1, 2, 4, ..."""
    return tuple(2**layer for layer in range(layers))


def context_positions(layers: TemporalLayers) -> int:
    """Return how many positions before and after a position its outputs depend on, in a TCN."""
    return (layers.kernel // 2) * sum(dilations(layers.layers))


def run_tcn(weights: Weights, layers: TemporalLayers, hidden: np.ndarray) -> np.ndarray:
    """Return outputs [P, K] of hidden values [P, width]: those of one convolution over the whole sequence."""
    context, parts = context_positions(layers), []
    for start in range(0, len(hidden), _CHUNK_POSITIONS):
        first = max(start - context, 0)
        chunk = hidden[first : start + _CHUNK_POSITIONS + context]
        for layer, dilation in enumerate(dilations(layers.layers)):
            chunk = chunk + np.maximum(_convolve(weights, f"convolutions.{layer}", chunk, dilation), 0)
        parts.append(_linear(weights, "output", chunk[start - first : start - first + _CHUNK_POSITIONS]))
    return np.concatenate(parts)


def _convolve(weights: Weights, name: str, values: np.ndarray, dilation: int) -> np.ndarray:
    weight = weights[f"{name}.weight"]
    count, kernel = len(values), weight.shape[2]
    middle = kernel // 2
    result = values @ weight[:, :, middle].T + weights[f"{name}.bias"]
    for tap in range(kernel):
        shift = (tap - middle) * dilation
        # Beyond the ends, values are 0.
        if shift < 0 and -shift < count:
            result[-shift:] += values[:shift] @ weight[:, :, tap].T
        elif 0 < shift < count:
            result[:-shift] += values[shift:] @ weight[:, :, tap].T
    return result


def run_transformer(weights: Weights, layers: TemporalLayers, hidden: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return outputs [P, K] of hidden values [P, width], averaged over two windows with the weights of ``taper``.

    Windows start at every half window; the first one starts half a window before the sequence.
    """
    count, window, half = len(hidden), layers.window, layers.window // 2
    places, weight = sinusoids(window, hidden.shape[1]), taper(window)[:, None]
    outputs = np.zeros((count, len(weights["output.bias"])), np.float32)
    for start in range(-half, count, half):
        inside = slice(max(start, 0), min(start + window, count))
        of_window = slice(inside.start - start, inside.stop - start)
        values = hidden[inside] + places[of_window]
        for layer in range(layers.layers):
            values = _encode(weights, f"encoder.layers.{layer}", values, present[inside], layers.heads)
        values = _normalize(weights, "encoder.norm", values)
        outputs[inside] += weight[of_window] * _linear(weights, "output", values)
    return outputs


def _encode(weights: Weights, name: str, values: np.ndarray, present: np.ndarray, heads: int) -> np.ndarray:
    """Run one layer as ``torch.nn.TransformerEncoderLayer`` with ``norm_first`` does, for one window [n, width]."""
    count, width = values.shape
    normal = _normalize(weights, f"{name}.norm1", values)
    joined = normal @ weights[f"{name}.self_attn.in_proj_weight"].T + weights[f"{name}.self_attn.in_proj_bias"]
    query, key, value = joined.reshape(count, 3, heads, width // heads).transpose(1, 2, 0, 3)
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(width // heads))
    if present.any():
        scores[:, :, ~present] = -np.inf
    scores = np.exp(scores - scores.max(axis=2, keepdims=True))
    mixed = (scores / scores.sum(axis=2, keepdims=True)) @ value
    values = values + _linear(weights, f"{name}.self_attn.out_proj", mixed.transpose(1, 0, 2).reshape(count, width))
    normal = _normalize(weights, f"{name}.norm2", values)
    return values + _linear(weights, f"{name}.linear2", np.maximum(_linear(weights, f"{name}.linear1", normal), 0))


def _linear(weights: Weights, name: str, values: np.ndarray) -> np.ndarray:
    result: np.ndarray = values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return result


def _normalize(weights: Weights, name: str, values: np.ndarray) -> np.ndarray:
    values = values - values.mean(axis=1, keepdims=True)
    values = values / np.sqrt(np.square(values).mean(axis=1, keepdims=True) + np.float32(1e-5))
    result: np.ndarray = values * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return result


def sinusoids(window: int, width: int) -> np.ndarray:
    """Return what is added to the hidden values at each position of a window, float32 [window, width].

    As in Vaswani et al. 2017, section 3.5: sines in even columns, cosines in odd ones.
    """
    angle = np.arange(window)[:, None] / 10_000 ** (np.arange(width)[None] // 2 * 2 / width)
    return np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def taper(window: int) -> np.ndarray:
    """Return the weight of each position of a window, float32 [window]; weights of overlapping windows sum to 1."""
    rising = (np.arange(window // 2, dtype=np.float32) + 0.5) / (window // 2)
    return np.concatenate([rising, rising[::-1]])
