import pytest

from data_contracts.details.datasets import FeaturesDetails
from models.recipes.registry import find_recipe, get_recipe
from tasks.fit.fit_head import HeadChoice


def features(backbone_name, published_scores=None):
    return FeaturesDetails(first_frame=1, frame_count=5, backbone_name=backbone_name, published_scores=published_scores)


@pytest.mark.parametrize(
    ("details", "scores"),
    [
        # Features of earlier versions name the backbone only.
        (features("mobilenet_7"), "probabilities"),
        (features("mobilenet_v1"), "probabilities"),
        (features("enet_b0_8_best_vgaf"), "logits"),
        # The metadata of a weights file decides, and so does a simulation.
        (features("mobilenet_v1", "logits"), "logits"),
        (features("simulated_mobilenet", "probabilities"), "probabilities"),
        (features("simulated_enet_b0", "logits"), "logits"),
        (features("simulated_enet_b0"), "logits"),
    ],
)
def test_paper_takes_the_scores_that_were_published_for_the_backbone(details, scores):
    for task in ("va", "mtl"):
        (paper,) = HeadChoice(task, find_recipe("paper")).head_recipe(details).parts
        assert paper.scores == scores
        default = HeadChoice(task, features="scores").head_recipe(details)
        assert {part.scores for part in default.parts} == {"logits"}


@pytest.mark.parametrize("task", ["expr", "va", "au", "mtl"])
@pytest.mark.parametrize("hidden_units", [0, 64])
def test_hidden_units_select_the_published_variant(task, hidden_units):
    choice = HeadChoice(task, find_recipe("paper"), features="both", hidden_units=hidden_units, seeds=2)
    (part,) = choice.head_recipe(features("enet_b0_8_best_vgaf")).parts
    (published,) = get_recipe("paper", task=task, hidden_units=hidden_units).parts
    assert part == published.replace(features="both", seeds=2)
