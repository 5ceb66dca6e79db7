import numpy as np
import pytest

from models.tuning.folds import jackknife_variance, shrink


def test_the_jackknife_of_a_mean_is_its_variance():
    groups = np.random.default_rng(0).normal(size=(12, 3))
    without = (groups.sum(axis=0) - groups) / 11
    np.testing.assert_allclose(jackknife_variance(without), groups.var(axis=0, ddof=1) / 12)


def test_values_are_shrunk_where_folds_disagree():
    estimates = np.array([2.0, 2.0, -2.0, 0.0])
    replicates = np.tile(estimates, (5, 1))
    assert (shrink(estimates, replicates, target=0.0) == estimates).all()
    replicates[:, 1] += [1, -1, 1, -1, 0]
    found = shrink(estimates, replicates, target=0.0)
    assert found[0] == 2 and found[2] == -2
    # By hand: v = 4/5 of the sum of squares 4; t² = (4 + 4 + 4) / 4 less the mean of v.
    assert found[1] == pytest.approx(2 * (3 - 0.8) / (3 - 0.8 + 3.2))


def test_values_that_differ_by_noise_alone_become_equal():
    random = np.random.default_rng(1)
    groups = 0.3 + random.normal(size=(5, 12))
    means, without = groups.mean(axis=0), (groups.sum(axis=0) - groups) / 4
    found = shrink(means, without)
    assert found.std() < 0.5 * means.std()
    assert shrink(means, without, target=0.0).std() < means.std()
