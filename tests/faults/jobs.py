"""Jobs for tests of the fan-out: they sleep or kill their worker. Workers import this module."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.jobs import Job
from tasks.units import UnitReport


@dataclass(frozen=True)
class MadeUpArgs:
    """Folder with the log, how long the job takes, and whether it ends its worker."""

    folder: str
    seconds: float
    ends_its_worker: bool


def run_job(store_url: str, compute: object, job: Job[MadeUpArgs]) -> UnitReport:
    """Run a job and append its name, process, start and end to the file ``log`` in its folder."""
    began = time.time()
    if job.arguments.ends_its_worker:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(job.arguments.seconds)
    with open(Path(job.arguments.folder, "log"), "a") as log:
        log.write(f"{job.name} {os.getpid()} {began} {time.time()}\n")
    return UnitReport(job.name, counts={"units": 1})


def make_jobs(folder: Path, count: int, *, seconds: float = 0.1, killer: int | None = None) -> list[Job[MadeUpArgs]]:
    """Return ``count`` jobs; job number ``killer`` kills its worker."""
    return [Job(f"job{n}", f"{n:064x}", MadeUpArgs(str(folder), seconds, n == killer)) for n in range(count)]
