import numpy as np
import pytest

from models.heads.ccc_few_inputs import FewInputs
from models.heads.ccc_sums import WideInputs
from models.heads.feature_rows import RowReader, TrainingRows


@pytest.mark.parametrize("count", [1, 1500, 5000])  # less than a block of either, more than one, more than two
@pytest.mark.parametrize("slopes", [True, False])
def test_sums_are_those_of_wide_inputs(count, slopes):
    random = np.random.default_rng(5)
    va, logits = random.uniform(-1, 1, (count + 9, 2)).astype("f4"), random.normal(size=(count + 9, 8)).astype("f4")
    rows, index = TrainingRows(logits, logits, {"va": va}), random.permutation(count + 9)[:count]
    reader, weights = RowReader(rows, "scores"), random.normal(0, 0.3, (2, 9))
    few, wide = FewInputs(reader, index, va), WideInputs(reader, index, va)
    assert len(few) == len(wide) == count
    for got, expected in zip(few.sums(weights, slopes=slopes), wide.sums(weights, slopes=slopes), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * count)


def test_outputs_beyond_all_numbers_are_one():
    ones = np.ones((3, 1), "f4")
    rows = TrainingRows(ones, ones, {"va": np.zeros((3, 2), "f4")})
    weights = np.array([[1e6, 0], [-1e6, 0]])
    sums, slopes = FewInputs(RowReader(rows, "scores"), np.arange(3), rows.labels["va"]).sums(weights)
    assert sums.tolist() == [[3, -3], [3, 3], [0, 0]]
    assert not slopes.any()
