"""Files of a store on a local disk. Every write appears whole or not at all."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from data_contracts.errors import InputError, StoreError, is_missing_file
from data_contracts.files.inputs import FileState
from data_contracts.files.locations import Location, check_inside

if TYPE_CHECKING:
    from data_contracts.files.s3 import S3Files

# Folder of a store for files that are not complete yet.
UNFINISHED = ".unfinished"
_TRIES = 10
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def replacing_path(target: str, *, unfinished: str) -> Iterator[str]:
    """Yield the path of a file to write. It replaces ``target`` if the block succeeds; otherwise nothing changes.

    Until then the file is in the folder ``unfinished`` on the same disk, where files of killed processes can be found.

    Raises:
        StoreError, InputError: as ``raise_store_error``.
    """
    temporary = os.path.join(unfinished, uuid.uuid4().hex)
    try:
        _create_file(temporary)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        if isinstance(error, OSError):
            raise_store_error(error, target)
        raise


def _create_file(path: str) -> None:
    """Create an empty file and its folder. Other processes remove the folder while it is empty."""
    for tries_left in reversed(range(_TRIES)):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "xb").close()
            return
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise


@contextlib.contextmanager
def replacing_file(target: str, *, unfinished: str) -> Iterator[IO[bytes]]:
    """Open a file for writing, as ``replacing_path``."""
    with replacing_path(target, unfinished=unfinished) as temporary, open(temporary, "wb") as file:
        yield file


def raise_store_error(error: OSError, path: str) -> None:
    """Raise an error with instructions if writing at ``path`` failed for a reason that the user can change.

    Raises:
        StoreError: no space, no permission, or a file where a folder is needed.
        InputError: the name of one item is too long.
    """
    cause = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        raise StoreError(
            f"expected space to write {path}, got: {cause}; make room and run the same command again"
        ) from error
    if error.errno == errno.ENAMETOOLONG:
        raise InputError(f"{path}: expected a shorter name (about 200 bytes), got: {cause}; rename the file") from error
    is_blocked = isinstance(error, FileExistsError | NotADirectoryError)
    # Reading an input may raise permission errors too.
    is_at_target = error.filename is not None and str(error.filename).startswith(os.path.dirname(path))
    if is_blocked or error.errno == errno.EROFS or (error.errno in _NO_PERMISSION and is_at_target):
        where = error.filename or path
        raise StoreError(
            f"expected a folder that can be written, got {where} ({cause}); choose another folder"
        ) from error


def check_output_folder(place: Location) -> None:
    """Check, before any work, that a folder for results can be written or made. Does nothing for S3.

    Raises:
        InputError: a file is in its place, there is no permission, or the disk is read-only.
    """
    if not isinstance(place, Path):
        return
    existing = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{place}: expected a folder for results, got the file {existing}; choose another --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        found = "a read-only disk at" if os.statvfs(existing).f_flag & os.ST_RDONLY else "no permission in"
        raise InputError(f"{place}: expected a folder that can be written, got {found} {existing}")


class LocalFiles:
    """Files below a folder; ``path`` is relative to it, with slashes. ``S3Files`` has the same methods for S3.

    Every method raises ``InputError`` if ``path`` leads out of the folder.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))

    def check_reachable(self) -> None:
        """Do nothing: a missing folder is created."""

    def locate(self, path: str) -> str:
        """Return the absolute path, or the URL."""
        return f"{self.root}/{check_inside(path)}"

    @contextlib.contextmanager
    def replacing(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for writing. It replaces ``path`` if the block succeeds; otherwise nothing changes.

        Raises:
            StoreError, InputError: as ``raise_store_error``.
        """
        with replacing_file(self.locate(path), unfinished=self.locate(UNFINISHED)) as file:
            yield file

    def replacing_path(self, path: str) -> contextlib.AbstractContextManager[str]:
        """Yield the path of a local file to write, which replaces ``path`` if the block succeeds.

        For libraries that need a path, and for files that are larger than the memory.

        Raises:
            StoreError, InputError: as ``raise_store_error``.
        """
        return replacing_path(self.locate(path), unfinished=self.locate(UNFINISHED))

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return Path(self.locate(path)).read_bytes()

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Return the bytes of each file, ``b""`` for a missing one."""
        return [_read_if_exists(Path(self.locate(path))) for path in paths]

    @contextlib.contextmanager
    def opened(self, path: str, size_bytes: int) -> Iterator[IO[bytes]]:
        """Open a file for reading in pieces.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with open(self.locate(path), "rb") as file:
            yield file

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder."""
        return os.path.exists(self.locate(path))

    def written_at(self, path: str) -> float:
        """Return when a file was last written, in seconds since 1970; 0 if it is missing."""
        try:
            return os.path.getmtime(self.locate(path))
        except FileNotFoundError:
            return 0.0

    def list_folder(self, path: str) -> list[str]:
        """Return the names of the entries of a folder, unsorted; empty if there is no such folder."""
        try:
            return os.listdir(self.locate(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def iter_states(self, folder: str) -> Iterator[tuple[str, FileState]]:
        """Yield (path, state) of every file below a folder; files of the same folder follow one another."""
        return _list_states(self.root, check_inside(folder))

    def remove_folder(self, path: str) -> None:
        """Remove a folder with its content, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.locate(path))

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.locate(path))


def files_at(place: Location) -> "LocalFiles | S3Files":
    """Return the files below a location, local or on S3."""
    if isinstance(place, Path):
        return LocalFiles(str(place))
    # Imports s3fs, which takes most of a second.
    from data_contracts.files.s3 import S3Files

    return S3Files(str(place))


def _list_states(root: str, folder: str) -> Iterator[tuple[str, FileState]]:
    try:
        entries = os.scandir(os.path.join(root, folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if not entry.is_dir():
                # A file may be removed while its folder is listed.
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    # Two versions that are written within one clock tick of the kernel differ in the inode only.
                    yield path, FileState(stat.st_size, (stat.st_mtime_ns, stat.st_ino))
            elif not entry.is_symlink():
                yield from _list_states(root, path)


def _read_if_exists(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if not is_missing_file(error):
            raise
        return b""
