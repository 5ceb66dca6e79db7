"""What this machine has to work with: cores and GPUs, told without importing a framework."""

import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU by the id that ``CUDA_VISIBLE_DEVICES`` takes, and its memory in GB, None where that is not told."""

    id: str
    memory_gb: float | None = None


def visible_gpus() -> list[Gpu]:
    """The GPUs that this process may use, without importing a framework."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [gpu for gpu, _ in _gpus_of_machine()]
    ids = [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    memory = {name: gpu.memory_gb for gpu, uuid in (_gpus_of_machine() if ids else []) for name in (gpu.id, uuid)}
    return [Gpu(name, memory.get(name)) for name in ids]


def _gpus_of_machine() -> list[tuple[Gpu, str]]:
    """Each GPU by its number, and its other name, which starts with ``GPU-``."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    lines = answer.stdout.splitlines() if answer.returncode == 0 else []
    found = ([word.strip() for word in line.split(",")] for line in lines)
    # Of memory that a GPU shares with the processor, nvidia-smi says that it is not available.
    return [(Gpu(number, float(mib) * 2**20 / 1e9 if mib.isdigit() else None), uuid) for number, uuid, mib in found]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
