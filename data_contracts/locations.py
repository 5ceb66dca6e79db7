"""Where inputs and results lie, as a person writes it: a path, ``file://`` or ``s3://``.

``location`` makes one of text. A local one is a plain ``pathlib.Path``; one on S3 is a ``upath.UPath``, which has the
same methods (``name``, ``stem``, ``suffix``, ``iterdir``, ``is_dir``, ``glob``, ``open``, ``read_bytes``, ``/``, ...)
and whose ``str`` is its URL, so that ``location(str(place)) == place``. To be told apart: ``is_remote``.
``LocationParameter`` is the annotation for parameters of flows. ``file_state`` says whether a file is still the one it
was.

Nothing that is local imports more than ``pathlib``. What a store is made of lies in ``store``.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from data_contracts.errors import InputError
from data_contracts.s3_requests import S3_PREFIX, s3_options

if TYPE_CHECKING:
    from upath import UPath

    Location = Path | UPath
else:
    # The name in annotations of parameters is ``LocationParameter``: to name UPath here would import it.
    Location = Path

_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,62}")
# Size and mark of a file that is not there.
NO_FILE = [-1, -1]


def location(text: Any) -> Location:
    """The location that a text names; what is one already stays as it is.

    Raises:
        InputError: another protocol than ``file://`` and ``s3://``, or a mistake in the URL.
    """
    if not isinstance(text, str):
        return text if isinstance(text, Path) or is_remote(text) else Path(text)
    found = _PROTOCOL.match(text)
    if not found:
        return Path(text)
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
    """Let what was listed on S3 before be listed anew; nothing for a local place."""
    if not isinstance(place, Path):
        place.fs.invalidate_cache()


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
    return [found["size"], str(found.get("ETag", "")).strip('"')] if found["type"] == "file" else list(NO_FILE)


class _FromText:
    """Tells pydantic, without importing it here, how a parameter becomes a location."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            location,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )


LocationParameter = Annotated[Location, _FromText()]
