import json

import numpy as np
import pytest
import safetensors.numpy

from models.backbones.registry import AFFECTNET_7, AFFECTNET_8, COMMON_5, IMAGENET_1000
from models.heads.head import BranchConfig, HeadConfig, head_from_bytes, head_to_bytes
from models.heads.metrics import EXPRESSIONS
from models.heads.mlp import MlpHead, zero_shot_heads
from models.heads.recipes import hidden_sizes
from models.heads.sequences import SubjectSequence

RANDOM = np.random.default_rng(0)


def make_head(task="mtl", seeds=2):
    branches = {
        "va": BranchConfig("scores", 0),
        "expr": BranchConfig("embeddings", 5),
        "au": BranchConfig("both", (4, 3), scores="probabilities"),
    }
    if task != "mtl":
        branches = {task: branches[task]}
    config = HeadConfig(task, 6, 3, seeds, branches)
    widths = {"scores": 3, "embeddings": 6, "both": 9}
    outs = {"va": 2, "expr": 8, "au": 12}
    tensors = {}
    for seed in range(seeds):
        for branch, b in branches.items():
            steps = [widths[b.features], *hidden_sizes(b.hidden_units), outs[branch]]
            for layer in range(len(steps) - 1):
                name = f"seed{seed}.{branch}.{layer}"
                tensors[f"{name}.weight"] = RANDOM.normal(size=(steps[layer + 1], steps[layer])).astype("f4")
                tensors[f"{name}.bias"] = RANDOM.normal(size=steps[layer + 1]).astype("f4")
    return MlpHead(config, tensors)


def predict(head, embeddings, logits):
    """Predict frames that all show the face."""
    count = len(embeddings)
    return head.predict_sequence(SubjectSequence(embeddings, logits, np.ones(count, bool), np.arange(count) / 30))


def predict_from_files(files, embeddings, logits):
    """Predict as head.json describes, with NumPy and safetensors alone."""
    config, tensors = json.loads(files["head.json"]), safetensors.numpy.load(files["head.safetensors"])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    results = {}
    for branch, described in config["branches"].items():
        seeds, scores = [], softmax if described["scores"] == "probabilities" else logits
        inputs = {
            "embeddings": embeddings,
            "scores": scores,
            "both": np.concatenate([embeddings, scores], axis=1),
        }
        for seed in range(config["seeds"]):
            x = inputs[described["features"]].astype(np.float64)
            layers = sum(name.startswith(f"seed{seed}.{branch}.") for name in tensors) // 2
            for layer in range(layers):
                name = f"seed{seed}.{branch}.{layer}"
                x = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
                x = np.maximum(x, 0) if layer + 1 < layers else x
            activations = {
                "softmax": lambda v: np.exp(v) / np.exp(v).sum(axis=1, keepdims=True),
                "tanh": np.tanh,
                "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
                "clip": lambda v: np.clip(v, -1, 1),
            }
            seeds.append(activations[described["activation"]](x))
        results[branch] = np.mean(seeds, axis=0)
        assert len(described["outputs"]) == results[branch].shape[1]
    return results


@pytest.mark.parametrize("task", ["mtl", "expr", "va", "au"])
def test_outputs_can_be_computed_from_the_files_alone(task):
    head = make_head(task)
    embeddings, logits = RANDOM.normal(size=(20, 6)).astype("f2"), RANDOM.normal(size=(20, 3)).astype("f4")
    found = predict(head, embeddings, logits)
    files = head_to_bytes(head)
    for branch, expected in predict_from_files(files, embeddings, logits).items():
        np.testing.assert_allclose(found[branch], expected, atol=1e-5)
    without_kind = json.loads(files["head.json"])
    assert without_kind.pop("kind") == "mlp"
    assert head_from_bytes(files | {"head.json": json.dumps(without_kind).encode()}).config == head.config
    without_scores = json.loads(files["head.json"])
    forms = {branch: described.pop("scores") for branch, described in without_scores["branches"].items()}
    earlier = head_from_bytes(files | {"head.json": json.dumps(without_scores).encode()})
    assert {branch.scores for branch in earlier.config.branches.values()} == {"logits"}
    assert forms == {branch: described.scores for branch, described in head.config.branches.items()}
    again = head_from_bytes(files)
    assert again.config == head.config and head_to_bytes(again) == files


