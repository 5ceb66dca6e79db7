"""How requests to S3 are made: retries and time limits, the same for every process, and what a failed one means.

Which requests there are is the business of whoever reads or writes. Only who has something on S3 imports ``s3fs``,
and only inside functions: it takes most of a second.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from data_contracts.errors import InputError

S3_PREFIX = "s3://"
# A request is tried so often, after waits that grow from 0.1 s to 15 s: a minute in all.
_TRIES = 12
# A wrong address or a server that is gone is to be told at once, before any work: four seconds in all.
_FIRST_TRIES = 6
_CONNECT_SECONDS = 5
_READ_SECONDS = 30
# As many requests at a time per process.
_CONNECTIONS = 32
_PASSING: tuple[str, ...] = ("InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "TooManyRequests")
_PASSING += ("IncompleteBody", "BadDigest", "OperationAborted", "429")


def s3_options() -> dict[str, Any]:
    """What ``s3fs.S3FileSystem`` is made with; address and credentials come from the environment (``AWS_...``)."""
    import s3fs
    from s3fs.core import set_custom_error_handler

    # One layer of retries, that of s3fs: it also covers answers that are cut off, of which botocore does not know.
    s3fs.S3FileSystem.retries = _TRIES
    set_custom_error_handler(_passes)
    retries = {"mode": "adaptive", "total_max_attempts": 1}
    limits = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS, "max_pool_connections": _CONNECTIONS}
    return {"config_kwargs": {"retries": retries, **limits}}


def _passes(error: Exception) -> bool:
    """Whether the same request may fare better a little later, beyond what s3fs knows of."""
    response = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code"))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code in _PASSING or status >= 500


def cause_of(error: BaseException) -> str | None:
    """Why a request failed, in a few words, if ``error`` is one of a failed request."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    if isinstance(error, NoCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, PermissionError):
        return f"no permission ({_words(error)}); check the credentials (AWS_...) and the bucket's name"
    if isinstance(error, FileNotFoundError):
        return f"nothing there ({_words(error)}); check the bucket's name"
    if isinstance(error, BotoCoreError | OSError | asyncio.TimeoutError):
        address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
        return f"{_words(error) or type(error).__name__}; check the address ({address}) and run again"
    return None


def _words(error: BaseException) -> str:
    return " ".join(str(error.args[-1] if error.args else error).split())[:200]


@contextlib.contextmanager
def said_in_a_line(what: str, *, kind: type[InputError] = InputError) -> Iterator[None]:
    """Turn what a failed request in the block raises into one line, ``WHAT, got: CAUSE``.

    Raises:
        InputError: (or ``kind``) a request failed for good.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = cause_of(error)
        if cause is None:
            raise
        raise kind(f"{what}, got: {cause}") from error
