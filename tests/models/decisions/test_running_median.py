import numpy as np
import pytest

from models.decisions.running_median import _median_network, running_median

RANDOM = np.random.default_rng(0)


def slow(values, half_width):
    windows = [values[max(0, t - half_width) : t + half_width + 1] for t in range(len(values))]
    return np.stack([np.median(window, axis=0) for window in windows])


@pytest.mark.parametrize("half_width", [1, 2, 3, 7, 8, 15, 40, 700])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 100, 2600])
def test_equals_numpy_to_the_bit(count, half_width):
    if count > 1000 and half_width > 100:
        half_width = 80
    spread = RANDOM.normal(size=(count, 3)).astype("f4")
    ties = RANDOM.integers(-2, 3, (count, 3)).astype("f4")
    steps = np.repeat(spread[: (count + 4) // 5], 5, axis=0)[:count]
    for values in (spread, ties, steps, -np.sort(-spread, axis=0)):
        assert (running_median(values, half_width) == slow(values, half_width)).all()


def test_many_columns_and_none():
    values = RANDOM.random((50, 37)).astype("f4")
    for half_width in (4, 20):
        assert (running_median(values, half_width) == slow(values, half_width)).all()
    assert running_median(values[:0], 3).shape == (0, 37)
    assert (running_median(values, 0) == values).all()


def test_infinities_are_values_like_others():
    values = RANDOM.choice(np.array([-np.inf, -1, 0, 1, np.inf], "f4"), (60, 2))
    for half_width in (2, 10):
        got = running_median(values[20:], half_width)[half_width:-half_width]
        assert (got == slow(values[20:], half_width)[half_width:-half_width]).all()


def test_nan_is_refused():
    with pytest.raises(ValueError, match="every frame"):
        running_median(np.array([[1.0], [np.nan], [2]], "f4"), 1)


@pytest.mark.parametrize("size", [3, 5, 7, 9, 11, 13, 15])
def test_networks_find_the_middle_of_every_pattern_of_zeros_and_ones(size):
    """A network of exchanges is right if it is right for zeros and ones."""
    wires = list((np.arange(1 << size)[None, :] >> np.arange(size)[:, None]) & 1)
    ones = np.sum(wires, axis=0)
    for low, high, _, _ in _median_network(size):
        wires[low], wires[high] = np.minimum(wires[low], wires[high]), np.maximum(wires[low], wires[high])
    assert (wires[size // 2] == (ones > size // 2)).all()
