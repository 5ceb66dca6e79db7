"""What predicts the frames of new videos: backbones, heads and post-processings."""

import shutil

import pytest

from data_contracts.errors import InputError
from data_contracts.store.bundles import list_bundles, write_bundle
from data_contracts.store.store import Store
from models.backbones.registry import COMMON_5
from models.heads.head import BranchConfig, HeadConfig, head_to_bytes
from models.heads.mlp import MlpHead, zero_shot_heads
from tasks.backbones import BackboneChoice
from tasks.extract.crop_faces import CropParams
from tasks.fit.predictors import PredictorRequest, choose_predictors
from tests.backbone_files import WITH_AFFECT, backbone_bytes, damaged_files, write_trained_backbone
from tests.benchmarks.generated_store import fill_store, make_videos
from tests.details_factory import head_details

TRAINED = "efficientnet_lite0-emotion-12345678"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def own_weights(tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(backbone_bytes())
    return str(path)


def extract(store, tmp_path, name, weights=None):
    """Write features of one video as ``extract`` does."""
    backbone = BackboneChoice.find(name, weights, store=store)
    fill_store(store, make_videos(tmp_path / "videos", 1), backbone=backbone)
    return backbone


def add_head(store, backbone, name="expr-default-1", **changes):
    """Write a head that was fitted on features of a backbone."""
    head = zero_shot_heads(COMMON_5, backbone.spec.embedding_size)["expr"]
    details = head_details(
        "expr",
        backbone=backbone.variant,
        backbone_name=backbone.name,
        weights=backbone.weights,
        precision=backbone.precision,
    )
    return write_bundle(store, f"heads/{name}", head_to_bytes(head) | changes, fingerprint=name, details=details)


def chosen(store, **request):
    """Return names of the heads, name and weights of the backbone, and the reason for it."""
    (found,) = choose_predictors(store, PredictorRequest(**request))
    return [one.head.name.rsplit("-", 1)[0] for one in found.heads], found.features[0].backbone, found.why


def test_an_empty_store_takes_the_bundled_backbone(store):
    names, backbone, why = chosen(store)
    assert names == ["expr-zero-shot"] and backbone == BackboneChoice("emotion_lite0") and why.startswith("bundled")
    assert chosen(store)[1] == backbone and len(list_bundles(store, "heads")) == 1


def test_the_backbone_that_the_store_was_extracted_with_predicts(store, tmp_path, own_weights):
    extract(store, tmp_path, "emotion_lite0", own_weights)
    _, backbone, why = chosen(store)
    assert (backbone.name, backbone.weights) == ("emotion_lite0", own_weights) and "has features of this" in why
    assert store.manifests("features", backbone=backbone.variant), "no other features would be computed"
    with pytest.raises(InputError, match=r"own.safetensors: .*name a backbone with --backbone and --weights"):
        (tmp_path / "own.safetensors").unlink()
        choose_predictors(store, PredictorRequest())
    (tmp_path / "own.safetensors").write_bytes(backbone_bytes(seed=1))
    with pytest.raises(InputError, match="expected the weights that they were computed with"):
        choose_predictors(store, PredictorRequest())


def test_several_extracted_backbones_are_listed_and_the_named_one_predicts(store, tmp_path, own_weights):
    extract(store, tmp_path, "emotion_lite0")
    extract(store, tmp_path, "efficientnet_lite0")
    assert chosen(store)[1] == BackboneChoice("emotion_lite0"), "classes of ImageNet predict nothing"
    extract(store, tmp_path, "emotion_lite0", own_weights)
    message = rf"choose one: --backbone emotion_lite0; --backbone emotion_lite0 --weights {own_weights}"
    with pytest.raises(InputError, match=message):
        choose_predictors(store, PredictorRequest())
    assert chosen(store, backbone="emotion_lite0")[1].weights is None
    assert chosen(store, weights=own_weights)[1] == BackboneChoice("emotion_lite0", own_weights)


def test_backbones_of_pretrain_are_found_by_name_and_predict_valence_and_arousal(store, tmp_path):
    write_trained_backbone(store, "efficientnet_lite0-identity-12345678", ("person 1", "person 2"))
    assert chosen(store)[2].startswith("bundled")
    write_trained_backbone(store, TRAINED, WITH_AFFECT)
    names, backbone, why = chosen(store)
    assert names == ["expr-zero-shot", "va-zero-shot"] and "pretrain wrote this backbone" in why
    assert backbone.name == "efficientnet_lite0" and backbone.weights.endswith(
        f"backbones/{TRAINED}/backbone.safetensors"
    )
    assert chosen(store, backbone="efficientnet_lite0-emotion")[1] == backbone
    assert extract(store, tmp_path, TRAINED) == backbone and chosen(store)[1] == backbone
    write_trained_backbone(store, TRAINED[:-1] + "9", COMMON_5, seed=1)
    assert chosen(store)[1] == backbone, "the store has features of it alone"
    shutil.rmtree(tmp_path / "store" / "features")
    with pytest.raises(InputError, match=f"pretrain wrote several backbones that predict: {TRAINED}, .*--backbone"):
        choose_predictors(store, PredictorRequest())
    for request, message in {
        ("efficientnet_lite0-emotion", None): r"several match: efficientnet_lite0-emotion-12345678, .*9",
        ("typo", None): r"--backbone typo: expected .*found none",
        (TRAINED, "own.safetensors"): r"--weights own.safetensors: backbone .* has its own weights",
        ("efficientnet_lite0-identity-12345678", None): "expected a backbone with classes such as Neutral",
        ("efficientnet_lite0", None): "expected a backbone with classes such as Neutral",
    }.items():
        with pytest.raises(InputError, match=message):
            choose_predictors(store, PredictorRequest(backbone=request[0], weights=request[1]))


def test_a_damaged_trained_backbone_is_refused_and_the_bundled_one_does_not_take_its_place(store, tmp_path):
    write_trained_backbone(store, TRAINED, COMMON_5)
    with open(tmp_path / "store" / "backbones" / TRAINED / "backbone.safetensors", "r+b") as file:
        file.truncate(1000)
    for backbone in (None, "efficientnet_lite0-emotion"):
        with pytest.raises(InputError, match=f"backbones/{TRAINED}: expected the files that pretrain wrote"):
            choose_predictors(store, PredictorRequest(backbone=backbone))
    assert chosen(store, backbone="emotion_lite0")[0] == ["expr-zero-shot"]


def test_heads_decide_the_backbone_and_a_contradiction_is_refused(store, tmp_path, own_weights):
    own = BackboneChoice.find("emotion_lite0", own_weights)
    add_head(store, own)
    extract(store, tmp_path, "emotion_lite0")
    names, backbone, why = chosen(store)
    assert (names, backbone) == (["expr-default"], own) and "heads were fitted on" in why
    assert chosen(store, weights=own_weights)[1] == own
    with pytest.raises(InputError, match=r"--backbone emotion_lite0: .*found heads: expr-default-1 on emotion_lite0-"):
        choose_predictors(store, PredictorRequest(backbone="emotion_lite0"))
    with pytest.raises(InputError, match="--backbone emotion_lite0: head expr-default-1 was fitted on features of"):
        choose_predictors(store, PredictorRequest(heads=["expr-default-1"], backbone="emotion_lite0"))


def test_a_named_backbone_selects_among_heads(store, own_weights):
    add_head(store, BackboneChoice.find("emotion_lite0", own_weights))
    add_head(store, BackboneChoice("emotion_lite0"), "expr-default-2")
    with pytest.raises(InputError, match="several serve expr"):
        choose_predictors(store, PredictorRequest())
    (found,) = choose_predictors(store, PredictorRequest(weights=own_weights))
    assert [one.head.name for one in found.heads] == ["expr-default-1"] and found.unused == {
        "expr-default-2": "features of another backbone"
    }


def test_weights_that_moved_are_found_in_the_store_or_named(store, tmp_path, own_weights):
    write_trained_backbone(store, TRAINED, COMMON_5)
    add_head(store, BackboneChoice.find(TRAINED, None, store=store))
    add_head(store, BackboneChoice.find("emotion_lite0", own_weights), "expr-default-2")
    moved = Store(shutil.move(tmp_path / "store", tmp_path / "moved"))
    backbone = chosen(moved, heads=["expr-default-1"])[1]
    assert backbone.weights == str(tmp_path / "moved" / "backbones" / TRAINED / "backbone.safetensors")
    named = shutil.move(own_weights, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"expected the weights .*own.safetensors, found nothing there.*--weights"):
        choose_predictors(moved, PredictorRequest(heads=["expr-default-2"]))
    assert chosen(moved, heads=["expr-default-2"], weights=str(named))[1].weights == str(named)


def test_damaged_weights_are_refused(store, tmp_path):
    for message, path in damaged_files(tmp_path / "damaged").items():
        with pytest.raises(InputError, match=rf"{path}: .*{message}|{path}: {message}"):
            choose_predictors(store, PredictorRequest(weights=str(path)))
    assert not list_bundles(store, "heads")


def test_damaged_heads_are_refused_and_no_other_head_takes_their_place(store, tmp_path):
    backbone = BackboneChoice("emotion_lite0")
    add_head(store, backbone)
    other = MlpHead(
        HeadConfig("expr", 3, 5, 1, {"expr": BranchConfig("scores", 0)}),
        zero_shot_heads(COMMON_5, 3)["expr"].tensors,
    )
    add_head(store, backbone, "expr-wrong-1", **head_to_bytes(other))
    add_head(store, backbone, "expr-broken-1", **{"head.json": b"{"})
    wrong = {"expr-wrong": r"sizes \(1280, 5\), .*got one for \(3, 5\)", "expr-broken": "expected head.json"}
    for name, message in wrong.items():
        with pytest.raises(InputError, match=message):
            choose_predictors(store, PredictorRequest(heads=[name]))
    assert chosen(store, heads=["expr-default"])[0] == ["expr-default"]
    with open(tmp_path / "store" / "heads" / "expr-default-1" / "head.safetensors", "r+b") as file:
        file.truncate(100)
    for request in ({}, {"heads": ["expr-default"]}):
        with pytest.raises(InputError, match=r"heads/expr-default-1: expected the files that fit wrote.*forget --head"):
            choose_predictors(store, PredictorRequest(**request))


def test_faces_are_cropped_as_for_the_features_in_the_store(store, tmp_path):
    extract(store, tmp_path, "emotion_lite0")
    (found,) = choose_predictors(store, PredictorRequest())
    assert found.crop_params == CropParams()
