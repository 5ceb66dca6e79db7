import pytest

from infra.machine import Gpu, usable_cores, visible_gpus


@pytest.fixture
def machine_of_two(tmp_path, monkeypatch):
    """nvidia-smi as it answers for two GPUs of 80 GB, and one that has no memory of its own."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '0, 81559\\n1, 81559\\n2, [N/A]\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_of_the_machine(machine_of_two):
    assert [(gpu.id, gpu.memory_gb and round(gpu.memory_gb, 1)) for gpu in visible_gpus()] == [
        ("0", 85.5),
        ("1", 85.5),
        ("2", None),
    ]


def test_gpus_are_those_that_the_process_may_see(machine_of_two, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-5af")
    (known, by_name) = visible_gpus()
    assert (known.id, by_name) == ("1", Gpu("GPU-5af")) and known.memory_gb
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert visible_gpus() == []


def test_there_is_a_core():
    assert usable_cores() >= 1
