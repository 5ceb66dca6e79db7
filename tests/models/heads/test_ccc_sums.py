import numpy as np
import pytest

from models.heads.ccc_sums import WideInputs
from models.heads.feature_rows import RowReader, TrainingRows


def made_up(count, width):
    random = np.random.default_rng(5)
    va = random.uniform(-1, 1, (count, 2)).astype("f4")
    return TrainingRows(random.normal(size=(count, width)).astype("f2"), np.zeros((count, 1), "f4"), {"va": va})


@pytest.mark.parametrize("count", [1, 1500, 5000])  # less than a block, one and a half, more than two
def test_sums_are_those_of_the_formula(count):
    rows, index = made_up(count, 40), np.arange(count)[::-1]
    weights = np.random.default_rng(6).normal(0, 0.1, (2, 41))
    sums, slopes = WideInputs(RowReader(rows, "embeddings"), index, rows.labels["va"]).sums(weights)
    check(rows, weights, sums, slopes, 1e-5)


def check(rows, weights, sums, slopes, tolerance):
    x, y = np.hstack([rows.embeddings, np.ones((len(rows), 1))]), rows.labels["va"].astype("f8")
    v = np.tanh(x @ weights.T)
    np.testing.assert_allclose(sums, [v.sum(0), (v * v).sum(0), (v * y).sum(0)], rtol=tolerance, atol=tolerance)
    factors = np.hstack([1 - v**2, (1 - v**2) * v, (1 - v**2) * y])
    np.testing.assert_allclose(slopes, factors.T @ x, rtol=tolerance, atol=tolerance * np.sqrt(len(rows)))


def test_without_slopes():
    rows = made_up(100, 40)
    part, weights = WideInputs(RowReader(rows, "embeddings"), np.arange(100), rows.labels["va"]), np.ones((2, 41))
    sums, slopes = part.sums(weights, slopes=False)
    assert len(part) == 100
    np.testing.assert_array_equal(sums, part.sums(weights)[0])
    assert not slopes.any()
