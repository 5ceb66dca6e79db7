"""State of a Dask cluster while units run on it: free capacity, missing workers, and why a worker ended."""

import re
import signal
import time
from dataclasses import dataclass
from typing import Any

from distributed import Client, KilledWorker

from data_contracts.settings import read_settings

_RESTARTED_FOR_MEMORY = "worker-restart-memory"
# A line of Dask's nanny, and how long the replacement of its worker may take.
_DEATH = re.compile(r"was killed by signal (\d+)")
_REPLACEMENT_SECONDS, _RETRY_SECONDS = 10.0, 0.2
# Crashes of compiled code. SIGABRT and SIGBUS also occur if memory or a disk is full.
_CRASHES = (signal.SIGSEGV, signal.SIGFPE)
# New workers find units to run at once.
_MIN_IN_FLIGHT = 8
_IN_FLIGHT_PER_SLOT = 2
# A scheduler whose process hangs keeps its connections.
SILENT_SECONDS = 60.0
# A nanny starts its worker again within seconds. Nobody else can start a local worker.
_LOCAL_TIMEOUT_SECONDS = 60.0
# A worker that is being replaced is away for a moment.
_UNREPORTED_SECONDS = 5.0
_PAUSED = (
    "every worker is paused by its memory limit, which is too small; start workers with a higher --memory-limit, or "
    "with DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False"
)


class ClusterLostError(RuntimeError):
    """The cluster is gone, or has no worker that can run the units. The run can be resumed."""


def is_connected(client: Client) -> bool:
    """Return whether the client is connected to its scheduler."""
    return bool(client.status == "running")


def _workers_of(client: Client) -> list[dict[str, Any]]:
    scheduler: Any = client.scheduler
    identity = client.sync(scheduler.identity, n_workers=-1, callback_timeout=SILENT_SECONDS)
    return list(identity["workers"].values())


def unit_resources(client: Client) -> dict[str, float]:
    """Return the resources that a unit requires: a GPU if any worker offers GPUs.

    This limits each GPU to one unit at a time, however many threads its worker has.
    """
    workers = _workers_of(client)
    return {"GPU": 1} if any("GPU" in worker.get("resources", {}) for worker in workers) else {}


class ClusterState:
    """Watches a cluster during one stage; ``resources`` are those that each unit requires.

    Only ``in_flight`` units should be submitted at a time. The scheduler assigns units that require a GPU to workers
    immediately, all of them, and then blames a worker's death on every unit that waits there.
    """

    def __init__(self, client: Client, resources: dict[str, float]) -> None:
        self._client, self._resources = client, resources
        self._timeout_seconds, self._advice = read_settings().cluster_timeout_seconds, ""
        if client.cluster is not None:
            self._timeout_seconds = min(self._timeout_seconds, _LOCAL_TIMEOUT_SECONDS)
            self._advice = "; use fewer workers (--workers), or a machine with more memory"
        self._without_workers_since: float | None = None
        self._is_reported = False
        self.in_flight = _MIN_IN_FLIGHT

    def check(self) -> str | None:
        """Count the workers. Return a message once if no unit can run for now, else None.

        Raises:
            ClusterLostError: no unit could run until the timeout.
            TimeoutError: the scheduler stays silent.
        """
        workers = _workers_of(self._client)
        slots = sum(self._slots(worker) for worker in workers)
        self.in_flight = max(_MIN_IN_FLIGHT, _IN_FLIGHT_PER_SLOT * slots)
        suitable = [worker for worker in workers if self._slots(worker)]
        if any(worker.get("status") != "paused" for worker in suitable):
            self._without_workers_since = None
            return None
        now = time.monotonic()
        if self._without_workers_since is None:
            self._without_workers_since, self._is_reported = now, False
        cause = _PAUSED if suitable else f"no worker is left{' that offers a GPU' if self._resources else ''}"
        elapsed_seconds = now - self._without_workers_since
        if elapsed_seconds > self._timeout_seconds:
            raise ClusterLostError(f"{cause}, for {self._timeout_seconds:.0f} s{self._advice}")
        if self._is_reported or elapsed_seconds < _UNREPORTED_SECONDS:
            return None
        self._is_reported = True
        return f"{cause}; waiting up to {self._timeout_seconds:.0f} s"

    def record_progress(self) -> None:
        """Restart the timeout because a unit was finished: a paused worker may still finish what it has started."""
        self._without_workers_since = None

    def _slots(self, worker: dict[str, Any]) -> int:
        if self._resources:
            return int(min(worker["resources"].get(name, 0) // need for name, need in self._resources.items()))
        return int(worker["nthreads"])


@dataclass(frozen=True)
class WorkerDeath:
    """Why the workers that ran a unit ended: one line, and whether memory or a crash of its code was the reason."""

    cause: str
    is_memory: bool = False
    is_crash: bool = False


def explain_killed_worker(client: Client, killed: KilledWorker) -> WorkerDeath:
    """Find out why the workers that ran a unit ended, and what to do."""
    tries, worker = killed.allowed_failures + 1, killed.last_worker
    if _ended_for_memory(client, worker.address):
        return WorkerDeath(
            f"out of memory: worker {worker.name} ({worker.address}) exceeded its memory limit of "
            f"{worker.memory_limit / 1e9:.1f} GB and was ended, {tries} times; {_raise_limit(client)}, and run again",
            is_memory=True,
        )
    number = _last_signal(client)
    if number == signal.SIGKILL:
        return WorkerDeath(
            f"out of memory: worker {worker.name} ({worker.address}) was killed {tries} times (SIGKILL), which the "
            "kernel does if the machine or the container has too little memory; use fewer workers (--workers), or more "
            "memory, and run again",
            is_memory=True,
        )
    if number in _CRASHES:
        return WorkerDeath(
            f"the worker that ran it crashed {tries} times ({signal.Signals(number).name}): a decoder or network "
            "cannot process this input; replace or remove the file",
            is_crash=True,
        )
    ended = f" ({_signal_name(number)})" if number else ""
    return WorkerDeath(
        f"the worker that ran it ended {tries} times{ended}: the machine ran out of memory (then use fewer workers), "
        "or a decoder or network crashed on this input; see the worker's log"
    )


def _raise_limit(client: Client) -> str:
    if client.cluster is None:
        return "start workers with a higher --memory-limit"
    return "pass --workers 1, which gives one worker all memory of the machine, or use a machine with more memory"


def _ended_for_memory(client: Client, address: str) -> bool:
    try:
        events = client.get_events(_RESTARTED_FOR_MEMORY)
    except OSError:
        return False
    return any(event.get("worker") == address for _, event in events)


def _last_signal(client: Client) -> int | None:
    """Return the signal that ended a worker last, as the nannies of the workers have logged it; None if unknown."""
    until = time.monotonic() + _REPLACEMENT_SECONDS
    while True:
        try:
            logs = client.get_worker_logs(nanny=True)
        except (OSError, ValueError):
            return None
        # Lines begin with the time. Without a nanny, there is text instead of lines.
        lines = [str(line) for found in logs.values() if not isinstance(found, str) for _, line in found]
        deaths = [(line, found[1]) for line in lines if (found := _DEATH.search(line))]
        # The scheduler knows the nanny of a worker only after the worker is replaced.
        if deaths or time.monotonic() > until:
            return int(max(deaths)[1]) if deaths else None
        time.sleep(_RETRY_SECONDS)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
