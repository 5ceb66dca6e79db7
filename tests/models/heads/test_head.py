import json

import numpy as np
import pytest
import safetensors.numpy

from models.heads.head import BranchConfig, Head, HeadConfig, head_from_bytes, head_to_bytes

RANDOM = np.random.default_rng(0)


def make_head(task="mtl", seeds=2):
    branches = {
        "va": BranchConfig("scores", 0),
        "expr": BranchConfig("embeddings", 5),
        "au": BranchConfig("both", 4),
    }
    if task != "mtl":
        branches = {task: branches[task]}
    config = HeadConfig(task, 6, 3, seeds, branches)
    widths = {"scores": 3, "embeddings": 6, "both": 9}
    outs = {"va": 2, "expr": 8, "au": 12}
    tensors = {}
    for seed in range(seeds):
        for branch, b in branches.items():
            steps = [widths[b.features], *([b.hidden_units] if b.hidden_units else []), outs[branch]]
            for layer in range(len(steps) - 1):
                name = f"seed{seed}.{branch}.{layer}"
                tensors[f"{name}.weight"] = RANDOM.normal(size=(steps[layer + 1], steps[layer])).astype("f4")
                tensors[f"{name}.bias"] = RANDOM.normal(size=steps[layer + 1]).astype("f4")
    return Head(config, tensors)


def predict_from_files(files, embeddings, logits):
    """Only what head.json says, with numpy and safetensors."""
    config, tensors = json.loads(files["head.json"]), safetensors.numpy.load(files["head.safetensors"])
    inputs = {
        "embeddings": embeddings,
        "scores": logits,
        "both": np.concatenate([embeddings, logits], axis=1),
    }
    results = {}
    for branch, described in config["branches"].items():
        seeds = []
        for seed in range(config["seeds"]):
            x = inputs[described["features"]].astype(np.float64)
            layers = 2 if described["hidden_units"] else 1
            for layer in range(layers):
                name = f"seed{seed}.{branch}.{layer}"
                x = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
                x = np.maximum(x, 0) if layer + 1 < layers else x
            activations = {
                "softmax": lambda v: np.exp(v) / np.exp(v).sum(axis=1, keepdims=True),
                "tanh": np.tanh,
                "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
            }
            seeds.append(activations[described["activation"]](x))
        results[branch] = np.mean(seeds, axis=0)
        assert len(described["outputs"]) == results[branch].shape[1]
    return results


@pytest.mark.parametrize("task", ["mtl", "expr", "va", "au"])
def test_files_alone_give_the_same_outputs(task):
    head = make_head(task)
    embeddings, logits = RANDOM.normal(size=(20, 6)).astype("f2"), RANDOM.normal(size=(20, 3)).astype("f4")
    found = head.predict(embeddings, logits)
    files = head_to_bytes(head)
    for branch, expected in predict_from_files(files, embeddings, logits).items():
        np.testing.assert_allclose(found[branch], expected, atol=1e-5)
    again = head_from_bytes(files)
    assert again.config == head.config and head_to_bytes(again) == files


def test_outputs_are_probabilities_and_values():
    found = make_head().predict(RANDOM.normal(size=(9, 6)), RANDOM.normal(size=(9, 3)))
    np.testing.assert_allclose(found["expr"].sum(axis=1), 1, atol=1e-5)
    assert ((found["au"] >= 0) & (found["au"] <= 1)).all() and (np.abs(found["va"]) <= 1).all()


def test_what_does_not_fit_is_refused():
    head = make_head("expr")
    with pytest.raises(ValueError, match=r"expected embeddings and logits of sizes \(6, 3\)"):
        head.predict(np.zeros((1, 7)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"expected tensor seed0\.expr\.0\.weight"):
        Head(head.config, {})
    with pytest.raises(ValueError, match="expected branches"):
        HeadConfig("mtl", 1, 1, 1, {})
    for broken in ({}, {"head.json": b"{", "head.safetensors": b""}):
        with pytest.raises(ValueError, match=r"expected head\.json"):
            head_from_bytes(broken)
