"""What the processor does while a GPU works: it reads the next pieces of input.

What is read is the business of stages. On a worker without a GPU nothing here starts a thread.
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
class _Failed:
    error: BaseException


class _End:
    pass


def is_worth_it() -> bool:
    """Whether there is a device that works by itself. On a worker's one core a thread would gain nothing."""
    return default_device() == "cuda"


@contextlib.contextmanager
def read_ahead(pieces: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same pieces in the same order, drawn in a thread where that is worth it, at most two ahead.

    What drawing them raises is raised where they are used, after the pieces before it. The thread ends with the block.
    """
    if not is_worth_it():
        yield pieces
        return
    drawn: queue.Queue[T | _Failed | _End] = queue.Queue(maxsize=_PIECES_AHEAD)
    stopped = threading.Event()
    thread = threading.Thread(target=_draw, args=(pieces, drawn, stopped), name="read-ahead", daemon=True)
    thread.start()
    try:
        yield _taken(drawn)
    finally:
        stopped.set()
        thread.join()


def _draw(pieces: Iterator[T], drawn: "queue.Queue[T | _Failed | _End]", stopped: threading.Event) -> None:
    try:
        for piece in pieces:
            if not _put(drawn, piece, stopped):
                break
        _put(drawn, _End(), stopped)
    except BaseException as error:
        _put(drawn, _Failed(error), stopped)
    finally:
        # A generator has files open; they are closed in the thread that opened them.
        close = getattr(pieces, "close", None)
        if close:
            close()


def _put(drawn: "queue.Queue[T | _Failed | _End]", piece: T | _Failed | _End, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            drawn.put(piece, timeout=_POLL_SECONDS)
            return True
    return False


def _taken(drawn: "queue.Queue[T | _Failed | _End]") -> Iterator[T]:
    while True:
        piece = drawn.get()
        if isinstance(piece, _End):
            return
        if isinstance(piece, _Failed):
            raise piece.error
        yield piece
