"""Where inputs and results lie, as a person writes it: a path, ``file://`` or ``s3://``.

``location`` makes one of text. A local one is a plain ``pathlib.Path``; one on S3 is a ``upath.UPath``, which has the
same methods (``name``, ``stem``, ``suffix``, ``iterdir``, ``is_dir``, ``glob``, ``open``, ``read_bytes``, ``/``, ...)
and whose ``str`` is its URL, so that ``location(str(place)) == place``. To be told apart: ``is_remote``.
``LocationParameter`` is the annotation for parameters of flows. ``file_state`` says whether a file is still the one it
was.

Nothing that is local imports more than ``pathlib``. What a store is made of lies in ``store``.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from data_contracts.errors import InputError
from data_contracts.files.s3_requests import S3_PREFIX, cat_each, check_reachable, s3_options, said_in_a_line
from data_contracts.files.urls import NoCredentials, check_no_credentials

if TYPE_CHECKING:
    from upath import UPath

    Location = Path | UPath
else:
    # The name in annotations of parameters is ``LocationParameter``: to name UPath here would import it.
    Location = Path

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,62}")
_LISTINGS_AT_A_TIME = 16
# Size and mark of a file that is not there.
NO_FILE = [-1, -1]


def location(text: Any) -> Location:
    """The location that a text names; what is one already stays as it is.

    Raises:
        InputError: another protocol than ``file://`` and ``s3://``, a mistake in the URL, or credentials in it.
    """
    if not isinstance(text, str):
        return text if isinstance(text, Path) or is_remote(text) else Path(text)
    found = _PROTOCOL.match(text)
    if not found:
        return Path(text)
    check_no_credentials(text, what="location")
    if text.startswith("file:///"):
        return Path(text.removeprefix("file://"))
    bucket = text.removeprefix(S3_PREFIX).split("/", 1)[0]
    if not text.startswith(S3_PREFIX) or not _BUCKET.fullmatch(bucket):
        raise InputError(f"expected a path, file:///FOLDER or s3://BUCKET/FOLDER, got {text!r}; correct it")
    from upath import UPath

    return UPath(text.rstrip("/"), **s3_options())


def is_remote(place: Any) -> bool:
    """Whether a location lies on S3."""
    return hasattr(place, "fs")


def forget_listings(place: Location) -> None:
    """Let what was listed on S3 before be listed anew, and say at once if S3 does not answer; nothing if it is local.

    Raises:
        InputError: wrong bucket, credentials or address.
    """
    if not isinstance(place, Path):
        place.fs.invalidate_cache()
        bucket = place.path.split("/", 1)[0]
        check_reachable(place.fs, bucket, f"{place}: expected inputs in a bucket that answers")


def file_state(place: Location, *, as_listed: bool = False) -> list[Any]:
    """What changes when a file does: [size in bytes, time of the last change in ns], on S3 [size in bytes, ETag].

    ``as_listed``: on S3, what the last listing of the folder said, if there was one, is believed: no request is made.
    ``[-1, -1]`` (``NO_FILE``) if there is no such file.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: a request failed; ``s3_requests.said_in_a_line`` makes a line of it.
    """
    if isinstance(place, Path):
        try:
            stat = place.stat()
        except OSError:
            return list(NO_FILE)
        return [stat.st_size, stat.st_mtime_ns]
    try:
        found = place.fs.info(place.path, refresh=not as_listed)
    except FileNotFoundError:
        return list(NO_FILE)
    return _state_of(found) if found["type"] == "file" else list(NO_FILE)


def _state_of(found: dict[str, Any]) -> list[Any]:
    return [found["size"], str(found.get("ETag", "")).strip('"')]


def is_file_or_lost_link(place: Location) -> bool:
    """Whether a file is there, or a link that should lead to one and leads nowhere, or round and round."""
    return place.is_file() or (isinstance(place, Path) and place.is_symlink() and not place.exists())


def entries_of(folder: Location) -> list[Location]:
    """What lies directly in a folder, sorted by name."""
    found: list[Location] = list(folder.iterdir())
    return sorted((entry for entry in found if entry.name), key=lambda entry: entry.name)


def check_unchanged(place: Location, before: list[Any]) -> None:
    """That a file is as it was.

    Raises:
        InputError: it has changed, or is gone.
        OSError, botocore.exceptions.BotoCoreError: a request failed.
    """
    now = file_state(place)
    if now != list(before):
        problem = "it was changed" if now[0] == before[0] else f"{before[0]:,} bytes became {now[0]:,}"
        problem = "it is gone" if now[0] < 0 else problem
        raise InputError(f"{place}: expected a file that stays as it is, got: {problem}; run again when it is complete")


class FileState(NamedTuple):
    """Size of a file, and what changes when the file does (None if nothing tells)."""

    size_bytes: int
    mark: Any = None


class ListedFile(NamedTuple):
    """A file in a listing: where it lies, as text, and its ``file_state``."""

    path: str
    state: list[Any]


def list_many(folders: Iterable[Location]) -> list[dict[str, ListedFile]]:
    """The files of each folder by name, in any order; on S3, many folders are listed at a time."""
    folders = list(folders)
    if all(isinstance(folder, Path) for folder in folders):
        return [_list_files(folder) for folder in folders]
    with ThreadPoolExecutor(_LISTINGS_AT_A_TIME) as pool:
        return list(pool.map(_list_files, folders))


def _list_files(folder: Location) -> dict[str, ListedFile]:
    if isinstance(folder, Path):
        with os.scandir(folder) as entries:
            files = (entry for entry in entries if entry.is_file())
            return {entry.name: ListedFile(entry.path, file_state(Path(entry.path))) for entry in files}
    listed = folder.fs.ls(folder.path, detail=True)
    # Millions of crops would fill the memory.
    folder.fs.invalidate_cache(folder.path)
    return {
        entry["name"].rsplit("/", 1)[-1]: ListedFile(S3_PREFIX + entry["name"], _state_of(entry))
        for entry in listed
        if entry["type"] == "file"
    }


def read_many(paths: Sequence[str]) -> list[bytes | OSError]:
    """The bytes of each file, or why it cannot be read; on S3, many are read at a time.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: a request to S3 failed.
    """
    remote = [path for path in paths if path.startswith(S3_PREFIX)]
    fs: Any = getattr(location(remote[0]), "fs", None) if remote else None
    found = dict(zip(remote, cat_each(fs, [path[len(S3_PREFIX) :] for path in remote]), strict=True))
    return [found[path] if path in found else _read(path) for path in paths]


def _read(path: str) -> bytes | OSError:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        return error


@contextlib.contextmanager
def reading_inputs(*places: Location) -> Iterator[None]:
    """Turn what a failed request to S3 in the block raises into one line; nothing for local places.

    Raises:
        InputError: a request failed for good.
    """
    remote = next((place for place in places if is_remote(place)), None)
    if remote is None:
        yield
        return
    with said_in_a_line(f"{remote}: expected inputs that can be read"):
        yield


class _FromText(NoCredentials):
    """Tells pydantic, without importing it here, how a parameter becomes a location."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            location,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )


LocationParameter = Annotated[Location, _FromText()]
