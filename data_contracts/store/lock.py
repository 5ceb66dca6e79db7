"""One run at a time on a store, and none by a version that is older than what lies there."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator

from data_contracts.errors import InputError
from data_contracts.files.local import UNFINISHED, LocalFiles, raise_store_error
from data_contracts.files.s3_lock import LOCK, S3Lock
from data_contracts.store.store import Store

_VERSIONS = "_code_versions.json"


@contextlib.contextmanager
def claim_store(store: Store, *, on_wait: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Hold a store for the length of the block; ``on_wait`` is told, once, if another run holds it.

    Two runs with equal settings would do no harm. With different ones, each would take away what the other one is
    about to read. The claim on a local store goes with the process, however it ends; the one on S3 at most a minute
    later (``s3_lock``).

    Yields:
        A function that raises ``StoreError`` if another run has taken the store over.

    Raises:
        StoreError: the store cannot be written to.
    """
    if isinstance(store.files, LocalFiles):
        with _claimed_folder(store.files, on_wait):
            yield lambda: None
        return
    store.check_reachable()
    lock = S3Lock(store.files)
    lock.take(on_wait)
    try:
        yield lock.raise_if_lost
    finally:
        lock.release()


@contextlib.contextmanager
def _claimed_folder(files: LocalFiles, on_wait: Callable[[str], None]) -> Iterator[None]:
    path = files.locate(LOCK)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115
    except OSError as error:
        raise_store_error(error, path)
        raise
    with file:
        if _lock(file.fileno(), path, on_wait):
            with contextlib.suppress(OSError):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
            # What a killed run has left; nobody else writes now.
            shutil.rmtree(files.locate(UNFINISHED), ignore_errors=True)
        yield


def _lock(descriptor: int, path: str, on_wait: Callable[[str], None]) -> bool:
    """Whether the lock is held; false on a disk that has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with open(path) as file:
            holder = file.read(200) or "another run"
        on_wait(f"{os.path.dirname(path)}: {holder} is at work on this store; waiting for its end")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def check_code_version(store: Store, stage: str, version: int) -> None:
    """That no newer program has run a stage on this store; from now on, this one has.

    An older program would take what a newer one made for stale, and replace it.

    Raises:
        InputError: a newer one has.
    """
    try:
        known = json.loads(store.read_bytes(_VERSIONS))
    except (FileNotFoundError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    stored = known.get(stage, 0)
    if isinstance(stored, int) and stored > version:
        raise InputError(
            f"{store.url}: expected a store that this version of affwild2 may write to, got one of a newer version "
            f"({stage} {stored}, here {version}); upgrade, or choose another --store"
        )
    if stored != version:
        store.write_bytes(_VERSIONS, json.dumps(known | {stage: version}, indent=1, sort_keys=True).encode() + b"\n")
