"""Start of local worker processes: forks of one process that has imported what every worker needs.

Starting an interpreter and importing the libraries takes seconds per worker; a fork takes milliseconds, also for the
replacement of a killed worker.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
from collections.abc import Iterator, Sequence

from data_contracts.settings import DASK_ADDRESS

# Libraries read these variables when a process starts, so a worker cannot set them itself. malloc keeps freed memory
# for the next batch, or the kernel would take it back and zero it again. There is a worker per core, so libraries start
# no threads; neither does pyarrow's allocator, because a process with threads must not be forked.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
# infra comes first: it decides how the others log.
_MODULES = ("infra", "distributed", "distributed.nanny")
# Imports what most units need, with compiled loops.
WORKER_MODULES = ("tasks.worker_preload",)
_started = False


def start_forking(modules: Sequence[str] = ()) -> None:
    """Start the process that workers are forked from, once, and return while it imports ``modules``.

    Variables that the user has set keep their values.
    """
    global _started
    if _started:
        return
    _started = True
    multiprocessing.get_context("forkserver").set_forkserver_preload([*_MODULES, *modules])
    _keep_environment()
    multiprocessing.forkserver.ensure_running()


def start_forking_for_new_store(*, store: str | None, out: object = None, dask_address: str | None = None) -> None:
    """Start the process that workers are forked from if the store is local and does not exist yet.

    A new store certainly has units to compute; for other stores, the process is started when such units are found.
    ``store`` None: ``OUT/store``.
    """
    place = store or f"{out or '.'}/store"
    has_scheduler = dask_address or os.environ.get(DASK_ADDRESS)
    if not has_scheduler and "://" not in place and not os.path.exists(place):
        start_forking(WORKER_MODULES)


def _keep_environment() -> None:
    """Set the environment also when multiprocessing restarts a killed fork server.

    Otherwise its workers would compute with several threads, which add numbers in another order.
    """
    server = multiprocessing.forkserver._forkserver
    ensure_running = server.ensure_running

    def ensure_running_with_environment() -> None:
        with _environment(WORKER_ENVIRONMENT):
            ensure_running()

    server.ensure_running = ensure_running_with_environment  # type: ignore[method-assign]
    multiprocessing.forkserver.ensure_running = ensure_running_with_environment


@contextlib.contextmanager
def _environment(defaults: dict[str, str]) -> Iterator[None]:
    added = [name for name in defaults if name not in os.environ]
    os.environ.update({name: defaults[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
