import json

import numpy as np
import pytest

from data_contracts.vocabulary import EXPRESSIONS
from models.decisions.postprocessing import (
    BranchRule,
    PostProcessing,
    Scaling,
    backbone_expressions,
    untuned_postprocessing,
)
from models.decisions.smoothing import Smoothing, smooth
from models.decisions.subject_outputs import SubjectOutputs

PRESENT = np.array([True, False, True])
OUTPUTS = {
    "expr": np.array([[0.1] * 7 + [0.3], [np.nan] * 8, [0.65] + [0.05] * 7], np.float32),
    "va": np.array([[0.5, -0.5], [np.nan, np.nan], [1.5, 0.5]], np.float32),
    "au": np.array([[0.2] * 12, [np.nan] * 12, [0.8] * 12], np.float32),
}


def test_decisions_by_hand():
    decided = SubjectOutputs("a", OUTPUTS, PRESENT).decide(untuned_postprocessing("mtl"))
    assert decided["expr"].tolist() == [7, 0, 0]
    np.testing.assert_allclose(decided["va"], [[0.5, -0.5], [1.0, 0.0], [1.0, 0.5]])
    assert decided["au"][:, 0].tolist() == [0, 1, 1]


def test_bias_and_thresholds_change_decisions():
    bias = (0.0,) * 7 + (5.0,)
    rule = PostProcessing("expr", rules={"expr": BranchRule(class_bias=bias)})
    assert SubjectOutputs("a", OUTPUTS, PRESENT).decide(rule)["expr"].tolist() == [7, 7, 7]
    rule = PostProcessing("au", rules={"au": BranchRule(thresholds=(0.9,) + (0.1,) * 11)})
    assert SubjectOutputs("a", OUTPUTS, PRESENT).decide(rule)["au"][2].tolist() == [0] + [1] * 11


def test_smoothing_comes_after_interpolation():
    rule = PostProcessing("va", rules={"va": BranchRule((Smoothing("mean", 1),))})
    np.testing.assert_allclose(rule.smooth(OUTPUTS, PRESENT, frames_per_second=30)["va"][:, 0], [0.75, 1.0, 1.25])


def test_subject_without_any_face_gets_decisions():
    decided = SubjectOutputs("a", OUTPUTS, np.zeros(3, bool)).decide(untuned_postprocessing("mtl"))
    assert decided["expr"].tolist() == [0, 0, 0]
    assert (decided["va"] == 0).all() and (decided["au"] == 0).all()


def test_windows_in_seconds_follow_the_frame_rate_and_units_have_their_own():
    values = {"au": np.random.default_rng(0).random((60, 12)).astype("f4")}
    seconds, frames = Smoothing("mean", 0.2, "seconds"), Smoothing("mean", 10)
    rule = PostProcessing("au", rules={"au": BranchRule((seconds,) * 11 + (frames,))})
    everywhere = np.ones(60, bool)
    for rate, width in ((25, 5), (60, 12)):
        found = rule.smooth(values, everywhere, frames_per_second=rate)["au"]
        assert (found[:, :11] == smooth(values["au"][:, :11], method="mean", half_width_frames=width)).all()
        assert (found[:, 11:] == smooth(values["au"][:, 11:], method="mean", half_width_frames=10)).all()
    assert "AU26: mean of 21 frames" in rule.rules["au"].describe_smoothing()


def test_the_gate_prefers_a_certain_backbone():
    names = ("Anger", "Contempt", "Happiness", "Neutral", "valence")
    logits = np.log([[0.05, 0.05, 0.85, 0.05, 3], [0.05, 0.85, 0.05, 0.05, 3], [0.25, 0.05, 0.2, 0.5, 3]])
    backbone = backbone_expressions(logits, names)
    happiness = EXPRESSIONS.index("Happiness")
    np.testing.assert_allclose(backbone[:, happiness], [0.85, 0.05, 0.2], rtol=1e-5)
    assert backbone[1].max() < 0.1 and not backbone[:, EXPRESSIONS.index("Other")].any()
    head = {"expr": np.tile(np.eye(8, dtype="f4")[7], (3, 1))}
    for level, expected in ((0.8, [happiness, 7, 7]), (0.4, [happiness, 7, 0]), (0.9, [7, 7, 7])):
        rule = PostProcessing("expr", rules={"expr": BranchRule(gate_level=level)})
        decided = SubjectOutputs("a", head, np.ones(3, bool), backbone=backbone).decide(rule)["expr"]
        assert decided.tolist() == expected
    with pytest.raises(ValueError, match="expressions of the backbone"):
        SubjectOutputs("a", head, np.ones(3, bool)).decide(rule)
    with pytest.raises(ValueError, match="expected a backbone with classes"):
        backbone_expressions(logits, ("identity",))


def test_a_rule_of_an_earlier_version_is_read():
    fields = {"method": "mean", "half_width_frames": 7, "class_bias": [0.5] + [0.0] * 7, "thresholds": [0.5] * 12}
    found = PostProcessing.from_dict({"task": "expr", "direction": "linear", "rules": {"expr": fields}})
    assert found.rules["expr"] == BranchRule((Smoothing("mean", 7),), class_bias=(0.5, *[0.0] * 7))


def test_round_trip_through_json_and_wrong_values():
    units = tuple(Smoothing("median", n / 10, "seconds", "logit") for n in range(12))
    scaling = Scaling((2.0,) * 12, (0.5,) * 12)
    rule = PostProcessing(
        "au", "published", {"au": BranchRule(units, thresholds=tuple(np.arange(12) / 12), scaling=scaling)}
    )
    assert PostProcessing.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    for wrong in ({}, {"task": "au", "direction": "linear", "rules": {}}, {"task": "x", "direction": "y", "rules": {}}):
        with pytest.raises(ValueError, match="expected"):
            PostProcessing.from_dict(wrong)
    with pytest.raises(ValueError, match="8 biases"):
        BranchRule(class_bias=(1.0,))
