import numpy as np
import pytest
from scipy.stats import bootstrap

from data_contracts.vocabulary import ACTION_UNITS
from models.decisions.evaluation import (
    bootstrap_intervals,
    calibration_of,
    count_rows,
    f1_of_thresholds,
    metrics_of_counts,
)
from models.heads.metrics import score_branch


def random_rows(branch, random, rows):
    """Labels, some of them missing, and decisions that agree with about half of them."""
    agrees = random.random(rows) < 0.5
    if branch == "va":
        labels = random.uniform(-1, 1, (rows, 2)).astype(np.float32)
        decisions = np.where(agrees[:, None], labels, random.uniform(-1, 1, labels.shape).astype(np.float32))
        labels[random.random(rows) < 0.1] = np.nan
        return labels, decisions
    size = (rows,) if branch == "expr" else (rows, len(ACTION_UNITS))
    classes = 8 if branch == "expr" else 2
    labels, decisions = random.integers(0, classes, size), random.integers(0, classes, size)
    decisions[agrees] = labels[agrees]
    labels[random.random(size) < 0.1] = -1
    return labels.astype(np.int8), decisions


@pytest.mark.parametrize("branch", ["expr", "va", "au"])
def test_metrics_of_counts_are_those_of_rows(branch):
    labels, decisions = random_rows(branch, np.random.default_rng(3), 400)
    parts = [slice(0, 100), slice(100, 101), slice(101, 400)]
    counts = sum(count_rows(branch, labels[part], decisions[part]) for part in parts)
    expected = score_branch(branch, labels, decisions)
    assert {name: float(value) for name, value in metrics_of_counts(branch, counts).items()} == pytest.approx(expected)


def test_metrics_without_labels_or_spread_are_zero():
    constant = count_rows("va", np.full((5, 2), 0.3, np.float32), np.full((5, 2), 0.3, np.float32))
    assert metrics_of_counts("va", constant)["mean_ccc"] == 0
    assert metrics_of_counts("expr", np.zeros((8, 8))) == dict.fromkeys(metrics_of_counts("expr", np.eye(8)), 0)
    assert metrics_of_counts("au", np.zeros((12, 4)))["mean_f1"] == 0


@pytest.mark.parametrize(("branch", "metric"), [("expr", "macro_f1"), ("va", "mean_ccc"), ("au", "mean_f1")])
def test_intervals_are_those_of_a_bootstrap_that_scores_all_rows_again(branch, metric):
    random = np.random.default_rng(8)
    videos = [random_rows(branch, random, rows) for rows in (40, 300, 80, 120, 60, 200, 90, 30, 50)]

    def score_again(*drawn):
        drawn = np.asarray(drawn[0], int)
        return score_branch(branch, *(np.concatenate([videos[at][part] for at in drawn]) for part in (0, 1)))[metric]

    expected = bootstrap(
        (np.arange(len(videos)),), score_again, n_resamples=60, vectorized=False, method="BCa",
        rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    counts = np.stack([count_rows(branch, *video) for video in videos])
    found = bootstrap_intervals(counts, lambda sums: metrics_of_counts(branch, sums), resamples=60, seed=5)[metric]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.low < found.value < found.high


def test_intervals_of_constant_metrics_and_of_one_video():
    counts = np.zeros((3, 8, 8))
    counts[:, 0, 0], counts[:, 1, 0] = [5, 6, 7], [1, 2, 9]

    def metrics(sums):
        return metrics_of_counts("expr", sums)

    found = bootstrap_intervals(counts, metrics)
    assert (found["f1_Disgust"].low, found["f1_Disgust"].high) == (0, 0)
    assert found["accuracy"].low < found["accuracy"].high
    assert found == bootstrap_intervals(counts, metrics), "equal counts give equal intervals"
    alone = bootstrap_intervals(counts[:1], metrics)["accuracy"]
    assert alone.value == 5 / 6 and alone.low is None and alone.high is None


def test_calibration_is_that_of_a_loop_over_bins():
    random = np.random.default_rng(2)
    probability = np.append(random.random(500) ** 2, [0.0, 1.0])
    is_right = random.random(len(probability)) < probability**2
    found = calibration_of(probability, is_right)
    error, bins = 0.0, []
    for low in np.arange(15) / 15:
        inside = (probability >= low) & ((probability < low + 1 / 15) | (low + 1 / 15 > 0.999))
        if inside.any():
            bins.append((probability[inside].mean(), is_right[inside].mean(), inside.sum()))
            error += inside.mean() * abs(is_right[inside].mean() - probability[inside].mean())
    assert found.error == pytest.approx(error) and error > 0.05
    assert np.column_stack([found.mean_probability, found.share, found.rows]) == pytest.approx(np.array(bins))


def test_f1_of_thresholds_is_that_of_decisions():
    random = np.random.default_rng(4)
    labels, values = random.integers(-1, 2, 300).astype(np.int8), random.random(300).round(2).astype(np.float32)
    # As of subjects without any face.
    values[::7] = np.nan
    thresholds = [0.0, 0.25, 0.5, 0.995]
    whole = np.full((300, 12), -1, np.int8)
    whole[:, 0] = labels
    expected = [
        score_branch("au", whole, np.repeat((values.astype(float) >= t)[:, None], 12, 1).astype(np.int8))["f1_AU1"]
        for t in thresholds
    ]
    assert f1_of_thresholds(labels, values, thresholds) == pytest.approx(np.array(expected))
