"""Dask clusters: one that exists, by address, or a local one with a process per GPU or per core."""

import contextlib
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

from infra.cluster_state import ClusterLostError
from infra.machine import usable_cores, visible_gpus
from infra.patience import patience_seconds
from infra.worker_processes import start_forking

logger = logging.getLogger(__name__)
_CONNECT_TIMEOUT = "5s"
_HOST = "127.0.0.1"
_NO_DASHBOARD = "127.0.0.1:0"
_RETRY_SECONDS = 1.0
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

    A local cluster has one process per GPU where there are GPUs (each sees only its own), else up to ``workers``
    processes of one thread, one per core if not given: as many as there are ``units`` to begin with, more with
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
        _local_cluster(workers or usable_cores(), units) as cluster,
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
    started, patience = time.monotonic(), patience_seconds()
    while True:
        try:
            return connect()
        except ClusterError as error:
            if time.monotonic() - started > patience:
                raise ClusterLostError(f"{error} (for {patience:.0f} s)") from error
            time.sleep(_RETRY_SECONDS)


def _local_cluster(workers: int, units: int | None) -> Any:
    gpus = visible_gpus()
    if gpus:
        return gpu_cluster(gpus)
    count = workers if units is None else max(1, min(workers, units))
    logger.info("local cluster: %d worker processes", count)
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        host=_HOST,
        dashboard_address=_NO_DASHBOARD,
        memory_limit=_memory_limit(workers),
    )


def add_workers(client: Client, *, workers: int | None, units: int) -> None:
    """Let a local cluster of CPU workers have as many as there are units, up to ``workers``; leave others alone."""
    cluster = client.cluster
    count = min(workers or usable_cores(), units)
    if isinstance(cluster, LocalCluster) and len(cluster.worker_spec) < count:
        cluster.scale(count)


def gpu_cluster(devices: list[str]) -> SpecCluster:
    """One worker process of one thread per device, which offers the resource ``GPU``."""
    workers = {
        f"gpu{device}": {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "host": _HOST,
                "dashboard": False,
                "memory_limit": _memory_limit(len(devices)),
                "resources": {"GPU": 1},
                "env": {"CUDA_VISIBLE_DEVICES": device},
            },
        }
        for device in devices
    }
    options = {"host": _HOST, "port": 0, "dashboard_address": _NO_DASHBOARD}
    return SpecCluster(scheduler={"cls": Scheduler, "options": options}, workers=workers)


def _memory_limit(workers: int) -> int:
    """Half of the machine, or all of it for one worker, in bytes: what no healthy worker needs.

    It is there so that a unit which runs away is ended with its cause named, before the kernel ends something else. An
    equal share would be too little for some: pages of files that a worker has mapped count as its memory.
    """
    return int(MEMORY_LIMIT / min(workers, 2))
