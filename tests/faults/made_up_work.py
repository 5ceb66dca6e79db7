"""Trivial jobs for tests of scheduling: a job sleeps or kills its worker. Workers import this module."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.jobs import Job
from tasks.units import UnitReport


@dataclass(frozen=True)
class MadeUpArgs:
    """Folder of the log, duration of the job, and whether the job kills its worker."""

    folder: str
    seconds: float
    kills_worker: bool


def run_made_up(store_url: str, compute: object, job: Job[MadeUpArgs]) -> UnitReport:
    """Run a job, and append its start and end times to the file ``log`` in its folder."""
    began = time.time()
    if job.arguments.kills_worker:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(job.arguments.seconds)
    with open(Path(job.arguments.folder, "log"), "a") as log:
        log.write(f"{job.name} {os.getpid()} {began} {time.time()}\n")
    return UnitReport(job.name, counts={"units": 1})


def made_up_jobs(folder: Path, count: int, *, seconds: float = 0.1, killer: int | None = None) -> list[Job[MadeUpArgs]]:
    """Return ``count`` jobs; job number ``killer`` kills its worker."""
    return [Job(f"job{n}", f"{n:064x}", MadeUpArgs(str(folder), seconds, n == killer)) for n in range(count)]
