import json

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from models.backbones.cpu import CpuBackbone
from models.backbones.gpu import GpuBackbone
from models.backbones.network import build_network, load_backbone
from models.backbones.registry import COMMON_5, REGISTRY, BackboneSpec
from models.backbones.resizing import resize_to_square
from models.backbones.weights import weights_digest


def random_weights(path, name, *, classes=None, metadata=None):
    spec = REGISTRY[name]
    torch.manual_seed(0)
    options = {"pad_type": spec.pad_type} if spec.pad_type else {}
    network = timm.create_model(spec.architecture, num_classes=classes or len(spec.class_names), **options)
    if spec.feature_layer:
        network.classifier = torch.nn.Sequential(
            torch.nn.Linear(spec.embedding_size, spec.feature_layer),
            torch.nn.ReLU(),
            torch.nn.Linear(spec.feature_layer, classes or len(spec.class_names)),
        )
    described = {"affwild2": json.dumps(metadata)} if metadata else None
    safetensors.torch.save_file(network.state_dict(), path, metadata=described)
    return network.eval()


def input_by_hand(spec, image):
    """Compute the network's input with PIL and numpy only; MobileNet's resizing has its own tests."""
    resized = Image.fromarray(image).resize((spec.input_px, spec.input_px), Image.BILINEAR)
    if spec.interpolation == "opencv_bilinear":
        resized = resize_to_square(image, spec.input_px, spec.interpolation)
    values = np.asarray(resized, np.float64) / spec.scale
    normalised = (values - np.array(spec.mean)) / np.array(spec.std)
    return torch.from_numpy(normalised.transpose(2, 0, 1)[None]).float()


@pytest.fixture(scope="module")
def lite0():
    return load_backbone("efficientnet_lite0")


def test_bundled_weights_recognise_a_uniform(lite0, portraits):
    """ImageNet class 652 is "military uniform": Rear Admiral Hopper wears one."""
    embeddings, logits = lite0.extract([portraits[0]])
    assert logits[0].argmax() == 652
    assert embeddings.shape == (1, 1280) and logits.shape == (1, 1000)


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "tf_efficientnet_b2", "mobilenet_v1"])
def test_equals_timm(tmp_path, portraits, name):
    network = random_weights(tmp_path / "w.safetensors", name)
    backbone = load_backbone(name, weights=tmp_path / "w.safetensors")
    images = [portraits[0][:200, :160], portraits[1]]
    embeddings, logits = backbone.extract(images)
    with torch.inference_mode():
        for at, image in enumerate(images):
            pixels = input_by_hand(backbone.spec, image)
            torch.testing.assert_close(backbone.preprocess([image]), pixels, atol=1e-4, rtol=1e-5)
            pooled = network.global_pool(network.forward_features(pixels))
            np.testing.assert_allclose(embeddings[at], pooled[0], atol=2e-4, rtol=1e-3)
            np.testing.assert_allclose(logits[at], network(pixels)[0], atol=2e-4, rtol=1e-3)
    assert embeddings.shape[1] == backbone.spec.embedding_size


def test_features_do_not_depend_on_the_batch(lite0, portraits):
    images = [portraits[0][i : i + 150, i : i + 120] for i in range(5)]
    together, _ = lite0.extract(images)
    alone = np.concatenate([lite0.extract([image])[0] for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert lite0.extract([])[0].shape == (0, 1280)


def test_missing_weights_raise():
    with pytest.raises(ValueError, match="no weights are bundled"):
        load_backbone("tf_efficientnet_b0")
    with pytest.raises(ValueError, match="expected one of emotion_lite0"):
        load_backbone("resnet")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    network = random_weights(path, "tf_efficientnet_b0")
    tensors = network.state_dict()
    cases = {
        "found none": {k: v for k, v in tensors.items() if k != "conv_stem.weight"},
        "of shape": tensors | {"conv_stem.weight": torch.zeros(3)},
        "too many": tensors | {"more": torch.zeros(1)},
        "classifier has 5 outputs": tensors | {"classifier.weight": torch.zeros(5, 1280)},
    }
    for message, wrong in cases.items():
        safetensors.torch.save_file(wrong, path)
        with pytest.raises(ValueError, match=message):
            load_backbone("tf_efficientnet_b0", weights=path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="expected a complete safetensors file"):
        load_backbone("tf_efficientnet_b0", weights=path)
    with pytest.raises(ValueError, match="No such file"):
        load_backbone("tf_efficientnet_b0", weights=tmp_path / "typo.safetensors")


def test_metadata_replaces_classes_and_preprocessing(tmp_path):
    path = tmp_path / "w.safetensors"
    random_weights(path, "tf_efficientnet_b0", classes=2, metadata={"class_names": ["calm", "tense"], "input_px": 192})
    backbone = load_backbone("tf_efficientnet_b0", weights=path)
    assert backbone.class_names == ("calm", "tense") and backbone.spec.input_px == 192
    before = weights_digest("tf_efficientnet_b0", str(path))
    random_weights(path, "tf_efficientnet_b0")
    assert weights_digest("tf_efficientnet_b0", str(path)) != before


def test_non_finite_features_raise(tmp_path, portraits):
    path = tmp_path / "w.safetensors"
    tensors = random_weights(path, "tf_efficientnet_b0").state_dict()
    safetensors.torch.save_file(tensors | {"conv_stem.weight": tensors["conv_stem.weight"] * 1e38}, path)
    with pytest.raises(FloatingPointError, match="finite"):
        load_backbone("tf_efficientnet_b0", weights=path).extract([portraits[0]])


@pytest.mark.parametrize(("architecture", "size"), [("test_resnet", 96), ("test_convnext", 64), ("test_vit", 64)])
def test_one_spec_adds_an_architecture_to_every_engine(tmp_path, portraits, monkeypatch, architecture, size):
    spec = BackboneSpec("new", architecture, 160, (0.5,) * 3, (0.25,) * 3, size, COMMON_5)
    monkeypatch.setitem(REGISTRY, "new", spec)
    monkeypatch.setattr("models.backbones.gpu._BATCH", 2)
    path, images = tmp_path / "w.safetensors", [portraits[0][:200, :160], portraits[1]]
    torch.manual_seed(0)
    network = build_network(spec).eval()
    safetensors.torch.save_file(network.state_dict(), path)
    with torch.inference_mode():
        expected = network(torch.cat([input_by_hand(spec, image) for image in images])).numpy()
    engines = (load_backbone, CpuBackbone, lambda name, **options: GpuBackbone(name, device="cpu", **options))
    for load in engines:
        embeddings, logits = load("new", weights=path, precision="float32").extract(images)
        assert embeddings.shape == (2, size)
        np.testing.assert_allclose(logits, expected, atol=1e-3, rtol=1e-3)


def test_spec_with_a_wrong_embedding_size_is_refused():
    spec = BackboneSpec("new", "test_resnet", 160, (0.5,) * 3, (0.25,) * 3, 64, COMMON_5)
    with pytest.raises(ValueError, match="new: expected embedding_size 96, that of test_resnet, got 64"):
        build_network(spec)
