"""What a client can tell of its cluster while work is on it: room, loss, and why a worker ended.

Opening a cluster is in ``clusters``; what is submitted to it, in ``flows``.
"""

import time

from distributed import Client, KilledWorker

from data_contracts.settings import read_settings

_RESTARTED_FOR_MEMORY = "worker-restart-memory"
# So few are always on the cluster, so that workers that come find something to do.
_LEAST_IN_FLIGHT = 8
_IN_FLIGHT_PER_SLOT = 2
_UNSAID_SECONDS = 5.0


class ClusterLostError(RuntimeError):
    """A cluster that was there has gone, or has no worker that would do the work. The run can be resumed."""


def is_connected(client: Client) -> bool:
    """Whether the client has its scheduler."""
    return bool(client.status == "running")


def unit_resources(client: Client) -> dict[str, float]:
    """What a unit of work must ask for: a GPU if the workers offer GPUs.

    It is what keeps one unit at a time on a GPU, however many threads its worker has.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any("GPU" in worker.get("resources", {}) for worker in workers) else {}


class ClusterState:
    """Watches a cluster for one stage; ``resources`` is what its units ask for.

    Units wait here rather than on the scheduler: those that ask for a GPU would be given out to workers at once, all of
    them, and a unit that ends its worker would be blamed on every one that waits there.
    """

    def __init__(self, client: Client, resources: dict[str, float]) -> None:
        self._client, self._resources = client, resources
        self._timeout_seconds = read_settings().cluster_timeout_seconds
        self._without_since: float | None = None
        self._said = False
        self.in_flight = _LEAST_IN_FLIGHT

    def look(self) -> str | None:
        """Count the workers anew; returns what to tell a person, once, if work cannot go on for now.

        Raises:
            ClusterLostError: it could not for as long as a run waits.
        """
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        slots = sum(self._slots(worker) for worker in workers)
        self.in_flight = max(_LEAST_IN_FLIGHT, _IN_FLIGHT_PER_SLOT * slots)
        fit = [worker for worker in workers if self._slots(worker)]
        able = [worker for worker in fit if worker.get("status") != "paused"]
        if able:
            self._without_since = None
            return None
        now = time.monotonic()
        if self._without_since is None:
            self._without_since, self._said = now, False
        why = _PAUSED if fit else f"no worker is left{' that offers a GPU' if self._resources else ''}"
        if now - self._without_since > self._timeout_seconds:
            raise ClusterLostError(f"{why}, for {self._timeout_seconds:.0f} s")
        # A worker that is replaced is away for a moment.
        if self._said or now - self._without_since < _UNSAID_SECONDS:
            return None
        self._said = True
        return f"{why}; waiting up to {self._timeout_seconds:.0f} s"

    def progressed(self) -> None:
        """Take note that work goes on: a worker that is paused may still end what it has begun."""
        self._without_since = None

    def _slots(self, worker: dict[str, object]) -> int:
        offered = worker.get("resources")
        if self._resources:
            return int(min(offered.get(name, 0) // need for name, need in self._resources.items()))  # type: ignore[attr-defined]
        return int(worker["nthreads"])  # type: ignore[call-overload]


_PAUSED = (
    "every worker is paused by its memory limit, which is too small; start workers with a higher --memory-limit, or "
    "with DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False"
)


def cause_of_death(client: Client, killed: KilledWorker) -> str:
    """Why the workers that ran a unit ended, and what to do, in a line."""
    tries, limit = killed.allowed_failures + 1, killed.last_worker.memory_limit
    if _ended_for_memory(client, killed.last_worker.address):
        return (
            f"out of memory: the worker that ran it passed its limit of {limit / 1e9:.1f} GB and was ended, {tries} "
            "times; give workers more memory (dask worker --memory-limit) or use fewer of them, and run again"
        )
    return (
        f"the worker that ran it ended {tries} times: the machine ran out of memory (then use fewer workers), or a "
        "decoder or network crashed on this input; the worker's log says more"
    )


def _ended_for_memory(client: Client, address: str) -> bool:
    try:
        events = client.get_events(_RESTARTED_FOR_MEMORY)
    except OSError:
        return False
    return any(event.get("worker") == address for _, event in events)
