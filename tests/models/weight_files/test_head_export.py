"""Exported heads give the outputs of the heads, for sequences of any length."""

import json

import numpy as np
import pytest

from models.heads.head import BranchConfig, HeadConfig, head_class
from models.heads.sequences import SubjectSequence
from models.weight_files.head_export import export_head
from tests.models.heads.temporal.test_temporal_heads import LAYERS

pytestmark = pytest.mark.service
SIZES = {"embeddings": 12, "logits": 3}


def random_head(kind, task="va", features="embeddings", **changes):
    """A head of two seeds with random weights."""
    branches = ("va", "expr", "au") if task == "mtl" else (task,)
    config = BranchConfig(features, 16, temporal=None if kind == "mlp" else LAYERS, **changes)
    shapes = HeadConfig(task, *SIZES.values(), 2, dict.fromkeys(branches, config))
    random = np.random.default_rng(0)

    tensors = {}
    while True:
        try:
            return head_class(kind)(shapes, tensors)
        except ValueError as error:
            name, shape = str(error).split("expected tensor ")[1].split(", got")[0].split(" of shape ")
            size = tuple(int(one) for one in shape.strip("()").split(",") if one)
            tensors[name] = random.normal(0, 0.4, size).astype(np.float32)


@pytest.mark.parametrize(
    "head",
    [
        random_head("mlp", features="both", scores="probabilities"),
        random_head("mlp", "expr", "scores", activation="softmax"),
        random_head("tcn", "mtl"),
        random_head("transformer", features="both"),
    ],
    ids=["mlp", "mlp on scores", "tcn", "transformer"],
)
def test_an_exported_head_gives_the_outputs_of_the_head(head, tmp_path):
    import onnxruntime

    path = export_head(head, "head", tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    described = json.loads((tmp_path / "head.onnx.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.onnx", "head.onnx.json"]
    found = {one.name: one.shape for one in session.get_inputs()}
    assert found == {name: one["shape"] for name, one in described["inputs"].items()}
    for count in (1, 39, 40, 41, 333):
        random = np.random.default_rng(count)
        vectors = {name: random.normal(size=(count, size)).astype(np.float32) for name, size in SIZES.items()}
        present = (random.random(count) < 0.9) | (head.kind == "mlp")
        given = {name: values for name, values in (vectors | {"present": present}).items() if name in found}
        outputs = dict(zip(described["outputs"], session.run(None, given), strict=True))
        expected = head.predict_sequence(SubjectSequence(*vectors.values(), present, np.arange(count) / 30))
        assert list(outputs) == list(expected)
        for branch, values in expected.items():
            assert described["outputs"][branch]["shape"] == ["n", values.shape[1]]
            np.testing.assert_allclose(outputs[branch][present], values[present], atol=1e-5)
