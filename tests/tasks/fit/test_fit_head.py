import pytest

from data_contracts.details.datasets import FeaturesDetails, LabelsDetails
from data_contracts.errors import InputError
from data_contracts.store.manifest import Manifest
from data_contracts.store.store import Store
from models.recipes.registry import find_recipe
from tasks.fit.fit_head import HeadChoice, plan_fit_head
from tasks.fit.subject_features import FeaturesVariant


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
    (published,) = find_recipe("paper").variant(task, hidden_units=hidden_units).parts
    assert part == published.replace(features="both", seeds=2)


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("transformer", {"hidden_units": 130}, "expected hidden units divisible by 4 heads, got 130"),
        ("tcn", {"hidden_units": 0}, "temporal head: expected one size of hidden units, got 0"),
        ("paper", {"kind": "tcn"}, "temporal head: expected one size of hidden units, got 0"),
    ],
)
def test_layers_that_a_kind_of_head_cannot_have_are_refused_before_any_work(recipe, changes, message):
    with pytest.raises(InputError, match=f"^recipe {recipe}: .*{message}"):
        HeadChoice("va", find_recipe(recipe), **changes).head_recipe(features("enet_b0_8_best_vgaf"))


@pytest.mark.parametrize("task", ["expr", "va", "au", "mtl"])
def test_features_of_other_subjects_than_the_labelled_ones_are_refused_in_one_line(task, tmp_path):
    def labels(*subjects):
        return Manifest("f", "f", "p", 0, 0, {}, 0.0, LabelsDetails(subjects=subjects).to_json())

    variant = FeaturesVariant("lite0-1", "mtcnn-2", {name: [] for name in ("d", "a", "c", "b")})
    sets = {"train": labels("x", "y"), "validation": labels("z")}
    with pytest.raises(InputError, match=r"^features lite0-1 mtcnn-2: expected .*labels of .*among a, b, c, \.\.\.; "):
        plan_fit_head(Store(str(tmp_path)), variant, HeadChoice(task), labels=sets)
