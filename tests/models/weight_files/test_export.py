import json

import numpy as np
import pytest
from PIL import Image

from models.backbones.network import load_backbone
from models.weight_files.export import compare_export, export_backbone, open_exported

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def faces(portraits):
    return [p[s : p.shape[0] - s, s : p.shape[1] - s] for p in portraits for s in (0, 10, 20)]


@pytest.fixture(scope="module")
def onnx(backbone, tmp_path_factory):
    return export_backbone(backbone, "onnx", tmp_path_factory.mktemp("onnx"))


def test_following_the_description_gives_equal_features(backbone, onnx, faces):
    described = json.loads((onnx.parent / f"{onnx.name}.preprocessing.json").read_text())
    size = described["input"]["shape"][1]
    pixels = np.stack([np.asarray(Image.fromarray(f).resize((size, size), Image.BILINEAR)) for f in faces])
    embeddings, logits = open_exported(onnx)(pixels)
    expected, expected_logits = backbone.extract(faces)
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
    assert described["outputs"]["logits"]["classes"] == list(backbone.class_names)
    assert open_exported(onnx)(pixels[:1])[0].shape == (1, 1280)
    assert [path.name for path in onnx.parent.iterdir() if path.name.startswith(".")] == []


def test_openvino_agrees(backbone, faces, tmp_path):
    found = compare_export(backbone, export_backbone(backbone, "openvino", tmp_path), faces)
    assert found.cosine_min > 0.999 and found.same_class == 1 and found.megabytes < 12
    assert found.milliseconds > 0 and found.original_milliseconds > 0


def test_executorch_agrees(backbone, faces, tmp_path, capfd):
    path = export_backbone(backbone, "executorch", tmp_path)
    found = compare_export(backbone, path, faces)
    assert found.cosine_min > 0.9999 and found.same_class == 1 and found.milliseconds > 0
    run, size = open_exported(path), backbone.spec.input_px
    pixels = np.stack([np.asarray(Image.fromarray(f).resize((size, size), Image.BILINEAR)) for f in faces])
    np.testing.assert_allclose(run(pixels)[0], backbone.extract(faces)[0], atol=1e-3)
    described = json.loads((tmp_path / f"{path.name}.preprocessing.json").read_text())
    assert described["input"]["shape"] == [1, 224, 224, 3] and described["file"] == "efficientnet_lite0.pte"
    assert not capfd.readouterr().err, "messages of native code are suppressed"


def test_quantized_network_is_close_and_small(backbone, faces, tmp_path):
    found = compare_export(backbone, export_backbone(backbone, "onnx-int8", tmp_path, calibration=faces), faces)
    assert found.cosine_min > 0.95 and found.same_class == 1 and found.megabytes < 7


def test_failed_exports_leave_no_files(backbone, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected one of onnx, onnx-int8, openvino, executorch, got 'tflite'"):
        export_backbone(backbone, "tflite", tmp_path / "a")
    with pytest.raises(ValueError, match="expected images of faces to calibrate on"):
        export_backbone(backbone, "onnx-int8", tmp_path / "a")
    monkeypatch.setattr(
        "models.weight_files.export._write_onnx", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        export_backbone(backbone, "onnx", tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []
