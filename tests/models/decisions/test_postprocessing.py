import json

import numpy as np
import pytest

from models.decisions.postprocessing import BranchRule, PostProcessing, untuned_postprocessing

PRESENT = np.array([True, False, True])
OUTPUTS = {
    "expr": np.array([[0.1] * 7 + [0.3], [np.nan] * 8, [0.65] + [0.05] * 7], np.float32),
    "va": np.array([[0.5, -0.5], [np.nan, np.nan], [1.5, 0.5]], np.float32),
    "au": np.array([[0.2] * 12, [np.nan] * 12, [0.8] * 12], np.float32),
}


def test_decisions_by_hand():
    decided = untuned_postprocessing("mtl").apply(OUTPUTS, PRESENT)
    assert decided["expr"].tolist() == [7, 0, 0]
    np.testing.assert_allclose(decided["va"], [[0.5, -0.5], [1.0, 0.0], [1.0, 0.5]])
    assert decided["au"][:, 0].tolist() == [0, 1, 1]


def test_bias_and_thresholds_change_decisions():
    bias = (0.0,) * 7 + (5.0,)
    rule = PostProcessing("expr", rules={"expr": BranchRule(class_bias=bias)})
    assert rule.apply(OUTPUTS, PRESENT)["expr"].tolist() == [7, 7, 7]
    rule = PostProcessing("au", rules={"au": BranchRule(thresholds=(0.9,) + (0.1,) * 11)})
    assert rule.apply(OUTPUTS, PRESENT)["au"][2].tolist() == [0] + [1] * 11


def test_smoothing_comes_after_interpolation():
    rule = PostProcessing("va", rules={"va": BranchRule("mean", 1)})
    np.testing.assert_allclose(rule.smooth(OUTPUTS, PRESENT)["va"][:, 0], [0.75, 1.0, 1.25])


def test_subject_without_any_face_gets_decisions():
    decided = untuned_postprocessing("mtl").apply(OUTPUTS, np.zeros(3, bool))
    assert decided["expr"].tolist() == [0, 0, 0]
    assert (decided["va"] == 0).all() and (decided["au"] == 0).all()


def test_round_trip_through_json_and_wrong_values():
    rule = PostProcessing("au", "published", {"au": BranchRule("median", 7, thresholds=tuple(np.arange(12) / 12))})
    assert PostProcessing.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    for wrong in ({}, {"task": "au", "direction": "linear", "rules": {}}, {"task": "x", "direction": "y", "rules": {}}):
        with pytest.raises(ValueError, match="expected"):
            PostProcessing.from_dict(wrong)
    with pytest.raises(ValueError, match="8 biases"):
        BranchRule(class_bias=(1.0,))
