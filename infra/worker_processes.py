"""How local worker processes start: forked from one process that has imported what they all need.

To start an interpreter and import the libraries takes seconds for each worker; to fork it takes milliseconds, also
where one that was killed is replaced.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
from collections.abc import Iterator, Sequence

# Read when a process starts, so a worker could not set them for itself. Memory that was freed is kept for the next
# batch instead of being given back and zeroed anew by the kernel. There are as many workers as cores already: their
# libraries start no threads; nor does pyarrow's allocator, for a process with threads is not one to fork.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_MODULES = ("distributed", "distributed.nanny")
# Imports what most units need, with compiled loops.
WORKER_MODULES = ("tasks.worker_preload",)
_started = False


def start_forking(modules: Sequence[str] = ()) -> None:
    """Start the process that workers are forked from, if there is none yet, and return while it imports ``modules``.

    Variables that the user has set stay as they are.
    """
    global _started
    if _started:
        return
    _started = True
    multiprocessing.get_context("forkserver").set_forkserver_preload([*_MODULES, *modules])
    _keep_environment()
    multiprocessing.forkserver.ensure_running()


def start_forking_for_new_store(*, store: str | None, out: object = None, dask_address: str | None = None) -> None:
    """Start the process that workers are forked from if the store does not exist yet: then there is work for sure.

    ``store`` None: ``OUT/store``. For other stores this waits until units to compute are found.
    """
    place = store or f"{out or '.'}/store"
    if dask_address is None and "://" not in place and not os.path.exists(place):
        start_forking(WORKER_MODULES)


def _keep_environment() -> None:
    """Let the process have the environment also where it was killed and is started again, by whoever wants a worker.

    Workers of it would else compute with several threads, which adds numbers in another order.
    """
    server = multiprocessing.forkserver._forkserver
    ensure_running = server.ensure_running

    def ensure_running_as_it_was() -> None:
        with _environment(WORKER_ENVIRONMENT):
            ensure_running()

    server.ensure_running = ensure_running_as_it_was  # type: ignore[method-assign]
    multiprocessing.forkserver.ensure_running = ensure_running_as_it_was


@contextlib.contextmanager
def _environment(defaults: dict[str, str]) -> Iterator[None]:
    added = [name for name in defaults if name not in os.environ]
    os.environ.update({name: defaults[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
