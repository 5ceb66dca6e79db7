"""A Dask cluster started by hand: ``dask scheduler`` and ``dask worker`` as processes, on one or several hosts.

``cluster_matrix`` disturbs its processes.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.worker_processes import WORKER_ENVIRONMENT
from tests.faults.hosts import THIS_MACHINE, Host, end_session
from tests.prefect_service import free_port

ROOT = Path(__file__).parents[2]
_START_SECONDS = 60
# Used only in network namespaces, where no other process uses ports.
_PORT = 8786


@dataclass
class HandStarted:
    """A scheduler and its workers; ``logs`` is the folder of their log files."""

    logs: Path
    scheduler_host: Host = THIS_MACHINE
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    scheduler: subprocess.Popen | None = None
    workers: list[subprocess.Popen] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The value for ``--dask-address``."""
        return f"tcp://{self.scheduler_host.address}:{self.port}"

    def start_scheduler(self) -> None:
        """Start the scheduler; a restart uses the same address."""
        self.port = self.port or (free_port() if self.scheduler_host is THIS_MACHINE else _PORT)
        command = ["scheduler", "--host", self.scheduler_host.address, "--port", str(self.port), "--no-dashboard"]
        self.scheduler = self._start(self.scheduler_host, command)

    def start_worker(self, *options: str, host: Host = THIS_MACHINE, again: bool = False) -> subprocess.Popen:
        """Start a single-threaded worker with its nanny; ``again``: restart it whenever it ends."""
        command = ["worker", self.address, "--host", host.address, "--no-dashboard", "--nworkers", "1"]
        if "--nthreads" not in options:
            command += ["--nthreads", "1"]
        command += ["--local-directory", str(self.logs / "scratch"), *options]
        worker = self._start(host, command, again=again)
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count: int) -> None:
        """Wait until ``count`` worker processes run."""
        deadline = time.monotonic() + _START_SECONDS
        while len(self.worker_processes()) < count:
            assert time.monotonic() < deadline, f"expected {count} workers; see {self.logs}"
            time.sleep(0.1)

    def worker_processes(self, worker: subprocess.Popen | None = None) -> list[psutil.Process]:
        """Return the processes that run units, of one started worker or of all."""
        found = []
        for started in self.workers if worker is None else [worker]:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(started.pid).children(recursive=True)
                found += [process for process in family if _runs_units(process)]
        return found

    def end_worker(self, worker: subprocess.Popen) -> None:
        """Kill a worker with its nanny."""
        end_session(worker)
        self.workers.remove(worker)

    def end_workers(self) -> None:
        """Kill every worker with its nanny."""
        for worker in self.workers:
            end_session(worker)
        self.workers.clear()

    def kill_scheduler(self) -> None:
        """Kill the scheduler."""
        if self.scheduler:
            end_session(self.scheduler)

    def _start(self, host: Host, arguments: Sequence[str], *, again: bool = False) -> subprocess.Popen:
        command = [str(Path(sys.executable).with_name("dask")), *arguments]
        if again:
            command = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "again", *command]
        log = open(self.logs / f"{arguments[0]}-{host.name}-{len(self.workers)}-{time.time():.0f}.log", "wb")  # noqa: SIM115
        environment = WORKER_ENVIRONMENT | {"PYTHONPATH": str(ROOT)} | self.environment
        with log:
            return host.start(command, env=environment, stdout=log, stderr=log, cwd=self.logs)


def _runs_units(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False


def writes_in(process: psutil.Process, store: Path) -> bool:
    """Return whether a process is writing a part of the store."""
    with contextlib.suppress(psutil.Error, OSError):
        return any(
            Path(file.path).parent.name == ".unfinished" for file in process.open_files() if str(store) in file.path
        )
    return False


@contextlib.contextmanager
def hand_started(logs: Path, *, scheduler_host: Host = THIS_MACHINE, **environment: str) -> Iterator[HandStarted]:
    """Start a scheduler without workers; kill the whole cluster at the end of the block."""
    logs.mkdir(parents=True, exist_ok=True)
    # Workers of tests log at level info, whatever the log level of the tests.
    environment = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "info"} | environment
    cluster = HandStarted(logs, scheduler_host, environment)
    cluster.start_scheduler()
    try:
        yield cluster
    finally:
        cluster.end_workers()
        cluster.kill_scheduler()
