"""Dask clusters: one that exists, by address, or a local one with a process per GPU or per core."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import dask
import distributed.utils
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

from infra.machine import usable_cores, visible_gpus
from infra.worker_processes import start_forking

logger = logging.getLogger(__name__)
_CONNECT_TIMEOUT = "5s"
_HOST = "127.0.0.1"
_NO_DASHBOARD = "127.0.0.1:0"
_FORKED_WORKERS = {
    "distributed.worker.multiprocessing-method": "forkserver",
    # It would set variables in this process, not in workers, which have theirs from infra.worker_processes.
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.comm.timeouts.connect": "30s",
}
# Left to itself, distributed imports every optional package that is installed, here and in the process to fork.
distributed.utils._forkserver_preload_set = True


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
    try:
        client = Client(address, timeout=_CONNECT_TIMEOUT)
    except (OSError, ValueError) as error:
        raise ClusterError(f"expected a Dask scheduler at {address}, got no answer: {error}") from error
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise ClusterError(f"expected workers at {address}, found none; start dask worker {address} first")
        yield client


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


def _memory_limit(workers: int) -> str | float:
    """An equal share of the machine, or no limit where shares would be too small for the networks."""
    share = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / workers
    return "auto" if share >= 4e9 else 0


def unit_resources(client: Client) -> dict[str, float]:
    """What a unit of work must ask for: a GPU if the workers offer GPUs.

    Without the check, work that asks for what no worker offers would wait for ever.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any("GPU" in worker.get("resources", {}) for worker in workers) else {}
