"""What this machine has to work with: cores and GPUs, told without importing a framework."""

import os
import shutil
import subprocess


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, without importing a framework."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return answer.stdout.split() if answer.returncode == 0 else []


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
