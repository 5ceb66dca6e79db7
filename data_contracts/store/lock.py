"""Locks of stores and of folders of results: one run at a time; and no run by a version older than the last one."""

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
from data_contracts.vocabulary import STORE_FILE

# The name differs from that of a store, which may be the same folder, and from those of other programs.
FOLDER_LOCK = ".affwild2.lock"


@contextlib.contextmanager
def lock_store(store: Store, *, on_wait: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Lock a store for the length of the block; call ``on_wait`` once with a message if another run holds the lock.

    Two runs with equal settings would do no harm. With different settings, each would remove results that the other
    one is about to read. The lock of a local store ends with its process, however that ends; the lock of a store on S3
    ends at most a minute later (``files.s3_lock``).

    Yields:
        A function that raises ``StoreError`` if another run has taken the lock meanwhile.

    Raises:
        StoreError: the store cannot be written to.
    """
    with _locked(store, LOCK, "store", on_wait) as raise_if_lost, _writing_indexes(store):
        yield raise_if_lost


@contextlib.contextmanager
def lock_folder(folder: Store, *, on_wait: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Lock a folder of results, as ``lock_store`` locks a store: runs on other stores may write to it, too."""
    with _locked(folder, FOLDER_LOCK, "folder", on_wait) as raise_if_lost:
        yield raise_if_lost


@contextlib.contextmanager
def _locked(store: Store, name: str, what: str, on_wait: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    if isinstance(store.files, LocalFiles):
        with _locked_folder(store.files, name, what, on_wait):
            yield lambda: None
        return
    store.check_reachable()
    lock = S3Lock(store.files, name=name, what=what)
    lock.acquire(on_wait)
    try:
        yield lock.raise_if_lost
    finally:
        lock.release()


@contextlib.contextmanager
def _writing_indexes(store: Store) -> Iterator[None]:
    store.index.may_write = True
    try:
        yield
    finally:
        store.index.may_write = False


@contextlib.contextmanager
def _locked_folder(files: LocalFiles, name: str, what: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    path = files.locate(name)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115
    except OSError as error:
        raise_store_error(error, path)
        raise
    with file:
        if _lock(file.fileno(), path, what, on_wait):
            with contextlib.suppress(OSError):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
            # Remove what killed runs left unfinished: while the lock is held, no other run writes.
            shutil.rmtree(files.locate(UNFINISHED), ignore_errors=True)
        yield


def _lock(descriptor: int, path: str, what: str, on_wait: Callable[[str], None]) -> bool:
    """Wait for the lock and return True; return False on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with open(path) as file:
            holder = file.read(200) or "another run"
        on_wait(f"{os.path.dirname(path)}: {holder} is using this {what}; waiting until it ends")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def check_code_version(store: Store, stage: str, version: int) -> None:
    """Raise if a newer program has run a stage on this store; record otherwise that this version has run it.

    An older program would take the results of a newer one for stale, and replace them.

    Raises:
        InputError: a newer program has run this stage.
    """
    try:
        known = json.loads(store.read_bytes(STORE_FILE))
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
        store.write_bytes(STORE_FILE, json.dumps(known | {stage: version}, indent=1, sort_keys=True).encode() + b"\n")
