import pytest

from infra.machine import Gpu, usable_cores, visible_gpus


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """An nvidia-smi that reports two GPUs of 80 GB, and one without memory of its own."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0, GPU-a0, 81559\\n1, GPU-b1, 81559\\n2, GPU-c2, [N/A]\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_all_gpus_are_visible_by_default(two_gpus):
    assert [(gpu.id, gpu.memory_gb and round(gpu.memory_gb, 1)) for gpu in visible_gpus()] == [
        ("0", 85.5),
        ("1", 85.5),
        ("2", None),
    ]


def test_cuda_visible_devices_selects_gpus_by_number_or_uuid(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-a0, GPU-5af")
    by_number, by_uuid, unknown = visible_gpus()
    assert (by_number.id, by_uuid.id, unknown) == ("1", "GPU-a0", Gpu("GPU-5af"))
    assert by_number.memory_gb == by_uuid.memory_gb == pytest.approx(85.5, abs=0.1)
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert visible_gpus() == []


def test_there_is_at_least_one_core():
    assert usable_cores() >= 1
