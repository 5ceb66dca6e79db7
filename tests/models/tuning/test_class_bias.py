import numpy as np
import pytest

from models.decisions.recipes import ClassBias
from models.heads.metrics import main_score
from models.tuning.class_bias import fit_class_bias, scores_of_bias


def rows(count=2_000, seed=0):
    """Rows of eight classes whose probabilities are too low for two of them."""
    random = np.random.default_rng(seed)
    labels = random.choice(8, count, p=[0.3, 0.05, 0.05, 0.1, 0.1, 0.1, 0.1, 0.2]).astype(np.int8)
    logits = (1.5 * np.eye(8)[labels] + random.normal(0, 1, (count, 8)) - [0, 1.5, 1.0, 0, 0, 0, 0, 0]).astype("f4")
    return labels, (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype("f4")


@pytest.mark.parametrize("gated_share", [0.0, 0.3])
def test_scores_equal_those_of_decisions(gated_share):
    labels, logarithms = rows()
    logarithms = np.round(logarithms, 1)  # many sums are equal
    random = np.random.default_rng(1)
    gated = np.where(random.random(len(labels)) < gated_share, random.integers(0, 7, len(labels)), -1)
    search, bias = ClassBias(2.0, 9, 1), random.normal(0, 0.5, 8).round(1)
    for position in (0, 3, 7):
        found = scores_of_bias(labels, logarithms, bias, position, search, gated=gated)
        for value, score in zip(search.grid, found, strict=True):
            trial = bias.copy()
            trial[position] = value
            decided = np.where(gated >= 0, gated, (logarithms + trial).argmax(axis=1))
            assert score == pytest.approx(main_score("expr", labels, decided), abs=1e-12)


def test_the_bias_raises_neglected_classes_and_its_score():
    labels, logarithms = rows()
    bias = fit_class_bias(labels, logarithms, ClassBias(2.0, 41, 3))
    before, after = (main_score("expr", labels, (logarithms + one).argmax(axis=1)) for one in (0, bias))
    assert after > before + 0.03
    assert min(bias[1], bias[2]) > bias[3:].mean() and abs(bias).max() <= 2
