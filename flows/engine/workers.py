"""What workers import before there is work for them, and whether they may begin with it before that is known."""

import os

from infra.worker_processes import start_forking

# What most units need, loops compiled.
WORKER_MODULES = ("tasks.worker_preload",)


def start_ahead(*, store: str | None, out: object = None, dask_address: str | None = None) -> None:
    """Let the process that workers are forked from start now, if work for it is certain.

    It is where the store (``OUT/store`` if none is named) is yet to be made. Elsewhere, there may be nothing to do.
    """
    place = store or f"{out or '.'}/store"
    if dask_address is None and "://" not in place and not os.path.exists(place):
        start_forking(WORKER_MODULES)
