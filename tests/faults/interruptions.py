"""Start the command, wait for a number of finished units, end one of its processes, and report the outcome."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from tests.processes import program

Victim = Literal["command", "worker", "forker", "Ctrl-C", "SIGTERM"]
VICTIMS: tuple[Victim, ...] = ("command", "worker", "forker", "Ctrl-C", "SIGTERM")
_WAIT_SECONDS = 240
# The time that processes of the command may outlive it.
_ORPHAN_SECONDS = 20


@dataclass(frozen=True)
class Interrupted:
    """Exit code and error output of the command, and the command lines of processes that outlived it."""

    code: int
    errors: str
    orphans: list[str]


def interrupt(
    arguments: list[str],
    store: Path,
    *,
    dataset: str,
    units: int,
    victim: Victim,
) -> Interrupted:
    """Run ``affwild2 ARGUMENTS`` and end the victim once ``units`` units (or bundles) of a dataset are finished.

    Progress, not time, selects the moment, so that it is the same on fast and slow machines. The forker is the process
    that workers are forked from.
    """
    process = subprocess.Popen(
        [program("affwild2"), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _wait_for(process, store / dataset, units)
        family = psutil.Process(process.pid).children(recursive=True)
        _end(victim, process, family)
        _, errors = process.communicate(timeout=_WAIT_SECONDS)
    finally:
        process.kill()
    _, alive = psutil.wait_procs(family, timeout=_ORPHAN_SECONDS)
    return Interrupted(process.returncode, errors, [" ".join(p.cmdline()) for p in alive if p.is_running()])


def _wait_for(process: subprocess.Popen[str], folder: Path, units: int) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while count_finished(folder) < units:
        assert process.poll() is None, f"ended too early: {process.communicate()[1][-2000:]}"
        assert time.monotonic() < deadline, f"no {units} units in {folder} after {_WAIT_SECONDS} s"
        time.sleep(0.01)


def count_finished(folder: Path) -> int:
    """Count the manifests of units and bundles below a folder, and the checkpoints of trainings."""
    patterns = ("_manifest-*.json", "manifest.json", "_checkpoint.pt")
    return sum(1 for pattern in patterns for _ in folder.rglob(pattern))


def _end(victim: Victim, process: subprocess.Popen[str], family: list[psutil.Process]) -> None:
    if victim == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    elif victim == "SIGTERM":
        process.terminate()
    elif victim == "command":
        process.kill()
    else:
        forkers = [child for child in family if "forkserver" in " ".join(child.cmdline())]
        forker = next(child for child in forkers if child.ppid() == process.pid)
        found = [forker] if victim == "forker" else [child for child in forkers if child.ppid() == forker.pid]
        assert found, f"no {victim} among {[child.cmdline() for child in family]}"
        found[0].kill()
