import numpy as np
import pytest

from models.backbones.registry import AFFECTNET_7, AFFECTNET_8, COMMON_5, IMAGENET_1000
from models.heads.metrics import EXPRESSIONS
from models.heads.zero_shot import zero_shot_head


@pytest.mark.parametrize("names", [COMMON_5, AFFECTNET_7, AFFECTNET_8, (*AFFECTNET_8, "valence", "arousal")])
def test_each_class_becomes_the_expression_of_its_name(names):
    head = zero_shot_head(names, 4)
    logits = 9 * np.eye(len(names), dtype=np.float32)
    found = head.predict(np.zeros((len(names), 4), np.float32), logits)["expr"]
    for row, name in enumerate(names):
        if name in EXPRESSIONS:
            assert EXPRESSIONS[found[row].argmax()] == name
    unknown = [at for at, name in enumerate(EXPRESSIONS) if name not in names]
    assert "Other" in [EXPRESSIONS[at] for at in unknown] and (found[:, unknown] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_a_backbone_without_expressions_is_refused():
    with pytest.raises(ValueError, match="expected a backbone with classes such as Neutral"):
        zero_shot_head(IMAGENET_1000, 1280)
