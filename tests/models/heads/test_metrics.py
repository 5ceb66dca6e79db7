import numpy as np
import pytest

from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS
from models.heads import metrics

RANDOM = np.random.default_rng(3)


def f1_by_hand(labels, decisions):
    """F1 from counts: 2 hits / (positives + decided), 0 without either."""
    hits, total = ((labels & decisions).sum()), labels.sum() + decisions.sum()
    return 2 * hits / total if total else 0.0


@pytest.mark.parametrize("classes", [8, 3, 1])
def test_expression_scores_by_hand_count_absent_classes_as_0(classes):
    labels, decisions = RANDOM.integers(0, classes, 500), RANDOM.integers(0, classes, 500)
    found = metrics.score_branch("expr", labels, decisions)
    expected = [f1_by_hand(labels == number, decisions == number) for number in range(8)]
    assert [found[f"f1_{name}"] for name in EXPRESSIONS] == pytest.approx(expected, abs=1e-15)
    assert found["macro_f1"] == pytest.approx(sum(expected) / 8) and expected[classes:] == [0.0] * (8 - classes)
    assert found["accuracy"] == (labels == decisions).mean()
    assert metrics.main_score("expr", labels, decisions) == pytest.approx(found["macro_f1"], abs=1e-15)


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
    labels[:, 5], decisions[:, 5], labels[:, 7] = 0, 0, -1
    found = metrics.score_branch("au", labels, decisions)
    known = labels >= 0
    expected = [f1_by_hand((labels[k, u] == 1), (decisions[k, u] == 1)) for u, k in enumerate(known.T)]
    assert [found[f"f1_{name}"] for name in ACTION_UNITS] == pytest.approx(expected, abs=1e-15)
    assert expected[5] == expected[7] == 0 and found["mean_f1"] == pytest.approx(np.mean(expected))
    assert metrics.f1_per_unit(labels, decisions) == pytest.approx(np.array(expected), abs=1e-15)
    assert metrics.main_score("au", labels, decisions) == pytest.approx(found["mean_f1"], abs=1e-15)


def test_classes_of_photos_without_label_or_with_few_photos():
    classes = np.array([0] * 30 + [1] * 20 + [2] * 3 + [-1] * 5)
    decided = np.array([0] * 30 + [0] * 5 + [1] * 15 + [2] * 3 + [1] * 5)
    found = metrics.score_classes(classes, decided, ("a", "b", "c", "absent"))
    assert found.recall == {"a": 1.0, "b": 0.75, "c": 1.0, "absent": None}
    assert found.accuracy == 48 / 53 and found.balanced_accuracy == (1 + 0.75) / 2
    assert found.pictures == {"a": 30, "b": 20, "c": 3, "absent": 0}
    assert found.confusion == [[30, 0, 0, 0], [5, 15, 0, 0], [0, 0, 3, 0], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="at least one labelled row"):
        metrics.score_classes(np.array([-1]), np.array([0]), ("a", "b"))


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
        metrics.score_branch("expr", np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match=r"classes 0\.\.7"):
        metrics.score_branch("expr", np.array([8]), np.array([0]))
