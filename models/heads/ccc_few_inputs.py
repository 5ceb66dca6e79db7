"""The sums of ``ccc_sums`` for heads of few inputs, such as a backbone's scores: compiled loops on one thread.

Matrix products of so few columns take torch longer than all else, the more so on threads that wait for one another.
"""

import numba
import numpy as np

from models.heads.feature_rows import RowReader

_BLOCK = 2048  # rows of one column that stay in the first cache
# Sums may be reordered, so that they run several rows at a time.
_REORDERED = {"reassoc", "contract", "nsz"}


class FewInputs:
    """Rows that are read once and kept, one column after another; sums are in float64. As ``WideInputs`` otherwise."""

    def __init__(self, reader: RowReader, index: np.ndarray, labels: np.ndarray) -> None:
        """Rows ``index`` of the reader; ``labels`` float32 of all its rows, [N, 2]."""
        self._targets = np.ascontiguousarray(labels[index].T)
        self._inputs = np.empty((reader.width, len(index)), np.float32)
        first = 0
        for block, inputs in reader.blocks(index):
            self._inputs[:, first : first + len(block)] = inputs.numpy().T
            first += len(block)
        self._values = np.empty((2, len(index)))

    def __len__(self) -> int:
        return self._inputs.shape[1]

    def sums(self, weights: np.ndarray, *, slopes: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """As ``WideInputs.sums``."""
        found, gradients = np.zeros((3, 2)), np.zeros((6, weights.shape[1]))
        _outputs(self._inputs, 2 * weights, self._values)
        with np.errstate(over="ignore"):  # infinity is a tanh of 1
            np.exp(self._values, out=self._values)
        _add_sums(self._values, self._targets, found)
        if slopes:
            _add_slopes(self._inputs, self._values, self._targets, gradients)
        return found, gradients


@numba.njit(cache=True, nogil=True, fastmath=_REORDERED)
def _outputs(inputs: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """A linear layer: inputs [width, n], weights [2, width + 1], out [2, n]."""
    width, count = inputs.shape
    for first in range(0, count, _BLOCK):
        last = min(first + _BLOCK, count)
        for k in range(len(weights)):
            row = out[k, first:last]
            row[:] = weights[k, width]
            for j in range(width):
                column, weight = inputs[j, first:last], weights[k, j]
                for i in range(len(row)):
                    row[i] += weight * np.float64(column[i])


@numba.njit(cache=True, nogil=True, fastmath=_REORDERED)
def _add_sums(values: np.ndarray, targets: np.ndarray, sums: np.ndarray) -> None:
    """Turn exp(2 x) into tanh(x), both [2, n], and add up v, v^2 and v y in [3, 2]."""
    for k in range(len(values)):
        linear = square = product = 0.0
        for i in range(values.shape[1]):
            value = 1 - 2 / (values[k, i] + 1)
            values[k, i] = value
            linear += value
            square += value * value
            product += value * np.float64(targets[k, i])
        sums[0, k] += linear
        sums[1, k] += square
        sums[2, k] += product


@numba.njit(cache=True, nogil=True, fastmath=_REORDERED)
def _add_slopes(inputs: np.ndarray, values: np.ndarray, targets: np.ndarray, slopes: np.ndarray) -> None:
    """Add up (1, v, y) (1 - v^2) times each input and times 1, in [6, width + 1]."""
    width, count = inputs.shape
    branches = len(values)
    factors = np.empty((3, _BLOCK))
    for first in range(0, count, _BLOCK):
        last = min(first + _BLOCK, count)
        one, of_value, of_target = factors[0, : last - first], factors[1, : last - first], factors[2, : last - first]
        for k in range(branches):
            value, target = values[k, first:last], targets[k, first:last]
            for i in range(last - first):
                slope = 1 - value[i] * value[i]
                one[i] = slope
                of_value[i] = slope * value[i]
                of_target[i] = slope * np.float64(target[i])
            for place, factor in enumerate((one, of_value, of_target)):
                slopes[place * branches + k, width] += factor.sum()
            for j in range(width):
                column = inputs[j, first:last]
                a = b = c = 0.0
                for i in range(last - first):
                    x = np.float64(column[i])
                    a += one[i] * x
                    b += of_value[i] * x
                    c += of_target[i] * x
                slopes[k, j] += a
                slopes[branches + k, j] += b
                slopes[2 * branches + k, j] += c
