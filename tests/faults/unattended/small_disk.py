"""Disks of a few kilobytes or megabytes in memory, to be filled."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def missing_for_mounts() -> str | None:
    """Return what is missing to mount small disks, or None."""
    can_mount = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    return None if can_mount and os.geteuid() == 0 else "needs root, to mount small disks"


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a disk of a size in memory over a folder; yield a function that mounts it again with other options.

    The content of the folder moves to the disk, and back when the block ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as kept:
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "affwild2-fault", folder], check=True)
        try:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True) and None
            shutil.rmtree(kept)
            shutil.copytree(folder, kept)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
