import subprocess
import sys

import pytest
import torch

from models.engines.devices import block_while_waiting_for_gpu, default_device, default_engine

COUNT_PAGE_FAULTS = """
import resource
import torch
from models.engines.devices import keep_freed_memory

def count():
    for repeat in range(10):
        if repeat == 5:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(8 << 20).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = count()
keep_freed_memory()
print(without, count())
"""


def test_default_device_matches_torch():
    assert default_device() == ("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.ones(2, device=default_device()).sum().item() == 2


def test_device_works_with_blocking_waits():
    block_while_waiting_for_gpu()
    assert torch.ones(2, device=default_device()).sum().item() == 2


def test_environment_variable_selects_the_engine(monkeypatch):
    monkeypatch.setenv("AFFWILD2_ENGINE", "torch")
    assert default_engine() == "torch"
    monkeypatch.setenv("AFFWILD2_ENGINE", "tensorflow")
    with pytest.raises(ValueError, match="expected one of openvino, torch, got 'tensorflow'"):
        default_engine()


@pytest.mark.skipif(default_device() == "cuda", reason="on a GPU torch runs the networks, so workers import it")
def test_workers_without_a_gpu_do_not_import_torch():
    code = """
import sys
from models.engines.precision import native_precision
from models.faces.detection import DetectorParams
from tasks.worker_models import get_backbone, get_detector
native_precision()
get_detector(DetectorParams())
get_backbone("emotion_lite0", None, "bfloat16")
import tasks.extract.crop_faces, tasks.extract.embed_faces, tasks.fit.predict_outputs, tasks.extract.assign_subjects
slow = {"torch", "timm", "facenet_pytorch", "torchvision"} & set(sys.modules)
sys.exit(f"imported {slow}" if slow else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keep_freed_memory_reuses_buffers():
    command = [sys.executable, "-c", COUNT_PAGE_FAULTS]
    counted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    without, kept = map(int, counted.split())
    assert kept < without / 10
