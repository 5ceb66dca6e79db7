"""Cores and GPUs of this machine, found without importing a framework."""

import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU: its id for ``CUDA_VISIBLE_DEVICES``, and its memory in GB (None if unknown)."""

    id: str
    memory_gb: float | None = None


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [gpu for gpu, _ in _gpus_of_machine()]
    ids = [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    memory = {name: gpu.memory_gb for gpu, uuid in (_gpus_of_machine() if ids else []) for name in (gpu.id, uuid)}
    return [Gpu(name, memory.get(name)) for name in ids]


def _gpus_of_machine() -> list[tuple[Gpu, str]]:
    """Return each GPU by its number, with its UUID (``GPU-...``)."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    lines = answer.stdout.splitlines() if answer.returncode == 0 else []
    found = ([word.strip() for word in line.split(",")] for line in lines)
    # For a GPU that shares the memory of the processor, nvidia-smi reports [N/A].
    return [(Gpu(number, float(mib) * 2**20 / 1e9 if mib.isdigit() else None), uuid) for number, uuid, mib in found]


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
