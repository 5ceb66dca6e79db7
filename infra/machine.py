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
    known = _gpus_of_machine() if named is None or named.strip() not in ("", "-1") else []
    if named is None:
        return known
    by_id = {gpu.id: gpu for gpu in known}
    ids = [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [by_id.get(name, Gpu(name)) for name in ids]


def _gpus_of_machine() -> list[Gpu]:
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    lines = answer.stdout.splitlines() if answer.returncode == 0 else []
    found = (line.partition(",")[::2] for line in lines)
    # Of memory that a GPU shares with the processor, nvidia-smi says that it is not available.
    return [Gpu(name.strip(), float(mib) * 2**20 / 1e9 if mib.strip().isdigit() else None) for name, mib in found]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
