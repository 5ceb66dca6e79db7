"""Files on a local disk: whole or not at all, and what a failed attempt to write one means."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from data_contracts.errors import InputError, StoreError
from data_contracts.manifest_cache import FileState

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def replacing_file(target: str, *, unfinished: str) -> Iterator[IO[bytes]]:
    """A file to write to, that takes the place of ``target`` when the block ends well, and leaves no trace if not.

    Until then it lies in the folder ``unfinished``, on the same disk: what a killed process has left is found there.

    Raises:
        StoreError, InputError: as ``raise_store_error``.
    """
    temporary = os.path.join(unfinished, uuid.uuid4().hex)
    try:
        os.makedirs(unfinished, exist_ok=True)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        if isinstance(error, OSError):
            raise_store_error(error, target)
        raise


def local_states(root: str, folder: str) -> Iterator[tuple[str, FileState]]:
    """(path relative to the root, state) of every file below a folder of it; nothing if there is no such folder."""
    try:
        entries = os.scandir(os.path.join(root, folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if not entry.is_dir():
                # A file may go while its folder is listed.
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    yield path, FileState(stat.st_size, (stat.st_mtime_ns, stat.st_ino))
            elif not entry.is_symlink():
                yield from local_states(root, path)


def read_if_there(path: Path) -> bytes:
    """A file's bytes; none if it is gone."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def raise_store_error(error: OSError, path: str) -> None:
    """Raise what a failed attempt to write at ``path`` means for a user; nothing if it means nothing to one.

    Raises:
        StoreError: no space, no permission, or something in the way.
        InputError: the name of one item is too long.
    """
    what = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        raise StoreError(
            f"store: expected space to write {path}, got: {what}; make room and run the same command again"
        ) from error
    if error.errno == errno.ENAMETOOLONG:
        raise InputError(f"{path}: expected a shorter name (about 200 bytes), got: {what}; rename the file") from error
    in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
    # Reading has errors of permission too, but of another file.
    at_target = error.filename is not None and str(error.filename).startswith(os.path.dirname(path))
    if in_the_way or error.errno == errno.EROFS or (error.errno in _NO_PERMISSION and at_target):
        where = error.filename or path
        raise StoreError(
            f"store: expected a folder that can be written, got {where} ({what}); choose another --store"
        ) from error
