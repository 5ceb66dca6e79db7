import json

import pytest

from data_contracts.store.fingerprint import fingerprint
from models.decisions.recipes import DEFAULT, PAPER, ClassBias, PostProcessingRecipe, get_postprocessing_recipe


@pytest.mark.parametrize(
    ("task", "parts"),
    [
        ("expr", {"direction": "published"}),
        ("au", {"direction": "published", "units": "of whole rows"}),
        ("mtl", {"units": "of whole rows"}),
    ],
)
def test_recipe_paper_has_the_fingerprint_of_earlier_versions(task, parts):
    assert get_postprocessing_recipe("paper", task=task).fingerprint_parts(task) == {"tuning": "paper"} | parts


def test_other_recipes_have_own_fingerprints_and_equal_what_their_json_describes():
    changed = [
        DEFAULT.replace(class_bias=ClassBias(2.0, 41, 3), smoothing_per_unit=True),
        PAPER.replace(thresholds="exact"),
    ]
    found = {fingerprint(**one.fingerprint_parts("au")) for one in (*changed, DEFAULT, PAPER)}
    assert len(found) == 4
    for one in (*changed, PAPER):
        assert PostProcessingRecipe.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(ValueError, match="'windows'"):
        PostProcessingRecipe.from_dict({"name": "mine", "windows": 3})
    with pytest.raises(ValueError, match="expected paper or default, got 'best'"):
        get_postprocessing_recipe("best", task="au")
