"""Read-ahead for workers with a GPU: a thread reads the next pieces of input while the GPU works.

Stages supply the pieces. On a worker without a GPU no thread is started.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from models.engines.devices import default_device

_PIECES_AHEAD = 3
_END = object()
T = TypeVar("T")


def uses_gpu() -> bool:
    """Return whether networks run on a GPU. A thread of its own would gain nothing on a worker's single core."""
    return default_device() == "cuda"


@contextlib.contextmanager
def read_ahead(pieces: Iterator[T]) -> Iterator[Iterator[T]]:
    """Iterate over ``pieces`` in the same order; with a GPU, a thread reads at most three pieces ahead.

    An exception of ``pieces`` is raised in the consumer, after the pieces before it. The thread ends with the block.
    """
    if not uses_gpu():
        yield pieces
        return
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        waiting = deque(thread.submit(next, pieces, _END) for _ in range(_PIECES_AHEAD))

        def consume() -> Iterator[Any]:
            while (piece := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, pieces, _END))
                yield piece

        try:
            yield consume()
        finally:
            for future in waiting:
                future.cancel()
            # A generator may have open files; close them in the thread that opened them.
            thread.submit(getattr(pieces, "close", lambda: None))
