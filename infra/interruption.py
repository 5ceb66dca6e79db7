"""End a command and all its processes at once on Ctrl-C or SIGTERM; end the process of a run with its worker."""

import contextlib
import ctypes
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import psutil

from data_contracts.settings import read_settings

EXIT_INTERRUPTED = 130
RESUME = "finished work is kept; run the same command again to resume"
_GRACE_SECONDS = 3.0
_before_end: list[Callable[[], None]] = []
_before_message: list[Callable[[], None]] = []
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """End this process and its children with exit code 130 on the first SIGINT or SIGTERM in the block.

    Prefect would first try to reach its server, which the same Ctrl-C has ended, and wait. Nothing is lost, because
    units appear in the store whole or not at all.
    """
    before = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_now(f"affwild2: interrupted; {RESUME}")


def end_now(message: str) -> NoReturn:
    """Print a message, and end this process and its children with exit code 130."""
    for action in _before_message:
        with contextlib.suppress(Exception):
            action()
    if read_settings().log_format == "json":
        from infra.json_logs import write_line

        write_line(message, sys.stderr, level=logging.ERROR)
    else:
        print(message, file=sys.stderr, flush=True)
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(children, timeout=_GRACE_SECONDS)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    for action in _before_end:
        with contextlib.suppress(Exception):
            action()
    os._exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def calling_before_end(action: Callable[[], None], *, before_message: bool = False) -> Iterator[None]:
    """Call ``action`` if ``end_now`` ends this process in the block, which then runs no other code.

    ``before_message``: before the message is printed and the children are ended; else afterwards.
    """
    actions = _before_message if before_message else _before_end
    actions.append(action)
    try:
        yield
    finally:
        actions.remove(action)


@contextlib.contextmanager
def ending_with_parent() -> Iterator[Callable[[], bool]]:
    """Send SIGTERM to this process when its parent ends in the block, also if the parent is killed (Linux).

    Yields:
        A function that returns whether the parent has ended.
    """
    has_ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal has_ended
        if has_ended:
            # Each thread of a killed parent may cause a signal.
            return
        has_ended = True
        _discard_unread_output()
        os.kill(os.getpid(), signal.SIGTERM)

    # SIGTERM itself would not tell the end of the parent from other causes.
    before = signal.signal(signal.SIGUSR1, end)
    _set_parent_death_signal(signal.SIGUSR1)
    try:
        yield lambda: has_ended
    finally:
        _set_parent_death_signal(0)
        signal.signal(signal.SIGUSR1, before)


def _set_parent_death_signal(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _discard_unread_output() -> None:
    """Redirect standard output and standard error to the null device if they are pipes that nobody reads.

    Otherwise the next line, for example of a log, would raise BrokenPipeError.
    """
    poll = select.poll()
    for output in (1, 2):
        poll.register(output, 0)
    with open(os.devnull, "wb") as nowhere:
        for output, events in poll.poll(0):
            if events & (select.POLLERR | select.POLLHUP):
                os.dup2(nowhere.fileno(), output)
