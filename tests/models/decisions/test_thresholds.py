import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve

from models.decisions.thresholds import GRID, grid_thresholds, optimal_thresholds


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


def test_grid_equals_sklearn(data):
    labels, probabilities = data
    for unit, found in enumerate(grid_thresholds(labels, probabilities)):
        known = labels[:, unit] >= 0
        p = probabilities[known, unit].astype(np.float64)
        scores = [f1_score(labels[known, unit], p >= threshold) for threshold in GRID]
        assert found == GRID[int(np.argmax(scores))]


def test_no_threshold_is_better_than_the_optimum(data):
    labels, probabilities = data
    for unit, found in enumerate(optimal_thresholds(labels, probabilities)):
        known = labels[:, unit] >= 0
        y, p = labels[known, unit], probabilities[known, unit].astype(np.float64)
        precision, recall, cuts = precision_recall_curve(y, p)
        assert (cuts == np.unique(p)).all(), "precision_recall_curve left out a cut"
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
        assert f1_score(y, p >= found) == pytest.approx(best, abs=1e-12)


def test_unit_without_positives_gets_the_default():
    labels = np.array([[0, -1], [0, -1]])
    probabilities = np.full((2, 2), 0.3, np.float32)
    assert grid_thresholds(labels, probabilities).tolist() == [0.5, 0.5]
    assert optimal_thresholds(labels, probabilities).tolist() == [0.5, 0.5]


def test_first_of_equal_thresholds_wins():
    labels, probabilities = np.array([[1], [0]]), np.array([[0.95], [0.05]], np.float32)
    assert grid_thresholds(labels, probabilities).tolist() == [GRID[0]]


def test_one_row_and_nothing_labelled():
    one = np.array([[1, 0, -1]])
    p = np.array([[0.7, 0.7, 0.7]], np.float32)
    assert grid_thresholds(one, p).tolist() == [GRID[0], 0.5, 0.5]
    assert optimal_thresholds(one, p).tolist() == [float(np.float32(0.7)), 0.5, 0.5]
    nothing = np.full((20, 3), -1)
    assert grid_thresholds(nothing, np.ones((20, 3), np.float32)).tolist() == [0.5] * 3
    assert optimal_thresholds(nothing, np.ones((20, 3), np.float32)).tolist() == [0.5] * 3
    assert optimal_thresholds(nothing[:0], np.ones((0, 3), np.float32)).tolist() == [0.5] * 3


def test_rows_without_a_probability_are_never_accepted():
    labels = np.array([[1], [1], [0], [0]], np.int8)
    p = np.array([[0.8], [np.nan], [0.6], [np.nan]], np.float32)
    assert grid_thresholds(labels, p).tolist() == [GRID[np.argmax([f1_score(labels, p >= t) for t in GRID])]]
    assert optimal_thresholds(labels, p).tolist() == pytest.approx([0.7])
    assert optimal_thresholds(labels, np.full_like(p, np.nan)).tolist() == [0.5]


def test_negative_rounding_errors_sort_below_zero():
    """A running mean of zeros may come out as -1e-9."""
    labels = np.array([[0], [1], [0], [0]])
    p = np.array([[-1e-9], [0.4], [-0.0], [0.0]], np.float32)
    assert optimal_thresholds(labels, p).tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("rows", [511, 512, 513, 3000])
def test_blocks_of_rows_are_all_counted(rows):
    random = np.random.default_rng(rows)
    labels = random.integers(-1, 2, (rows, 2))
    p = random.random((rows, 2)).astype(np.float32)
    for unit, found in enumerate(grid_thresholds(labels, p)):
        known = labels[:, unit] >= 0
        scores = [f1_score(labels[known, unit], p[known, unit].astype(float) >= t) for t in GRID]
        assert found == GRID[int(np.argmax(scores))]


def test_constant_output_gets_its_value_as_threshold():
    labels, p = np.array([[1], [0], [1]]), np.full((3, 1), 0.3, np.float32)
    assert optimal_thresholds(labels, p).tolist() == [float(np.float32(0.3))]


def cut_by_loop(labels, values):
    """Return the middle between the values on both sides of the best cut; the highest of equal cuts."""
    best, threshold, cuts = -1.0, 0.5, np.unique(values[(labels >= 0) & ~np.isnan(values)])[::-1].astype(float)
    for accepted, rejected in zip(cuts, [*cuts[1:], cuts[-1]], strict=True):
        decided = values >= accepted
        f1 = 2 * (decided & (labels == 1)).sum() / ((decided & (labels >= 0)).sum() + (labels == 1).sum())
        if f1 > best:
            best, threshold = f1, float((accepted + rejected) / 2)
    return threshold


@pytest.mark.parametrize("scale", [1, 1e-7, 30])
@pytest.mark.parametrize("decimals", [1, 9])
def test_optimal_thresholds_equal_a_loop_over_all_cuts(scale, decimals):
    """Also if most values share one bucket, are outside 0..1, or are equal."""
    random = np.random.default_rng(0)
    for rows in (1, 2, 9, 300):
        labels = random.integers(-1, 2, (rows, 8))
        labels[0] = 1
        p = (random.normal(0.3, 0.4, labels.shape).round(decimals) * scale).astype(np.float32)
        p[random.random(p.shape) < 0.1] = np.nan
        p[0] = 0.3 * scale
        expected = [cut_by_loop(labels[:, unit], p[:, unit]) for unit in range(8)]
        assert optimal_thresholds(labels, p).tolist() == expected
