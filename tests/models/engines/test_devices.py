import subprocess
import sys

import pytest
import torch

from models.engines.devices import default_device, default_engine, wait_asleep


def test_the_device_is_the_one_that_torch_sees():
    assert default_device() == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.ones(2, device=default_device()).sum().item() == 2


def test_waiting_asleep_leaves_the_device_usable():
    wait_asleep()
    assert torch.ones(2, device=default_device()).sum().item() == 2


def test_the_engine_can_be_chosen(monkeypatch):
    monkeypatch.setenv("AFFWILD2_ENGINE", "torch")
    assert default_engine() == "torch"
    monkeypatch.setenv("AFFWILD2_ENGINE", "tensorflow")
    with pytest.raises(ValueError, match="expected one of openvino, torch, got 'tensorflow'"):
        default_engine()


@pytest.mark.skipif(default_device() == "cuda", reason="on a GPU torch runs the networks, so workers import it")
def test_what_workers_run_needs_no_torch():
    code = """
import sys
from models.faces.detection import DetectorParams
from tasks.worker_models import get_backbone, get_detector
get_detector(DetectorParams())
get_backbone("emotion_lite0", None, "bfloat16")
import tasks.extract.crop_faces, tasks.extract.embed_faces, tasks.fit.predict_outputs, tasks.extract.assign_subjects
slow = {"torch", "timm", "facenet_pytorch", "torchvision"} & set(sys.modules)
sys.exit(f"imported {slow}" if slow else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
