"""Locations of inputs and results as users write them: a path, ``file://`` or ``s3://``.

``location`` parses text. A local location is a ``pathlib.Path``. A location on S3 is a ``upath.UPath``, which has the
same methods (``name``, ``iterdir``, ``is_dir``, ``open``, ``read_bytes``, ``/``, ...) and whose ``str`` is its URL.
Local locations import only ``pathlib``.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.errors import InputError
from data_contracts.files.credentials import check_no_credentials

if TYPE_CHECKING:
    from upath import UPath

    Location = Path | UPath
else:
    # Naming UPath here would import it.
    Location = Path

S3_PREFIX = "s3://"
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,62}")


def location(text: Any) -> Location:
    """Return the location that a text names. A value that already is a location is returned unchanged.

    Raises:
        InputError: the URL is invalid, contains credentials, or has a protocol other than ``file://`` and ``s3://``.
    """
    if not isinstance(text, str):
        return text if isinstance(text, Path) or is_remote(text) else Path(text)
    if not _PROTOCOL.match(text):
        return Path(text)
    check_no_credentials(text, what="location")
    if text.startswith("file:///"):
        return Path(text.removeprefix("file://"))
    bucket = text.removeprefix(S3_PREFIX).split("/", 1)[0]
    if not text.startswith(S3_PREFIX) or not _BUCKET.fullmatch(bucket):
        raise InputError(f"expected a path, file:///FOLDER or s3://BUCKET/FOLDER, got {text!r}; correct it")
    from upath import UPath

    from data_contracts.files.s3_client import s3_options

    return UPath(text.rstrip("/"), **s3_options())


def absolute_location(text: Any) -> Location:
    """Return the location that a text names, as every process finds it, whatever its working directory is.

    Raises:
        InputError: as ``location``.
    """
    place = location(text)
    return place if is_remote(place) else place.absolute()


def is_remote(place: Any) -> bool:
    """Return whether a location is on S3."""
    return hasattr(place, "fs")


def check_inside(path: str) -> str:
    """Return ``path``, relative to a store, if it stays inside the store. Paths may come from any file that was read.

    Raises:
        InputError: the path leads out of the store, or contains a NUL character.
    """
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InputError(f"store: expected a name within it, got {path[:200]!r}; remove the file that holds this name")
    return path
