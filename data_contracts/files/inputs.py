"""Read and list input files, on a local disk or on S3, and detect files that change.

A local file is identified by its size and modification time, a file on S3 by its size and ETag (``FileState``).
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.errors import InputError
from data_contracts.files.account import is_harmless
from data_contracts.files.locations import S3_PREFIX, Location, is_remote, location

_PARALLEL_LISTINGS = 16
# The longest official text file, a million rows of twelve action units, has 40 MB.
MAX_TEXT_BYTES = 1 << 28


class FileState(NamedTuple):
    """Size and version of a file, which show whether it has changed. Serialized as a list of two values.

    Attributes:
        size_bytes: -1 if there is no such file.
        version: time of the last change in ns, or ETag on S3; -1 if there is no such file, None if unknown. Listings of
            a local store add the inode: (time in ns, inode).
    """

    size_bytes: int
    version: Any = None


NO_FILE = FileState(-1, -1)


def file_state(place: Location, *, as_listed: bool = False) -> FileState:
    """Return the state of a file, ``NO_FILE`` if there is no such file.

    Args:
        as_listed: on S3, take the state from the last listing of the folder, if there was one, without a request.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: a request failed; ``reading_inputs`` turns it into one line.
    """
    if isinstance(place, Path):
        try:
            stat = place.stat()
        except OSError:
            return NO_FILE
        return FileState(stat.st_size, stat.st_mtime_ns)
    try:
        found = place.fs.info(place.path, refresh=not as_listed)
    except FileNotFoundError:
        return NO_FILE
    return object_state(found) if found["type"] == "file" else NO_FILE


def object_state(entry: dict[str, Any]) -> FileState:
    """Return the state of a file from its entry in a listing of S3."""
    return FileState(int(entry["size"]), str(entry.get("ETag", "")).strip('"'))


def check_unchanged(place: Location, before: Sequence[Any]) -> None:
    """Check that a file still has the state ``before``, a ``FileState`` or the list that it was serialized as.

    Raises:
        InputError: the file has changed, or is gone.
        OSError, botocore.exceptions.BotoCoreError: a request failed.
    """
    now, before = file_state(place), FileState(*before)
    if now == before:
        return
    if now == NO_FILE:
        problem = "it is gone"
    elif now.size_bytes == before.size_bytes:
        problem = "it was changed"
    else:
        problem = f"{before.size_bytes:,} bytes became {now.size_bytes:,}"
    raise InputError(f"{place}: expected an unchanged file, got: {problem}; run again when it is complete")


def list_entries(folder: Location) -> list[Location]:
    """Return the entries of a folder, sorted by name."""
    found: list[Location] = list(folder.iterdir())
    return sorted((entry for entry in found if entry.name), key=lambda entry: entry.name)


def list_folders(folder: Location) -> list[Location]:
    """Return the folders in a folder, sorted by name, without hidden ones and those of operating systems.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        return split_entries(folder)[0]
    except OSError as error:
        raise InputError(f"{folder}: expected a folder that can be read, got: {error.strerror}") from error


def split_entries(folder: Location) -> tuple[list[Location], list[Location]]:
    """Return the folders and the other entries of a folder, by name, without harmless ones.

    Raises:
        OSError: the folder cannot be read.
    """
    if isinstance(folder, Path):
        with os.scandir(folder) as entries:
            pairs = sorted((entry.name, _is_folder(entry)) for entry in entries if not is_harmless(entry.name))
        paths: list[tuple[Location, bool]] = [(folder / name, is_folder) for name, is_folder in pairs]
    else:
        paths = [(path, path.is_dir()) for path in list_entries(folder) if not is_harmless(path.name)]
    return [path for path, is_folder in paths if is_folder], [path for path, is_folder in paths if not is_folder]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself.
        return False


@dataclass(frozen=True)
class FolderListing:
    """The content of a folder.

    Attributes:
        files: states of the files, by name.
        folders: names of folders, including links to folders.
        others: names of broken links, pipes and devices.
        problem: why the folder cannot be read; empty if it can.
    """

    files: dict[str, FileState] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    problem: str = ""


# Receives the number of files that ``list_many`` found in one more folder.
_count_files: ContextVar[Callable[[int], None] | None] = ContextVar("count_files", default=None)


@contextlib.contextmanager
def counting_files(count: Callable[[int], None]) -> Iterator[None]:
    """Call ``count`` with the number of files of each folder that is listed in the block, for progress."""
    token = _count_files.set(count)
    try:
        yield
    finally:
        _count_files.reset(token)


