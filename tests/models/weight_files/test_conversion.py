import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors
import torch

from models.backbones.network import load_backbone
from models.weight_files.catalogue import CATALOGUE
from models.weight_files.conversion import convert_weights

OLD_TIMM = Path(sys.prefix) / "old-timm"
HERE = Path(__file__).parent
KERAS_PROGRAM = """
import sys
import keras, numpy as np
keras.utils.set_random_seed(0)
base = keras.applications.MobileNet(input_shape=(96, 96, 3), include_top=False, weights=None, pooling="avg")
random = np.random.default_rng(0)
for layer in base.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        size = layer.gamma.shape
        layer.set_weights([random.uniform(0.8, 1.2, size), random.normal(0, 0.1, size), random.normal(0, 0.1, size), random.uniform(0.5, 1.5, size)])
pixels = random.uniform(-120, 150, (2, 96, 96, 3)).astype(np.float32)
for activation in ("relu", "linear"):
    x = keras.layers.Dense(256, activation=activation, name="feats")(base.output)
    model = keras.Model(base.input, keras.layers.Dense(7, activation="softmax", name="emotion_preds")(x))
    model.save(f"{sys.argv[1]}/{activation}.h5")
    features = keras.Model(model.input, [base.output, model.output])
    embeddings, probabilities = features.predict(pixels, verbose=0)
    np.savez(f"{sys.argv[1]}/{activation}.npz", pixels=pixels, embeddings=embeddings, probabilities=probabilities)
"""  # noqa: E501


def converted(tmp_path, source, name):
    path = tmp_path / "converted.safetensors"
    path.write_bytes(convert_weights(source, CATALOGUE[name], verified=False))
    return path, load_backbone(CATALOGUE[name].backbone, weights=path)


@torch.inference_mode()
def outputs_of(backbone, pixels):
    network = backbone.network
    pooled = network.forward_head(network.forward_features(pixels), pre_logits=True)
    return pooled, network.classifier(pooled)


MODULES = [
    ("0.4.5", "tf_efficientnet_b0_ns", "sequential", "enet_b0_8_best_vgaf", 8),
    ("0.9.16", "tf_efficientnet_b0_ns", "linear", "enet_b0_8_va_mtl", 10),
    ("0.9.16", "tf_efficientnet_b2_ns", "sequential", "enet_b2_7", 7),
    ("0.4.5", "tf_efficientnet_b2_ns", "parallel", "enet_b2_8", 8),
]


@pytest.fixture(scope="module")
def saved_by(tmp_path_factory):
    """Return a function that saves all modules of a timm release, in one process, and returns their folder."""

    @functools.cache
    def save(release):
        folder = tmp_path_factory.mktemp("saved")
        command = [sys.executable, HERE / "old_timm" / "save_modules.py", 96, folder]
        modules = [module for module in MODULES if module[0] == release]
        command += [f"{architecture}:{classes}:{form}:{name}" for _, architecture, form, name, classes in modules]
        environment = os.environ | {"PYTHONPATH": str(OLD_TIMM / release)}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
        assert done.stdout.strip() == release, done.stderr[-2000:]
        return folder

    return save


@pytest.mark.service
@pytest.mark.parametrize(("release", "architecture", "form", "name", "classes"), MODULES)
def test_modules_saved_by_old_timm_give_equal_outputs(tmp_path, saved_by, release, architecture, form, name, classes):
    folder = saved_by(release) / name
    path, backbone = converted(tmp_path, folder / "module.pt", name)
    expected = torch.load(folder / "outputs.pt", weights_only=True)
    embeddings, logits = outputs_of(backbone, expected["pixels"])
    assert logits.shape == (2, classes)
    for ours, theirs in ((embeddings, expected["embeddings"]), (logits, expected["logits"])):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    with safetensors.safe_open(path, "np") as file:
        origin = json.loads(file.metadata()["origin"])
    assert origin["name"] == name and origin["git_blob_id"] == "unverified"


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    environment = os.environ | {"KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", KERAS_PROGRAM, str(folder)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.service
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_keras_file_gives_equal_outputs(tmp_path, keras_files, activation):
    _, backbone = converted(tmp_path, keras_files / f"{activation}.h5", "mobilenet_7")
    expected = np.load(keras_files / f"{activation}.npz")
    embeddings, logits = outputs_of(backbone, torch.from_numpy(expected["pixels"]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(embeddings, expected["embeddings"], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(torch.softmax(logits, 1), expected["probabilities"], atol=1e-5)


@pytest.mark.parametrize("classes", [None, 5])
def test_identification_weights_are_converted_with_and_without_a_class_layer(tmp_path, classes):
    import timm

    network = timm.create_model("tf_efficientnet_b0", num_classes=classes or 0)
    torch.save(network.state_dict(), tmp_path / "faces.pt")
    _, backbone = converted(tmp_path, tmp_path / "faces.pt", "state_vggface2_enet0_new")
    assert len(backbone.class_names) == (classes or 1)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    import timm

    path = tmp_path / "x.pt"
    torch.save(timm.create_model("tf_efficientnet_b0", num_classes=8).state_dict(), path)
    with pytest.raises(ValueError, match=r"x\.pt: .*expected tensor"):
        convert_weights(path, CATALOGUE["enet_b2_8"], verified=False)
    with pytest.raises(ValueError, match=r"x\.pt: .*expected tensor"):
        convert_weights(path, CATALOGUE["enet_b2_7"], verified=False)
    with pytest.raises(ValueError, match="cannot run; its ONNX file"):
        convert_weights(path, CATALOGUE["mbf_va_mtl"], verified=False)
    path.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="expected a Keras HDF5 file"):
        convert_weights(path, CATALOGUE["mobilenet_7"], verified=False)


def test_truncated_file_is_refused_in_one_line(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(100)}, buffer)
    path = tmp_path / "cut.pt"
    path.write_bytes(buffer.getvalue()[:400])
    with pytest.raises(ValueError, match=r"cut\.pt: expected a PyTorch file.*truncated"):
        convert_weights(path, CATALOGUE["enet_b2_8"], verified=False)


def hdf5_with(path, kind):
    with h5py.File(path, "w") as file:
        if kind == "a link to another file":
            with h5py.File(path.with_name("other.h5"), "w") as other:
                other["feats/kernel"] = np.ones((2, 2))
            file["model_weights"] = h5py.ExternalLink("other.h5", "/")
        elif kind == "values of another file":
            path.with_name("secret").write_bytes(bytes(4096))
            outside = [(str(path.with_name("secret")), 0, 4096)]
            file.create_dataset("feats/kernel", (1024,), "f4", external=outside)
        elif kind == "terabytes of nothing":
            file.create_dataset("feats/kernel", (1 << 40,), "f4", chunks=(1 << 20,))
        elif kind == "no layers":
            file["kernel"] = np.ones(2)
        else:
            file.attrs["model_config"] = "[1]"
    return path


@pytest.mark.parametrize(
    "kind",
    ["a link to another file", "values of another file", "terabytes of nothing", "no layers", "no configuration"],
)
def test_hostile_hdf5_files_are_refused_in_one_line(tmp_path, kind):
    path = hdf5_with(tmp_path / "x.h5", kind)
    with pytest.raises(ValueError, match=r"x\.h5: expected a Keras HDF5 file with a MobileNet, got: ") as caught:
        convert_weights(path, CATALOGUE["mobilenet_7"], verified=False)
    assert "\n" not in str(caught.value)
    assert (
        kind in ("no layers", "no configuration")
        or "expected values within" in str(caught.value)
        or ("expected weights within" in str(caught.value))
    )
