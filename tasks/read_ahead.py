"""Read-ahead for workers with a GPU: a thread reads the next pieces of input while the GPU works.

Stages supply the pieces. On a worker without a GPU no thread is started.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from models.engines.devices import default_device

_PIECES_AHEAD = 2
_POLL_SECONDS = 0.05
T = TypeVar("T")


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    pass


def uses_gpu() -> bool:
    """Return whether networks run on a GPU. A thread of its own would gain nothing on a worker's single core."""
    return default_device() == "cuda"


@contextlib.contextmanager
def read_ahead(pieces: Iterator[T]) -> Iterator[Iterator[T]]:
    """Iterate over ``pieces`` in the same order; with a GPU, a thread reads at most two pieces ahead.

    An exception of ``pieces`` is raised in the consumer, after the pieces before it. The thread ends with the block.
    """
    if not uses_gpu():
        yield pieces
        return
    waiting: queue.Queue[T | _Failure | _End] = queue.Queue(maxsize=_PIECES_AHEAD)
    stopped = threading.Event()
    thread = threading.Thread(target=_read, args=(pieces, waiting, stopped), name="read-ahead", daemon=True)
    thread.start()
    try:
        yield _consume(waiting)
    finally:
        stopped.set()
        thread.join()


def _read(pieces: Iterator[T], waiting: "queue.Queue[T | _Failure | _End]", stopped: threading.Event) -> None:
    try:
        for piece in pieces:
            if not _put(waiting, piece, stopped):
                break
        _put(waiting, _End(), stopped)
    except BaseException as error:
        _put(waiting, _Failure(error), stopped)
    finally:
        # A generator may have open files; close them in the thread that opened them.
        close = getattr(pieces, "close", None)
        if close:
            close()


def _put(waiting: "queue.Queue[T | _Failure | _End]", piece: T | _Failure | _End, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            waiting.put(piece, timeout=_POLL_SECONDS)
            return True
    return False


def _consume(waiting: "queue.Queue[T | _Failure | _End]") -> Iterator[T]:
    while True:
        piece = waiting.get()
        if isinstance(piece, _End):
            return
        if isinstance(piece, _Failure):
            raise piece.error
        yield piece
