"""Dask clusters: one that exists, by address, or a local one with a process per core, or some for each GPU."""

import contextlib
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import dask
import distributed.utils
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster
from distributed.system import MEMORY_LIMIT

from data_contracts.settings import read_settings
from infra.cluster_state import ClusterLostError
from infra.machine import Gpu, usable_cores, visible_gpus
from infra.worker_processes import start_forking

logger = logging.getLogger(__name__)
_CONNECT_TIMEOUT = "5s"
_HOST = "127.0.0.1"
_NO_DASHBOARD = "127.0.0.1:0"
_RETRY_SECONDS = 1.0
# Context, networks, a batch of crops and a chunk of frames, at most; beyond eight processes a GPU does no more.
_GPU_GB_OF_A_WORKER, _MOST_ON_A_GPU = 8.0, 8
_FORKED_WORKERS = {
    "distributed.worker.multiprocessing-method": "forkserver",
    # It would set variables in this process, not in workers, which have theirs from infra.worker_processes.
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.comm.timeouts.connect": "30s",
    # Memory that was freed stays with a worker: one that is paused for it would stay paused.
    "distributed.worker.memory.pause": False,
}
T = TypeVar("T")
# Left to itself, distributed imports every optional package that is installed, here and in the process to fork.
distributed.utils._forkserver_preload_set = True
# It has a level of its own, and would show every try to find a scheduler that has gone.
logging.getLogger("distributed.client").setLevel(logging.getLogger("distributed").level)


class ClusterError(RuntimeError):
    """No cluster answers at the address, or it has no worker."""


@contextlib.contextmanager
def open_cluster(
    *, address: str | None = None, workers: int | None = None, units: int | None = None, modules: Sequence[str] = ()
) -> Iterator[Client]:
    """A client of the cluster at ``address``, or of a local one that ends with the block.

    A local cluster has processes of one thread, up to ``workers``: if not given, one per core, or some for each GPU
    where there are GPUs (each sees only its own). As many as there are ``units`` to begin with, more with
    ``add_workers``. They are forked from a process that has imported ``modules``.

    Raises:
        ClusterError: the address does not answer, or no worker is there.
    """
    if address is not None:
        with _connected(address) as client:
            yield client
        return
    start_forking(modules)
    with (
        tempfile.TemporaryDirectory(prefix="affwild2-dask-") as scratch,
        dask.config.set({"temporary-directory": scratch, **_FORKED_WORKERS}),
        _local_cluster(workers, units) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    shown = shown_address(address)
    try:
        # Certificates for tls:// and the like are taken from Dask's own settings.
        client = Client(address, timeout=_CONNECT_TIMEOUT)
    except (OSError, ValueError, TypeError) as error:
        # What stands before an @ is a name and a password.
        cause = " ".join(part for part in str(error).split() if "@" not in part)
        raise ClusterError(f"expected a Dask scheduler at {shown}, got no answer: {cause}") from error
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise ClusterError(f"expected workers at {shown}, found none; start dask worker {shown} first")
        yield client


def shown_address(address: str) -> str:
    """An address without name and password, for messages."""
    found = urlsplit(address)
    return address.replace(f"{found.netloc.rpartition('@')[0]}@", "") if "@" in found.netloc else address


def wait_for_cluster(connect: Callable[[], T]) -> T:
    """What ``connect`` returns, once it does: it is called again for as long as a run waits for its cluster.

    Raises:
        ClusterLostError: that is over, and there is still no scheduler with a worker.
    """
    started, timeout_seconds = time.monotonic(), read_settings().cluster_timeout_seconds
    while True:
        try:
            return connect()
        except ClusterError as error:
            if time.monotonic() - started > timeout_seconds:
                raise ClusterLostError(f"{error} (for {timeout_seconds:.0f} s)") from error
            time.sleep(_RETRY_SECONDS)


def _local_cluster(workers: int | None, units: int | None) -> Any:
    gpus = visible_gpus()
    most = _most_workers(workers, gpus)
    count = most if units is None else max(1, min(most, units))
    if gpus:
        logger.info("local cluster: %d worker processes for %d GPUs", count, len(gpus))
        return GpuCluster(gpus, count=count, most=most)
    logger.info("local cluster: %d worker processes", count)
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        host=_HOST,
        dashboard_address=_NO_DASHBOARD,
        memory_limit=_memory_limit(most),
    )


def _most_workers(workers: int | None, gpus: Sequence[Gpu]) -> int:
    """As many as were asked for; else one per core, or for each GPU what its memory and its share of the cores allow.

    One process keeps no GPU busy: it decodes, cuts and writes, and the GPU waits. Several take turns on it.
    """
    if workers is not None:
        return workers
    cores = usable_cores()
    if not gpus:
        return cores
    memory_gb = min(gpu.memory_gb or _GPU_GB_OF_A_WORKER for gpu in gpus)
    return len(gpus) * max(1, min(_MOST_ON_A_GPU, cores // len(gpus), int(memory_gb / _GPU_GB_OF_A_WORKER)))


def add_workers(client: Client, *, workers: int | None, units: int) -> None:
    """Let a local cluster have as many workers as there are units, up to ``workers``; leave others alone."""
    cluster = client.cluster
    if isinstance(cluster, LocalCluster | GpuCluster):
        most = cluster.most if isinstance(cluster, GpuCluster) else workers or usable_cores()
        count = min(most, units)
        if len(cluster.worker_spec) < count:
            cluster.scale(count)


class GpuCluster(SpecCluster):
    """Worker processes of one thread which offer the resource ``GPU``, given out to the GPUs in turn."""

    def __init__(self, gpus: Sequence[Gpu], *, count: int, most: int) -> None:
        self.most, self._gpus, self._memory_limit = most, gpus, _memory_limit(most)
        options = {"host": _HOST, "port": 0, "dashboard_address": _NO_DASHBOARD}
        workers = dict(self._spec(number) for number in range(count))
        super().__init__(scheduler={"cls": Scheduler, "options": options}, workers=workers)

    def new_worker_spec(self) -> dict[str, Any]:
        """What the next worker is, by its name."""
        number = next(number for number in itertools.count() if self._spec(number)[0] not in self.worker_spec)
        return dict([self._spec(number)])

    def _spec(self, number: int) -> tuple[str, dict[str, Any]]:
        gpu = self._gpus[number % len(self._gpus)]
        options = {
            "nthreads": 1,
            "host": _HOST,
            "dashboard": False,
            "memory_limit": self._memory_limit,
            "resources": {"GPU": 1},
            "env": {"CUDA_VISIBLE_DEVICES": gpu.id},
        }
        return f"gpu{gpu.id}-{number // len(self._gpus)}", {"cls": Nanny, "options": options}


def _memory_limit(workers: int) -> int:
    """Half of the machine, or all of it for one worker, in bytes: what no healthy worker needs.

    It is there so that a unit which runs away is ended with its cause named, before the kernel ends something else. An
    equal share would be too little for some: pages of files that a worker has mapped count as its memory.
    """
    return int(MEMORY_LIMIT / min(workers, 2))
