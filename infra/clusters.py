"""Dask clusters: an existing one by address, or a local one with a process per core or several per GPU."""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import dask
import distributed.utils
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster
from distributed.comm import connect, parse_address, parse_host_port
from distributed.comm.registry import get_backend
from distributed.core import send_recv
from distributed.security import Security
from distributed.system import MEMORY_LIMIT
from distributed.utils import LoopRunner

from data_contracts.settings import read_settings
from infra.cluster_state import ClusterLostError
from infra.machine import Gpu, usable_cores, visible_gpus
from infra.worker_processes import start_forking

logger = logging.getLogger(__name__)
_CONNECT_TIMEOUT = "5s"
# A busy scheduler may take seconds to answer.
_ANSWER_SECONDS = 20
_HOST = "127.0.0.1"
# The scheduler of a run has no dashboard, because importing bokeh would delay every run. An address of None would still
# open the default port.
_NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
_RETRY_SECONDS = 1.0
_MAX_CAUSE = 300
# Measured: 22 open files of a process with a local cluster, and 9 per worker.
_OPEN_FILES, _OPEN_FILES_OF_WORKER = 28, 9
# A worker needs at most 8 GB for its context, networks, a batch of crops and a chunk of frames. More than eight workers
# do not increase the throughput of a GPU.
_GPU_GB_PER_WORKER, _MAX_WORKERS_PER_GPU = 8.0, 8
_FORKED_WORKERS = {
    "distributed.worker.multiprocessing-method": "forkserver",
    # These would be set in this process. Workers get theirs from infra.worker_processes.
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.comm.timeouts.connect": "30s",
    # Workers keep freed memory, so that a paused worker would stay paused.
    "distributed.worker.memory.pause": False,
    # By default, Dask samples the stack of each worker every 10 ms and checks each event loop every 20 ms: 3 % of the
    # processor time of an extraction.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    # Nobody reads the pages and metrics of these servers, whose imports take a tenth of a second per process.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
T = TypeVar("T")
# Otherwise distributed imports every installed optional package, here and in the process that workers are forked from.
distributed.utils._forkserver_preload_set = True
# This logger has its own level, and would log every try to reach a lost scheduler.
logging.getLogger("distributed.client").setLevel(logging.getLogger("distributed").level)
# Nannies log why a worker ended, for ``cluster_state``. It is not displayed.
for _handler in logging.getLogger("distributed").handlers:
    _handler.setLevel(logging.getLogger("distributed").level)
logging.getLogger("distributed.nanny").setLevel(logging.INFO)


class ClusterError(RuntimeError):
    """No scheduler answers at the address, it has no workers, or local workers cannot start."""


@contextlib.contextmanager
def open_cluster(
    *,
    address: str | None = None,
    workers: int | None = None,
    units: int | None = None,
    modules: Sequence[str] = (),
    on_wait: Callable[[str], None] = logger.warning,
) -> Iterator[Client]:
    """Return a client of the cluster at ``address``, or of a local cluster that ends with the block.

    Workers of a local cluster are processes with one thread, forked from a process that has imported ``modules``. On a
    machine with GPUs, each worker sees one GPU.

    Args:
        workers: maximum number of local workers; None: one per core, or several per GPU.
        units: number of units to run; no more workers than units are started. ``add_workers`` adds more later.
        on_wait: called with a message if the cluster at ``address`` has no workers yet.

    Raises:
        ClusterError: no scheduler answers at the address, or there are no workers until the timeout.
    """
    if address is not None:
        _wait_for_workers(address, on_wait)
        with Client(address, timeout=_CONNECT_TIMEOUT) as client:
            yield client
        return
    start_forking(modules)
    with (
        tempfile.TemporaryDirectory(prefix="affwild2-dask-") as scratch,
        dask.config.set({"temporary-directory": scratch, **_FORKED_WORKERS}),
        _ended_after(_local_cluster(workers, units)) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextlib.contextmanager
def _ended_after(cluster: Any) -> Iterator[Any]:
    """End a cluster with the block. Workers that hang must not hide the reason for which the block ended."""
    try:
        yield cluster
    finally:
        try:
            cluster.close()
        except TimeoutError:
            logger.warning("a local worker hangs and did not end in time; it ends with this process")


def _wait_for_workers(address: str, on_wait: Callable[[str], None]) -> None:
    """Wait until the scheduler at an address has a worker; workers may start later than a run."""
    shown, timeout_seconds = _hide_password(address), read_settings().cluster_timeout_seconds
    started, is_reported = time.monotonic(), False
    while not (identity := _ask_scheduler(address)).get("workers"):
        if "workers" not in identity:
            found = identity.get("type")
            raise ClusterError(f"expected a Dask scheduler at {shown}, got a {found}; pass the address of a scheduler")
        start = f"start dask worker {shown}"
        if time.monotonic() - started > timeout_seconds:
            raise ClusterError(f"expected workers at {shown}, found none for {timeout_seconds:.0f} s; {start} first")
        if not is_reported:
            on_wait(f"no worker at {shown} yet; waiting up to {timeout_seconds:.0f} s; {start}")
            is_reported = True
        time.sleep(_RETRY_SECONDS)


def _ask_scheduler(address: str) -> dict[str, Any]:
    """Return the facts that a scheduler states about itself.

    ``Client`` would wait without limit for the first bytes of a service that accepts connections and stays silent.
    """
    shown = _hide_password(address)

    async def ask() -> Any:
        # Dask's own settings name the certificates for tls://.
        options = Security().get_connection_args("client")
        async with asyncio.timeout(_ANSWER_SECONDS):
            comm = await connect(address, timeout=_CONNECT_TIMEOUT, **options)
            return await send_recv(comm, op="identity", close=True)

    try:
        scheme, place = parse_address(address)
        get_backend(scheme)
        parse_host_port(place)
    except ValueError as error:
        raise ClusterError(f"expected a Dask scheduler as tcp://HOST:8786, got {shown}: {_one_line(error)}") from error
    try:
        answer = LoopRunner(asynchronous=False).run_sync(ask)
    except Exception as error:  # Bytes of another service can cause any error while they are parsed.
        cause = _explain_no_answer(error)
        raise ClusterError(
            f"expected a Dask scheduler at {shown}, got {cause}; check the address (the default port is 8786)"
        ) from error
    return answer if isinstance(answer, dict) else {"type": "service of another kind"}


def _explain_no_answer(error: BaseException) -> str:
    if type(error) is TimeoutError:
        return f"a connection but no answer for {_ANSWER_SECONDS} s"
    if not isinstance(error, OSError | TypeError):
        return "an answer in another protocol"
    text = _one_line(error)
    # The error behind a timeout states the cause.
    while error.__cause__ is not None:
        error = error.__cause__
        text = _one_line(error) or text
    return f"no answer: {text}"


def _one_line(error: BaseException) -> str:
    # User name and password are before an @.
    return " ".join(part for part in str(error).split() if "@" not in part)


def _hide_password(address: str) -> str:
    found = urlsplit(address)
    return address.replace(f"{found.netloc.rpartition('@')[0]}@", "") if "@" in found.netloc else address


def wait_for_cluster(connect: Callable[[], T]) -> T:
    """Call ``connect`` until it succeeds, and return its result.

    Raises:
        ClusterLostError: there was no scheduler with a worker until the timeout.
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
    try:
        return _start_local_cluster(workers, units)
    except (RuntimeError, OSError) as error:
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        # The errors of Dask only say which part did not start.
        reason = next((one for one in chain if isinstance(one, OSError)), error)
        what = " ".join(str(reason).split())[:_MAX_CAUSE]
        limits = "the limits of open files, processes and memory of this machine"
        raise ClusterError(f"expected local workers to start, got: {what}; check {limits}") from error


def _start_local_cluster(workers: int | None, units: int | None) -> Any:
    gpus = visible_gpus()
    most = _most_workers(workers, gpus)
    count = most if units is None else max(1, min(most, units))
    _check_open_files(count)
    if gpus:
        logger.info("local cluster: %d worker processes for %d GPUs", count, len(gpus))
        return GpuCluster(gpus, count=count, most=most)
    logger.info("local cluster: %d worker processes", count)
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        host=_HOST,
        scheduler_kwargs=_NO_DASHBOARD,
        memory_limit=_memory_limit(most),
        env=_current_settings(),
        silence_logs=False,
    )


def _check_open_files(workers: int) -> None:
    """Refuse a limit of open files that workers would exceed while they start, halfway through.

    Raises:
        OSError: the limit is too low.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _OPEN_FILES + _OPEN_FILES_OF_WORKER * workers
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise OSError(errno.EMFILE, f"at most {allowed} open files allowed, {needed} needed for workers: {workers}")


def _most_workers(workers: int | None, gpus: Sequence[Gpu]) -> int:
    """Return ``workers``; by default one per core, or as many per GPU as its memory and its share of the cores allow.

    One process cannot keep a GPU busy: the GPU waits while the process decodes, crops and writes.
    """
    if workers is not None:
        return workers
    cores = usable_cores()
    if not gpus:
        return cores
    memory_gb = min(gpu.memory_gb or _GPU_GB_PER_WORKER for gpu in gpus)
    return len(gpus) * max(1, min(_MAX_WORKERS_PER_GPU, cores // len(gpus), int(memory_gb / _GPU_GB_PER_WORKER)))


def add_workers(client: Client, *, workers: int | None, units: int) -> None:
    """Scale a local cluster up to one worker per unit, at most ``workers``. Other clusters are not changed."""
    cluster = client.cluster
    if isinstance(cluster, LocalCluster | GpuCluster):
        most = cluster.most if isinstance(cluster, GpuCluster) else workers or usable_cores()
        count = min(most, units)
        if len(cluster.worker_spec) < count:
            cluster.scale(count)


class GpuCluster(SpecCluster):
    """Worker processes with one thread and the resource ``GPU``, distributed evenly over the GPUs."""

    def __init__(self, gpus: Sequence[Gpu], *, count: int, most: int) -> None:
        self.most, self._gpus, self._memory_limit = most, gpus, _memory_limit(most)
        options = {"host": _HOST, "port": 0, **_NO_DASHBOARD}
        workers = dict(self._spec(number) for number in range(count))
        super().__init__(scheduler={"cls": Scheduler, "options": options}, workers=workers)

    def new_worker_spec(self) -> dict[str, Any]:
        """Return the name and specification of the next worker."""
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
            "env": {**_current_settings(), "CUDA_VISIBLE_DEVICES": gpu.id},
        }
        return f"gpu{gpu.id}-{number // len(self._gpus)}", {"cls": Nanny, "options": options}


def _current_settings() -> dict[str, str]:
    """Return the settings and S3 credentials of this process.

    Workers are forked from a process that has those of the first run: a notebook may have set others since.
    """
    return {name: value for name, value in os.environ.items() if name.startswith(("AFFWILD2_", "AWS_"))}


def _memory_limit(workers: int) -> int:
    """Return the memory limit of a worker in bytes: half of the machine, or all of it for a single worker.

    No healthy worker needs that much. The limit ends a unit that allocates without bounds, with a clear message, before
    the kernel ends another process. An equal share per worker would be too little, because pages of memory-mapped files
    count as a worker's memory.
    """
    return int(MEMORY_LIMIT / min(workers, 2))