def list_many(folders: Iterable[Location]) -> list[FolderListing]:
    """Return the content of each folder. Folders on S3 are listed in parallel."""
    folders = list(folders)
    if all(isinstance(folder, Path) for folder in folders):
        return _counted(map(_list_content, folders))
    with ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool:
        return _counted(pool.map(_list_content, folders))


def _counted(listings: Iterable[FolderListing]) -> list[FolderListing]:
    found, count = [], _count_files.get()
    for listing in listings:
        found.append(listing)
        if count:
            count(len(listing.files))
    return found


def _state_of(entry: os.DirEntry[str]) -> FileState:
    try:
        stat = entry.stat()
    except OSError:
        return NO_FILE
    return FileState(stat.st_size, stat.st_mtime_ns)


def _list_content(folder: Location) -> FolderListing:
    found = FolderListing()
    if isinstance(folder, Path):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file():
                        found.files[entry.name] = _state_of(entry)
                    else:
                        (found.folders if entry.is_dir() else found.others).append(entry.name)
        except OSError as error:
            return FolderListing(problem=error.strerror or str(error))
        return found
    listed = folder.fs.ls(folder.path, detail=True)
    # The listing cache of s3fs would keep millions of crops in memory.
    folder.fs.invalidate_cache(folder.path)
    for entry in listed:
        name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
        if entry["type"] == "file":
            found.files[name] = object_state(entry)
        else:
            found.folders.append(name)
    return found


def read_many(paths: Sequence[str]) -> list[bytes | OSError]:
    """Return the bytes of each file, or the error that reading it raised. Files on S3 are read in parallel.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: a request to S3 failed.
    """
    remote = [path for path in paths if path.startswith(S3_PREFIX)]
    if not remote:
        return [_read(path) for path in paths]
    from data_contracts.files.s3_client import read_each

    fs: Any = getattr(location(remote[0]), "fs", None)
    found = dict(zip(remote, read_each(fs, [path[len(S3_PREFIX) :] for path in remote]), strict=True))
    return [found[path] if path in found else _read(path) for path in paths]


def _read(path: str) -> bytes | OSError:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        return error


def refresh_listings(place: Location) -> None:
    """Discard cached listings of S3, and check that the bucket answers. Does nothing for local locations.

    Raises:
        InputError: wrong bucket, credentials or address.
    """
    if isinstance(place, Path):
        return
    from data_contracts.files.s3_client import check_reachable

    place.fs.invalidate_cache()
    bucket = place.path.split("/", 1)[0]
    check_reachable(place.fs, bucket, f"{place}: expected inputs in a bucket that answers")


def check_name_can_be_stored(name: str) -> None:
    """Check that this process can write files of this name.

    Raises:
        InputError: it cannot, because Python uses an encoding of the locale that lacks some of its letters.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: expected a process that handles file names in UTF-8, got one with the encoding "
            f"{sys.getfilesystemencoding()} of its locale (LC_ALL, LANG); set PYTHONUTF8=1 and run again"
        ) from error


@contextlib.contextmanager
def reading_inputs(*places: Location) -> Iterator[None]:
    """Turn errors of S3 requests in the block into an ``InputError`` of one line. Does nothing for local locations.

    Raises:
        InputError: a request failed permanently.
    """
    remote = next((place for place in places if is_remote(place)), None)
    if remote is None:
        yield
        return
    from data_contracts.files.s3_client import explain_errors

    with explain_errors(f"{remote}: expected inputs that can be read"):
        yield


def read_lines(path: Location, what: str) -> list[str]:
    """Return the lines of a UTF-8 text file without line ends (LF or CRLF) and without trailing blank lines.

    A byte order mark is removed. Only line feeds end lines, so that other control characters do not shift line numbers.

    Args:
        what: what the file should contain, for error messages.

    Raises:
        InputError: there is no such file, or it cannot be read, is not text, or is larger than ``MAX_TEXT_BYTES``.
    """
    try:
        with reading_inputs(path):
            size = path.stat().st_size
            data = b"" if size > MAX_TEXT_BYTES else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a text file with {what}, got: {error.strerror}") from error
    if size > MAX_TEXT_BYTES:
        raise InputError(f"{path}: expected a text file with {what}, got {size:,} bytes; choose another file")
    if b"\0" in data:
        raise InputError(f"{path}: expected a text file with {what}, got binary data")
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line}: expected UTF-8 text with {what}, got other bytes") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
