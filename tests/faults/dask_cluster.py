"""A Dask cluster of ``dask scheduler`` and ``dask worker`` processes, on one or several hosts.

``cluster_matrix`` injects faults into it.
"""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.worker_processes import WORKER_ENVIRONMENT
from tests.faults.network import THIS_MACHINE, Host, kill_session
from tests.processes import free_port, program

ROOT = Path(__file__).parents[2]
_START_SECONDS = 60
# Used in network namespaces only, where no other process listens.
_PORT = 8786


@dataclass
class DaskCluster:
    """A scheduler and its workers; ``logs`` is the folder of their output."""

    logs: Path
    scheduler_host: Host = THIS_MACHINE
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    scheduler: subprocess.Popen | None = None
    workers: list[subprocess.Popen] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Value for ``--dask-address``."""
        return f"tcp://{self.scheduler_host.address}:{self.port}"

    def start_scheduler(self) -> None:
        """Start the scheduler, at its previous address if it had one."""
        self.port = self.port or (free_port() if self.scheduler_host is THIS_MACHINE else _PORT)
        command = ["scheduler", "--host", self.scheduler_host.address, "--port", str(self.port), "--no-dashboard"]
        self.scheduler = self._start(self.scheduler_host, command)

    def start_worker(self, *options: str, host: Host = THIS_MACHINE, restart: bool = False) -> subprocess.Popen:
        """Start a nanny with a worker of one thread; ``restart`` starts it again whenever it ends, as systemd does."""
        command = ["worker", self.address, "--host", host.address, "--no-dashboard", "--nworkers", "1"]
        if "--nthreads" not in options:
            command += ["--nthreads", "1"]
        command += ["--local-directory", str(self.logs / "scratch"), *options]
        worker = self._start(host, command, restart=restart)
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count: int) -> None:
        """Wait until ``count`` worker processes run."""
        deadline = time.monotonic() + _START_SECONDS
        while len(self.worker_processes()) < count:
            assert time.monotonic() < deadline, f"no {count} workers; see {self.logs}"
            time.sleep(0.1)

    def worker_processes(self, worker: subprocess.Popen | None = None) -> list[psutil.Process]:
        """Return the processes that run units, of one nanny or of all."""
        found = []
        for started in self.workers if worker is None else [worker]:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(started.pid).children(recursive=True)
                found += [process for process in family if _runs_units(process)]
        return found

    def end_worker(self, worker: subprocess.Popen) -> None:
        """Kill a worker with its nanny."""
        kill_session(worker)
        self.workers.remove(worker)

    def end_workers(self) -> None:
        """Kill every worker with its nanny."""
        for worker in self.workers:
            kill_session(worker)
        self.workers.clear()

    def kill_scheduler(self) -> None:
        """Kill the scheduler."""
        if self.scheduler:
            kill_session(self.scheduler)

    def _start(self, host: Host, arguments: Sequence[str], *, restart: bool = False) -> subprocess.Popen:
        command = [program("dask"), *arguments]
        if restart:
            command = ["sh", "-c", 'while :; do "$@"; sleep 1; done', "sh", *command]
        log = open(self.logs / f"{arguments[0]}-{host.name}-{len(self.workers)}-{time.time():.0f}.log", "wb")  # noqa: SIM115
        environment = WORKER_ENVIRONMENT | {"PYTHONPATH": str(ROOT)} | self.environment
        with log:
            return host.start(command, env=environment, stdout=log, stderr=log, cwd=self.logs)


def _runs_units(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False


def is_writing(process: psutil.Process, store: Path) -> bool:
    """Return whether a process is writing a part of the store."""
    with contextlib.suppress(psutil.Error, OSError):
        return any(
            Path(file.path).parent.name == ".unfinished" for file in process.open_files() if str(store) in file.path
        )
    return False


@contextlib.contextmanager
def dask_cluster(logs: Path, *, scheduler_host: Host = THIS_MACHINE, **environment: str) -> Iterator[DaskCluster]:
    """Start a scheduler without workers; kill all processes of the cluster when the block ends."""
    logs.mkdir(parents=True, exist_ok=True)
    # The tests silence the logs of Dask in this process; these are read after a failure.
    environment = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "info"} | environment
    cluster = DaskCluster(logs, scheduler_host, environment)
    cluster.start_scheduler()
    try:
        yield cluster
    finally:
        cluster.end_workers()
        cluster.kill_scheduler()
