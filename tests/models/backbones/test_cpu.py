import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.torch
import torch

from data_contracts.store.store import Store
from models.backbones.cpu import CpuBackbone
from models.backbones.network import build_network, load_backbone
from models.backbones.registry import get_spec
from models.engines.openvino import load_or_convert
from tasks.backbones import BackboneChoice
from tests.models.backbones.test_network import random_weights


def faces(portraits):
    parts = [p[y : y + 160, x : x + 140] for p in portraits for y in (20, 60) for x in (60, 90, 120)]
    return [np.ascontiguousarray(part) for part in parts]


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.999999), ("bfloat16", 0.999)])
def test_agrees_with_torch(portraits, precision, least):
    images = faces(portraits)
    expected, expected_logits = load_backbone("emotion_lite0").extract(images)
    found, logits = CpuBackbone("emotion_lite0", precision=precision).extract(images)
    assert cosines(found, expected).min() > least
    assert (logits.argmax(axis=1) == expected_logits.argmax(axis=1)).all()
    if precision == "float32":
        np.testing.assert_allclose(logits, expected_logits, atol=1e-3)


def test_mobilenet_agrees_with_torch(portraits, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "mobilenet.safetensors"
    safetensors.torch.save_file(build_network(get_spec("mobilenet_v1")).state_dict(), path)
    images = faces(portraits)[:3]
    expected, _ = load_backbone("mobilenet_v1", weights=path).extract(images)
    found, _ = CpuBackbone("mobilenet_v1", weights=path, precision="float32").extract(images)
    assert cosines(found, expected).min() > 0.999999


def test_features_do_not_depend_on_the_batch(portraits):
    backbone, images = CpuBackbone("emotion_lite0"), faces(portraits)
    together, _ = backbone.extract(images)
    alone = np.concatenate([backbone.extract([image])[0] for image in images])
    np.testing.assert_array_equal(together, alone)
    assert backbone.extract([])[0].shape == (0, 1280)


def test_torch_in_bfloat16_agrees_with_float32(portraits):
    images = faces(portraits)
    expected, _ = load_backbone("emotion_lite0").extract(images)
    found, _ = load_backbone("emotion_lite0", precision="bfloat16").extract(images)
    assert cosines(found, expected).min() > 0.999


def test_converted_network_is_cached_and_replaced_when_damaged(tmp_path, monkeypatch, caplog):
    import openvino

    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path))
    conversions = []

    def convert():
        conversions.append(1)
        return openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))

    for _ in range(2):
        load_or_convert("small", "0" * 64, convert)
    assert len(conversions) == 1
    (path,) = tmp_path.rglob("*.xml")
    path.write_text("<net")
    load_or_convert("small", "0" * 64, convert)
    assert len(conversions) == 2
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert messages and all(len(message.splitlines()) == 1 for message in messages)
    assert not list(tmp_path.rglob(".unfinished*"))


def test_compiled_network_is_cached_and_replaced_when_damaged(tmp_path, monkeypatch, portraits):
    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path))
    images = faces(portraits)
    expected = CpuBackbone("emotion_lite0").extract(images)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.compiled")}
    (early,) = (path for path in files if "-early-" in path.name)
    assert len(files) == 2
    early.write_bytes(early.read_bytes()[:50_000])
    for _ in range(2):
        for found, wanted in zip(CpuBackbone("emotion_lite0").extract(images), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    changed = [path for path in tmp_path.rglob("*.compiled") if path.stat().st_mtime_ns != files[path]]
    assert changed == [early] and early.stat().st_size > 50_000


def test_openvino_reports_its_use_to_nobody(tmp_path):
    code = "import models, openvino; from openvino.tools.ovc import telemetry_utils as t; print(t.tm.__name__)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
    assert not list(tmp_path.iterdir())


def test_one_of_several_threads_converts(tmp_path, monkeypatch):
    import openvino

    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path))
    conversions = []

    def convert():
        conversions.append(1)
        time.sleep(0.3)
        return openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))

    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: load_or_convert("small", "0" * 64, convert), range(4)))
    assert len(conversions) == 1 and all(len(model.outputs) == 1 for model in models)


def test_conversion_emits_no_tracer_warnings_and_proves_that_weights_fit(tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path))
    path, store = tmp_path / "w.safetensors", Store(tmp_path / "store")
    random_weights(path, "mobilenet_v1")
    CpuBackbone("mobilenet_v1", weights=path)
    assert [str(warning.message) for warning in recwarn if "Tracer" in warning.category.__name__] == []
    monkeypatch.setattr("models.backbones.network.load_backbone", lambda *_, **__: pytest.fail("loaded by torch"))
    BackboneChoice("mobilenet_v1", str(path)).check(store)
    random_weights(path, "mobilenet_v1", metadata={"mean": [0.1, 0.2, 0.3]})
    with pytest.raises(pytest.fail.Exception):
        BackboneChoice("mobilenet_v1", str(path)).check(store)


def test_cache_that_cannot_be_written_is_not_an_error(tmp_path, monkeypatch):
    import openvino

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AFFWILD2_CACHE", str(tmp_path / "file"))
    model = load_or_convert(
        "small", "0" * 64, lambda: openvino.convert_model(torch.nn.Linear(2, 2), example_input=torch.zeros(1, 2))
    )
    assert len(model.outputs) == 1


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "wrong.safetensors"
    safetensors.torch.save_file({"conv_stem.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="expected tensor"):
        CpuBackbone("tf_efficientnet_b0", weights=path)
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="expected a complete safetensors file"):
        CpuBackbone("tf_efficientnet_b0", weights=path)
