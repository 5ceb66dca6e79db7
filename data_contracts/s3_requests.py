"""How requests to S3 are made: retries and time limits, the same for every process, and what a failed one means.

Which requests there are is the business of whoever reads or writes. Only who has something on S3 imports ``s3fs``,
and only inside functions: it takes most of a second.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from data_contracts.errors import InputError
from data_contracts.urls import without_own_secrets

S3_PREFIX = "s3://"
# A request is tried so often, after waits that grow from 0.1 s to 15 s: a minute in all.
_TRIES = 12
# A wrong address, or a server that is gone, is told before any work starts: after two seconds of waits.
_FIRST_TRIES = 5
_CONNECT_SECONDS = 5
_READ_SECONDS = 30
# As many requests at a time per process.
_CONNECTIONS = 32
_PASSING = ("RequestTimeout", "Throttling", "TooManyRequests", "IncompleteBody", "BadDigest", "OperationAborted", "429")
_NOT_IMPLEMENTED = 501


def s3_options() -> dict[str, Any]:
    """What ``s3fs.S3FileSystem`` is made with; address and credentials come from the environment (``AWS_...``)."""
    import s3fs
    from s3fs.core import set_custom_error_handler

    # One layer of retries, that of s3fs: it also covers answers that are cut off, of which botocore does not know.
    s3fs.S3FileSystem.retries = _TRIES
    set_custom_error_handler(_passes)
    retries = {"mode": "standard", "total_max_attempts": 1}
    limits = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS, "max_pool_connections": _CONNECTIONS}
    return {"config_kwargs": {"retries": retries, **limits}}


def _passes(error: Exception) -> bool:
    """Whether the same request may fare better a little later, beyond what s3fs knows of."""
    from botocore.exceptions import ConnectionError as NoConnectionError

    response = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code"))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    at_fault = status >= 500 and status != _NOT_IMPLEMENTED
    return code in _PASSING or at_fault or isinstance(error, NoConnectionError | ConnectionError)


def error_code(error: BaseException | None) -> str:
    """What S3 called the error that this one came of, such as ``NoSuchKey``; nothing if it was none of S3."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def cat_each(fs: Any, keys: Sequence[str]) -> list[bytes | Exception]:
    """The bytes of each file, or why it cannot be read; many at a time, each in one request.

    ``fs.cat`` would take brackets in a name for a pattern, and read other files or none.
    """
    whole = [None] * len(keys)
    return list(fs.cat_ranges(list(keys), whole, whole, on_error="return", max_concurrency=1)) if keys else []


def check_reachable(fs: Any, bucket: str, what: str, *, kind: type[InputError] = InputError) -> None:
    """That a bucket answers, asked less patiently than what comes later.

    Args:
        fs: the ``s3fs.S3FileSystem``.
        what: what was expected, for the message.

    Raises:
        InputError: (or ``kind``) wrong bucket, credentials or address.
    """
    fs.retries = _FIRST_TRIES
    try:
        with said_in_a_line(what, kind=kind):
            fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    finally:
        del fs.retries


def cause_of(error: BaseException) -> str | None:
    """Why a request failed, in a few words, if ``error`` is one of a failed request."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    if isinstance(error, NoCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, PermissionError):
        return f"no permission ({_words(error)}); check the credentials (AWS_...) and the bucket's name"
    if isinstance(error, FileNotFoundError):
        return f"nothing there ({_words(error)}); check the bucket's name"
    is_address = isinstance(error, ValueError) and "Invalid endpoint" in str(error)
    if is_address or isinstance(error, BotoCoreError | OSError | asyncio.TimeoutError):
        address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
        cause = f"{_words(error) or type(error).__name__}; check AWS_ENDPOINT_URL_S3 ({address}), then run again"
        return without_own_secrets(cause)
    return None


def _words(error: BaseException) -> str:
    # Cut only what holds no secret any more: a part of one would not be known for one.
    return without_own_secrets(" ".join(str(error.args[-1] if error.args else error).split()))[:200]


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
