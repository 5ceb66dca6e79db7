from dataclasses import replace

import numpy as np
import pytest

from models.decisions.postprocessing import BranchRule
from models.decisions.smoothing import from_logits
from models.tuning.calibration import calibration_error, fit_scaling, scores_by_coverage, with_scaling

RANDOM = np.random.default_rng(0)


def overconfident_expressions(count=4_000):
    """Labels that follow the softmax of logits, and the softmax of twice these logits."""
    logits = RANDOM.normal(0, 1.5, (count, 8))
    chances = from_logits("expr", logits).astype("f8")
    labels = (RANDOM.random((count, 1)) > chances.cumsum(axis=1)).sum(axis=1).clip(0, 7)
    return labels.astype(np.int8), from_logits("expr", 2 * logits)


def shifted_units(count=4_000):
    """Labels of units, and probabilities whose logits are too high and too flat, as those of weighted losses."""
    logits = RANDOM.normal(-1, 1, (count, 12))
    labels = (RANDOM.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    return labels, from_logits("au", 0.5 * logits + 1.5)


def test_the_temperature_of_overconfident_expressions_is_found():
    labels, probability = overconfident_expressions()
    scaling = fit_scaling("expr", labels, probability)
    assert 1 / scaling.slopes[0] == pytest.approx(2, rel=0.08)
    errors = [calibration_error("expr", labels, one) for one in (probability, scaling.apply("expr", probability))]
    assert errors[0] > 0.1 and errors[1] < 0.03


def test_slope_and_offset_of_each_unit_are_found():
    labels, probability = shifted_units()
    scaling = fit_scaling("au", labels, probability)
    np.testing.assert_allclose(scaling.slopes, 2, rtol=0.2)
    np.testing.assert_allclose(scaling.offsets, -3, rtol=0.2)
    errors = [calibration_error("au", labels, one) for one in (probability, scaling.apply("au", probability))]
    assert errors[0] > 0.2 and errors[1] < 0.03
    labels[:, 4] = 0
    assert (fit_scaling("au", labels, probability).slopes[4], fit_scaling("va", labels, probability)) == (1.0, None)


@pytest.mark.parametrize(("branch", "made"), [("expr", overconfident_expressions), ("au", shifted_units)])
def test_calibration_changes_no_decision(branch, made):
    labels, probability = made()
    rule = BranchRule(class_bias=tuple(np.linspace(-0.5, 0.5, 8)), thresholds=tuple(np.linspace(0.3, 0.8, 12)))
    scaled = with_scaling(branch, rule, fit_scaling(branch, labels, probability))
    assert scaled.scaling is not None and replace(scaled, scaling=None) != rule
    calibrated = scaled.smooth(branch, probability, frames_per_second=30)
    assert (rule.decide(branch, probability) == scaled.decide(branch, calibrated)).mean() > 0.9999


@pytest.mark.parametrize(("branch", "made"), [("expr", overconfident_expressions), ("au", shifted_units)])
def test_certain_decisions_are_more_often_right(branch, made):
    labels, probability = made()
    probability = fit_scaling(branch, labels, probability).apply(branch, probability)
    found = scores_by_coverage(branch, labels, probability, BranchRule().decide(branch, probability))
    assert [one.coverage for one in found] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert found[-1].accuracy > found[4].accuracy > found[0].accuracy + 0.05
    assert found[0].least_probability < found[-1].least_probability


@pytest.mark.parametrize(("branch", "made"), [("expr", overconfident_expressions), ("au", shifted_units)])
def test_labelled_rows_without_a_probability_count_as_uncertain(branch, made):
    """As those of a subject without any face, which is decided nevertheless."""
    labels, probability = made()
    before = calibration_error(branch, labels, probability)
    labels, probability = np.concatenate([labels, labels]), np.concatenate([probability, np.nan * probability])
    assert calibration_error(branch, labels, probability) == pytest.approx(before)
    found = scores_by_coverage(branch, labels, probability, BranchRule().decide(branch, probability))
    least = [one.least_probability for one in found]
    assert least[:5] == [0] * 5 and least[-1] > 0 and found[-1].accuracy > found[0].accuracy
    assert calibration_error(branch, labels, np.nan * probability) == 0


def test_units_without_labels_do_not_lower_the_calibration_error():
    labels, probability = shifted_units()
    labels[:, 3] = -1
    others = np.arange(12) != 3
    expected = calibration_error("au", labels[:, others], probability[:, others])
    assert calibration_error("au", labels, probability) == pytest.approx(expected)