def test_outputs_are_in_range():
    found = predict(make_head(), RANDOM.normal(size=(9, 6)), RANDOM.normal(size=(9, 3)))
    np.testing.assert_allclose(found["expr"].sum(axis=1), 1, atol=1e-5)
    assert ((found["au"] >= 0) & (found["au"] <= 1)).all() and (np.abs(found["va"]) <= 1).all()


def test_a_sequence_gets_the_outputs_of_its_rows():
    head, present = make_head(), RANDOM.random(30) < 0.7
    embeddings, logits = RANDOM.normal(size=(30, 6)).astype("f2"), RANDOM.normal(size=(30, 3)).astype("f4")
    found = head.predict_sequence(SubjectSequence(embeddings, logits, present, np.arange(30.0)))
    for branch, expected in predict(head, embeddings[present], logits[present]).items():
        assert (found[branch][present] == expected).all()
        assert found[branch].shape[0] == 30 and (found[branch][~present] == 0).all()


def test_wrong_sizes_and_files_are_refused():
    head = make_head("expr")
    with pytest.raises(ValueError, match=r"expected embeddings and logits of sizes \(6, 3\)"):
        predict(head, np.zeros((1, 7)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"expected tensor seed0\.expr\.0\.weight"):
        MlpHead(head.config, {})
    with pytest.raises(ValueError, match="expected branches"):
        HeadConfig("mtl", 1, 1, 1, {})
    files = head_to_bytes(head)
    unknown = files | {"head.json": files["head.json"].replace(b'"mlp"', b'"forest"')}
    for broken in ({}, {"head.json": b"{", "head.safetensors": b""}, unknown):
        with pytest.raises(ValueError, match=r"expected head\.json"):
            head_from_bytes(broken)


@pytest.mark.parametrize("names", [COMMON_5, AFFECTNET_7, AFFECTNET_8, (*AFFECTNET_8, "valence", "arousal")])
def test_zero_shot_classes_become_the_expressions_of_their_names(names):
    head = zero_shot_heads(names, 4)["expr"]
    logits = 9 * np.eye(len(names), dtype=np.float32)
    found = predict(head, np.zeros((len(names), 4), np.float32), logits)["expr"]
    for row, name in enumerate(names):
        if name in EXPRESSIONS:
            assert EXPRESSIONS[found[row].argmax()] == name
    unknown = [at for at, name in enumerate(EXPRESSIONS) if name not in names]
    assert "Other" in [EXPRESSIONS[at] for at in unknown] and (found[:, unknown] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_zero_shot_refuses_a_backbone_without_expressions():
    with pytest.raises(ValueError, match="expected a backbone with classes such as Neutral"):
        zero_shot_heads(IMAGENET_1000, 1280)


def test_zero_shot_valence_and_arousal_are_the_outputs_of_the_backbone():
    assert list(zero_shot_heads(AFFECTNET_8, 4)) == ["expr"]
    assert list(zero_shot_heads(("valence", "arousal"), 4)) == ["va"]
    names = ("arousal", *AFFECTNET_8, "valence")
    head = zero_shot_heads(names, 4)["va"]
    logits = np.zeros((3, len(names)), np.float32)
    logits[:, 0], logits[:, -1] = [0.1, -0.7, 3.0], [0.9, -1.5, 0.2]
    embeddings, expected = np.zeros((3, 4), np.float32), [[0.9, 0.1], [-1, -0.7], [0.2, 1]]
    np.testing.assert_allclose(predict(head, embeddings, logits)["va"], expected, atol=1e-6)
    files = head_to_bytes(head)
    assert head_from_bytes(files).config == head.config
    np.testing.assert_allclose(predict_from_files(files, embeddings, logits)["va"], expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"expected head\.json"):
        head_from_bytes(files | {"head.json": files["head.json"].replace(b'"clip"', b'"step"')})
