"""Locations of inputs and results as users write them: a path, ``file://`` or ``s3://``.

``location`` parses text. A local location is a ``pathlib.Path``. A location on S3 is a ``upath.UPath``, which has the
same methods (``name``, ``iterdir``, ``is_dir``, ``open``, ``read_bytes``, ``/``, ...) and whose ``str`` is its URL.
Local locations import only ``pathlib``.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from data_contracts.errors import InputError

if TYPE_CHECKING:
    from upath import UPath

    Location = Path | UPath
else:
    # Naming UPath here would import it.
    Location = Path

S3_PREFIX = "s3://"
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,62}")
# Secret keys of AWS contain slashes. After a colon before the first slash, everything up to the last @ is secret.
_USER = r"(?:[^/?#:]*:[^?#]*|[^/?#]*)@"
_USER_IN_URL = re.compile(rf"(?<=://){_USER}")
_SECRET_IN_QUERY = re.compile(
    r"([?&](?:x-amz-[\w-]*|signature|sig|[\w-]*(?:access_?-?key|secret|token|password|credential)[\w-]*)=)[^&#]*",
    re.IGNORECASE,
)
# The same in the JSON schema of forms, so that a server refuses credentials before it stores them. Patterns in browsers
# have no flag that ignores case.
_FORM_PATTERN = (
    rf"^(?!.*://{_USER})(?!.*[?&](?:[Xx]-[Aa][Mm][Zz]-|[Ss]ig=|[Ss]ignature=|"
    r"[^&=]*(?:[Ss]ecret|[Tt]oken|[Pp]assword|[Cc]redential|[Aa]ccess_?-?[Kk]ey)[^&=]*=))"
)
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")


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


def is_remote(place: Any) -> bool:
    """Return whether a location is on S3."""
    return hasattr(place, "fs")


def check_inside(path: str) -> str:
    """Return ``path``, relative to a store, if it stays inside the store. Paths may come from any file that was read.

    Raises:
        InputError: the path leads out of the store, or no disk can have it.
    """
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InputError(f"store: expected a name within it, got {path[:200]!r}; remove the file that holds this name")
    return path


def check_no_credentials(url: str, *, what: str) -> None:
    """Check that a URL contains no user, password, key or signature, because logs and reports show URLs.

    Raises:
        InputError: it does. The message names ``what`` (a parameter) and hides the credentials.
    """
    shown = hide_credentials(url)
    if shown != url:
        raise InputError(
            f"{what}: expected a URL without credentials, got {shown!r}; give them in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or in a profile of ~/.aws/credentials, and change a key that was shown"
        )


def hide_credentials(text: str) -> str:
    """Replace credentials inside URLs with ``***``. Text without credentials is returned unchanged."""
    return _SECRET_IN_QUERY.sub(r"\1***", _USER_IN_URL.sub("***@", text))


def hide_secrets(text: str) -> str:
    """Replace credentials inside URLs and those of the environment: some servers repeat them in error messages."""
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        text = text.replace(secret, "***") if secret else text
    return hide_credentials(text)


class NoCredentials:
    """Annotation for pydantic, without importing it: forms refuse URLs with credentials."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return handler(schema) | {"pattern": _FORM_PATTERN}


StoreParameter = Annotated[str, NoCredentials()]
