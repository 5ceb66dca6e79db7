"""Jobs for tests of the fan-out: they sleep or kill their worker. Workers import this module."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from data_contracts.details.records import Details
from data_contracts.store.store import Store
from models.engines.progress import report_progress
from tasks.units import Files, Job

# In place of a signal: the job takes more and more memory.
MEMORY = -1
_STEP_BYTES, _STEP_SECONDS = 20_000_000, 0.02
_REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class MadeUpArgs:
    """Folder with the log, how long the job takes, and the signal with which it ends its worker (0: none)."""

    folder: str
    seconds: float
    ends_with: int


def make(store: Store, job: Job[MadeUpArgs]) -> Files:
    """Append the job's name, process, start and end to the file ``log`` in its folder; return an empty bundle."""
    began = time.time()
    if job.arguments.ends_with == MEMORY:
        taken = []
        while True:
            taken.append(b"x" * _STEP_BYTES)
            time.sleep(_STEP_SECONDS)
    if job.arguments.ends_with:
        os.kill(os.getpid(), job.arguments.ends_with)
    ends_at = time.monotonic() + job.arguments.seconds
    while (left := ends_at - time.monotonic()) > 0:
        report_progress("{:.0f} s left", left)
        time.sleep(min(left, _REPORT_SECONDS))
    with open(Path(job.arguments.folder, "log"), "a") as log:
        log.write(f"{job.name} {os.getpid()} {began} {time.time()}\n")
    return Files({}, Details())


def make_jobs(
    folder: Path, count: int, *, seconds: float = 0.1, killer: int | None = None, ends_with: int = signal.SIGKILL
) -> list[Job[MadeUpArgs]]:
    """Return ``count`` jobs; job number ``killer`` ends its worker with a signal."""
    signals = [ends_with if n == killer else 0 for n in range(count)]
    return [Job(f"job{n}", f"{n:064x}", MadeUpArgs(str(folder), seconds, signals[n])) for n in range(count)]
