import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from models.heads import metrics

RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize("classes", [8, 3, 1])
def test_expression_metrics_equal_sklearn(classes):
    labels, decisions = RANDOM.integers(0, classes, 500), RANDOM.integers(0, classes, 500)
    every = list(range(8))
    expected = f1_score(labels, decisions, labels=every, average=None, zero_division=0)
    np.testing.assert_allclose(metrics.f1_per_class(labels, decisions), expected)
    assert metrics.macro_f1(labels, decisions) == pytest.approx(expected.mean())
    assert metrics.accuracy(labels, decisions) == accuracy_score(labels, decisions)
    found = metrics.confusion_matrix(labels, decisions, class_count=8)
    assert (found == sklearn_confusion(labels, decisions, labels=every)).all()


def slow_ccc(x, y):
    n, mx, my = len(x), sum(x) / len(x), sum(y) / len(y)
    vx, vy = sum((a - mx) ** 2 for a in x) / n, sum((b - my) ** 2 for b in y) / n
    covariance = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / n
    return 2 * covariance / (vx + vy + (mx - my) ** 2)


def test_ccc_by_hand_and_by_its_definition():
    assert metrics.ccc(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])) == pytest.approx(1)
    assert metrics.ccc(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # Means 2 and 3, variances 2/3 each, covariance 2/3: 2 * 2/3 / (4/3 + 1) = 4/7.
    assert metrics.ccc(np.array([1.0, 2, 3]), np.array([2.0, 3, 4])) == pytest.approx(4 / 7)
    assert metrics.ccc(np.zeros(5), np.zeros(5)) == 0
    x, y = RANDOM.normal(size=(200, 2)), RANDOM.normal(size=(200, 2))
    y += x
    assert metrics.ccc(x[:, 0], y[:, 0]) == pytest.approx(slow_ccc(x[:, 0], y[:, 0]))
    assert metrics.mean_ccc(x, y) == pytest.approx(np.mean([slow_ccc(x[:, i], y[:, i]) for i in (0, 1)]))


def test_unlabelled_action_units_are_ignored():
    labels, decisions = RANDOM.integers(-1, 2, (400, 12)), RANDOM.integers(0, 2, (400, 12))
    labels[:, 5] = 0
    for unit, value in enumerate(metrics.f1_per_unit(labels, decisions)):
        known = labels[:, unit] >= 0
        expected = f1_score(labels[known, unit], decisions[known, unit], zero_division=0)
        assert value == pytest.approx(expected)
    found = metrics.score_branch("au", labels, decisions)["mean_f1"]
    assert found == pytest.approx(metrics.f1_per_unit(labels, decisions).mean())


def test_scores_by_name_ignore_unlabelled_rows():
    labels = {
        "expr": np.array([0, 1, -1]),
        "va": np.array([[0.1, 0.2], [0.3, -0.4], [np.nan, np.nan]]),
        "au": np.array([[1] * 12, [0] * 12, [-1] * 12]),
    }
    decisions = {"expr": np.array([0, 1, 5]), "va": labels["va"].copy(), "au": np.array([[1] * 12, [0] * 12, [1] * 12])}
    decisions["va"][2] = 9
    figures = metrics.score_branches(labels, decisions)
    assert figures["accuracy"] == 1 and figures["macro_f1"] == pytest.approx(2 / 8)
    assert figures["mean_ccc"] == pytest.approx(1) and figures["mean_f1"] == 1
    assert figures["p_mtl"] == pytest.approx(1 + 1 + 0.25)
    assert figures["f1_Neutral"] == 1 and figures["f1_Other"] == 0


def test_scoring_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one labelled row"):
        metrics.score_branch("expr", np.array([-1]), np.array([0]))
    with pytest.raises(ValueError, match="the same shape"):
        metrics.accuracy(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match=r"classes 0\.\.7"):
        metrics.macro_f1(np.array([8]), np.array([0]))
