"""The GPU engine on a processor: everything except the compiler and the capture of graphs."""

import threading
import time

import numpy as np
import pytest
import safetensors.torch
import torch

from models.backbones import gpu as module
from models.backbones.gpu import MAX_SIDE_PX, DeviceResize, GpuBackbone, fold_batch_norms
from models.backbones.network import load_backbone
from models.backbones.resizing import resize_to_square
from tests.models.backbones.test_network import random_weights


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 3)


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "mobilenet_v1"])
def test_equals_the_torch_backbone(tmp_path, portraits, name):
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


def test_half_precision_is_close_to_float32(portraits):
    images = [portraits[0][y : y + 180, x : x + 150] for y in (0, 60) for x in (0, 90)]
    exact = load_backbone("emotion_lite0").extract(images)[0]
    half = GpuBackbone("emotion_lite0", device="cpu").extract(images)[0]
    cosine = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert (cosine > 0.999).all() and (exact != half).any()


def test_smaller_batches_give_equal_features(portraits, monkeypatch):
    backbone = GpuBackbone("emotion_lite0", device="cpu", precision="float32")
    expected = backbone.extract(portraits)[0]
    run = backbone.run_packed

    def run_few(slots, layout):
        if len(slots) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(slots, layout)

    monkeypatch.setattr(backbone, "run_packed", run_few)
    backbone._graph = None
    np.testing.assert_allclose(backbone.extract(portraits)[0], expected, atol=1e-4)
    assert backbone._batch.size == 1


def test_folding_removes_batch_norms_from_a_copy():
    network = load_backbone("emotion_lite0").network
    kinds = [type(layer) for layer in network.modules()]
    assert any(issubclass(kind, torch.nn.BatchNorm2d) for kind in kinds)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in fold_batch_norms(network).modules())
    assert [type(layer) for layer in network.modules()] == kinds


def test_non_finite_features_raise(tmp_path, portraits):
    path = tmp_path / "w.safetensors"
    tensors = random_weights(path, "tf_efficientnet_b0").state_dict()
    safetensors.torch.save_file(tensors | {"conv_stem.weight": tensors["conv_stem.weight"] * 1e38}, path)
    with pytest.raises(FloatingPointError, match="finite"):
        GpuBackbone("tf_efficientnet_b0", weights=path, device="cpu", precision="float32").extract([portraits[0]])


def test_one_process_compiles_while_the_others_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    finished, seen = threading.Event(), []

    def compile_later():
        with module._first_process_compiles():
            seen.append(finished.is_set())

    others = [threading.Thread(target=compile_later) for _ in range(3)]
    with module._first_process_compiles():
        for other in others:
            other.start()
        time.sleep(0.3)
        assert seen == []
        finished.set()
    for other in others:
        other.join(300)
    assert seen == [True, True, True]


SIDES = [(1, 1), (2, 320), (320, 2), (224, 224), (223, 225), (225, 223), (MAX_SIDE_PX, MAX_SIDE_PX), (112, 112)]


@pytest.mark.parametrize(
    ("size_px", "interpolation"),
    [*((s, "bilinear") for s in (160, 224, 260)), (224, "opencv_bilinear"), (112, "opencv_bilinear")],
)
def test_device_resize_equals_the_resize_of_the_processor(size_px, interpolation):
    rng = np.random.default_rng(size_px)
    sides = SIDES + [tuple(rng.integers(1, MAX_SIDE_PX + 1, 2)) for _ in range(24)]
    images = [rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides]
    # Pixels of earlier images must not leak into the result.
    slots = rng.integers(0, 256, (len(images) + 1, MAX_SIDE_PX, MAX_SIDE_PX, 3), dtype=np.uint8)
    resizer = DeviceResize(size_px, interpolation, device=torch.device("cpu"))
    layout = resizer.pack(images, slots)
    squares = resizer.resize(torch.from_numpy(slots), torch.from_numpy(layout)).numpy()
    assert squares.shape == (len(images) + 1, size_px, size_px, 3)
    for image, square in zip(images, squares, strict=False):
        expected = resize_to_square(image, size_px, interpolation)
        np.testing.assert_array_equal(square, expected, err_msg=str(image.shape))
    assert (0 < layout[:, 2].sum() < len(images)) == (interpolation == "bilinear")
