"""What of the way for GPUs runs on a processor too: all but the compiler and the capture of graphs."""

import threading
import time

import numpy as np
import pytest
import safetensors.torch
import torch

from models.backbones import gpu as module
from models.backbones.gpu import GpuBackbone, folded
from models.backbones.network import load_backbone
from tests.models.backbones.test_network import random_weights


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 3)


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "mobilenet_v1"])
def test_equals_the_plain_network(tmp_path, portraits, name):
    path = tmp_path / "w.safetensors"
    random_weights(path, name)
    images = [portraits[0][:200, :160], portraits[1][:300, :120], portraits[1], portraits[0][:40, :50]]
    expected = load_backbone(name, weights=path).extract(images)
    backbone = GpuBackbone(name, weights=path, device="cpu", precision="float32")
    for ours, theirs in zip(backbone.extract(images), expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=2e-4, rtol=1e-3)
    assert backbone.weights_digest == load_backbone(name, weights=path).weights_digest
    assert backbone.extract([])[0].shape == (0, backbone.spec.embedding_size)
    assert "float32" in backbone.engine


def test_half_precision_is_fine_enough(portraits):
    images = [portraits[0][y : y + 180, x : x + 150] for y in (0, 60) for x in (0, 90)]
    exact = load_backbone("emotion_lite0").extract(images)[0]
    half = GpuBackbone("emotion_lite0", device="cpu").extract(images)[0]
    cosine = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert (cosine > 0.999).all() and (exact != half).any()


def test_less_memory_gives_the_same(portraits, monkeypatch):
    backbone = GpuBackbone("emotion_lite0", device="cpu", precision="float32")
    expected = backbone.extract(portraits)[0]
    run = backbone.run_squeezed

    def run_few(places, layout):
        if len(places) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(places, layout)

    monkeypatch.setattr(backbone, "run_squeezed", run_few)
    backbone._graph = None
    np.testing.assert_allclose(backbone.extract(portraits)[0], expected, atol=1e-4)
    assert backbone._batch.size == 1


def test_folding_leaves_no_normalisation_and_the_network_as_it_was():
    network = load_backbone("emotion_lite0").network
    kinds = [type(layer) for layer in network.modules()]
    assert any(issubclass(kind, torch.nn.BatchNorm2d) for kind in kinds)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded(network).modules())
    assert [type(layer) for layer in network.modules()] == kinds


def test_infinite_features_are_an_error(tmp_path, portraits):
    path = tmp_path / "w.safetensors"
    tensors = random_weights(path, "tf_efficientnet_b0").state_dict()
    safetensors.torch.save_file(tensors | {"conv_stem.weight": tensors["conv_stem.weight"] * float("nan")}, path)
    with pytest.raises(FloatingPointError, match="finite"):
        GpuBackbone("tf_efficientnet_b0", weights=path, device="cpu", precision="float32").extract([portraits[0]])


def test_one_compiles_and_the_others_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    finished, seen = threading.Event(), []

    def compile_later():
        with module._one_of_many_compiles():
            seen.append(finished.is_set())

    others = [threading.Thread(target=compile_later) for _ in range(3)]
    with module._one_of_many_compiles():
        for other in others:
            other.start()
        time.sleep(0.3)
        assert seen == []
        finished.set()
    for other in others:
        other.join(30)
    assert seen == [True, True, True]
