import numpy as np
import pytest
from sklearn.metrics import f1_score

from models.thresholds import GRID, grid_thresholds, optimal_thresholds


@pytest.fixture(params=["spread", "ties", "on the grid"])
def data(request):
    random = np.random.default_rng(1)
    labels = (random.random((1500, 3)) < 0.25).astype(np.int8)
    labels[random.random(labels.shape) < 0.1] = -1
    probabilities = np.clip(0.6 * random.random(labels.shape) + 0.3 * (labels == 1), 0, 1)
    if request.param == "ties":
        probabilities = probabilities.round(1)
    elif request.param == "on the grid":
        probabilities = GRID[random.integers(0, len(GRID), labels.shape)]
    return labels, probabilities.astype(np.float32)


def test_grid_equals_the_slow_search(data):
    labels, probabilities = data
    for unit, found in enumerate(grid_thresholds(labels, probabilities)):
        known = labels[:, unit] >= 0
        p = probabilities[known, unit].astype(np.float64)
        figures = [f1_score(labels[known, unit], p >= threshold) for threshold in GRID]
        assert found == GRID[int(np.argmax(figures))]


def test_optimum_is_not_beaten_by_any_cut(data):
    labels, probabilities = data
    for unit, found in enumerate(optimal_thresholds(labels, probabilities)):
        known = labels[:, unit] >= 0
        y, p = labels[known, unit], probabilities[known, unit].astype(np.float64)
        best = max(f1_score(y, p >= cut) for cut in np.unique(p))
        assert f1_score(y, p >= found) == pytest.approx(best, abs=1e-12)


def test_unit_without_positives_gets_a_half():
    labels = np.array([[0, -1], [0, -1]])
    probabilities = np.full((2, 2), 0.3, np.float32)
    assert grid_thresholds(labels, probabilities).tolist() == [0.5, 0.5]
    assert optimal_thresholds(labels, probabilities).tolist() == [0.5, 0.5]


def test_first_of_equal_thresholds_wins():
    labels, probabilities = np.array([[1], [0]]), np.array([[0.95], [0.05]], np.float32)
    assert grid_thresholds(labels, probabilities).tolist() == [GRID[0]]
