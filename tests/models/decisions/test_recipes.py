import json

import pytest

from data_contracts.store.fingerprint import fingerprint
from models.decisions.recipes import DEFAULT, PAPER, ClassBias, PostProcessingRecipe, get_postprocessing_recipe


@pytest.mark.parametrize(
    ("name", "task", "parts"),
    [
        ("default", "expr", {}),
        ("default", "mtl", {}),
        ("paper", "expr", {"direction": "published"}),
        ("paper", "au", {"direction": "published", "units": "of whole rows"}),
        ("paper", "mtl", {"units": "of whole rows"}),
    ],
)
def test_named_recipes_have_the_fingerprints_of_earlier_versions(name, task, parts):
    assert get_postprocessing_recipe(name, task=task).fingerprint_parts(task) == {"tuning": name} | parts


def test_other_recipes_have_own_fingerprints_and_equal_what_their_json_describes():
    changed = [DEFAULT.replace(class_bias=ClassBias(2.0, 41, 3)), PAPER.replace(thresholds="exact")]
    found = {fingerprint(**one.fingerprint_parts("au")) for one in (*changed, DEFAULT, PAPER)}
    assert len(found) == 4
    for one in (*changed, PAPER):
        assert PostProcessingRecipe.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(ValueError, match="'windows'"):
        PostProcessingRecipe.from_dict({"name": "mine", "windows": 3})
    with pytest.raises(ValueError, match="expected paper or default, got 'best'"):
        get_postprocessing_recipe("best", task="au")
