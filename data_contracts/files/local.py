"""Files on a local disk: whole or not at all, and what a failed attempt to write one means."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from data_contracts.errors import InputError, StoreError
from data_contracts.files.locations import FileState
from data_contracts.files.store_paths import within

# Folder of a store in which files lie until they are whole.
UNFINISHED = ".unfinished"
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


class LocalFiles:
    """Files below a folder of a disk; ``path`` is relative to it, with slashes. ``s3_files`` has the same for S3."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))

    def check_reachable(self) -> None:
        """Nothing: a folder that is not there is made."""

    def locate(self, path: str) -> str:
        """What a person would type to find ``path``.

        Raises:
            InputError: (here as in every method) it leads out of the folder.
        """
        return f"{self.root}/{within(path)}"

    @contextlib.contextmanager
    def replacing(self, path: str) -> Iterator[IO[bytes]]:
        """A file to write to, that takes the place of ``path`` when the block ends well, and leaves no trace if not.

        Raises:
            StoreError, InputError: as ``raise_store_error``.
        """
        with replacing_file(self.locate(path), unfinished=self.locate(UNFINISHED)) as file:
            yield file

    def read(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return Path(self.locate(path)).read_bytes()

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """The bytes of each; none for one that is gone."""
        return [read_if_there(Path(self.locate(path))) for path in paths]

    @contextlib.contextmanager
    def opened(self, path: str, size_bytes: int) -> Iterator[IO[bytes]]:
        """A file to read pieces of.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with open(self.locate(path), "rb") as file:
            yield file

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return os.path.exists(self.locate(path))

    def written_at(self, path: str) -> float:
        """When a file was last written, in seconds since 1970; 0 if it is not there."""
        try:
            return os.path.getmtime(self.locate(path))
        except FileNotFoundError:
            return 0.0

    def list_folder(self, path: str) -> list[str]:
        """Names of what lies directly in a folder, in any order; none if there is no such folder."""
        try:
            return os.listdir(self.locate(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def states(self, folder: str) -> dict[str, FileState]:
        """State of every file below a folder, by path."""
        return dict(local_states(self.root, within(folder)))

    def remove_folder(self, path: str) -> None:
        """Remove a folder with all that is in it; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.locate(path))

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.locate(path))
