"""How requests to S3 are made: retries and time limits, the same for every process, and what a failed one means.

Which requests there are is the business of whoever reads or writes. Only who has something on S3 imports ``s3fs``
or ``s3_patience``, and only inside functions: it takes most of a second.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from data_contracts.errors import InputError
from data_contracts.files.urls import without_own_secrets

S3_PREFIX = "s3://"
# Before any work starts, and when all is over.
_SHORT_PATIENCE_SECONDS = 30.0
_CONNECT_SECONDS = 5
# Longest time without a byte of the answer.
_READ_SECONDS = 15
# As many requests at a time per process.
_CONNECTIONS = 32


def s3_options() -> dict[str, Any]:
    """What a file system of S3 is made with; address and credentials come from the environment (``AWS_...``)."""
    from data_contracts.files.s3_patience import use_patience

    use_patience()
    # One layer of retries: it also covers answers that are cut off, of which botocore does not know.
    retries = {"mode": "standard", "total_max_attempts": 1}
    limits = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS, "max_pool_connections": _CONNECTIONS}
    return {"config_kwargs": {"retries": retries, **limits}}


def error_code(error: BaseException | None) -> str:
    """What S3 called the error that this one came of, such as ``NoSuchKey``; nothing if it was none of S3."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def cat_each(fs: Any, keys: Sequence[str]) -> list[bytes | FileNotFoundError]:
    """The bytes of each file, or that it is not there; many at a time, each in one request.

    ``fs.cat`` would take brackets in a name for a pattern, and read other files or none; ``fs.cat_ranges`` would ask a
    server that has gone for every single file.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: the first request that failed for good; no others are made then.
    """
    from fsspec.asyn import sync

    try:
        return list(sync(fs.loop, _read_each, fs, keys)) if keys else []
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors.exceptions[0].__cause__


async def _read_each(fs: Any, keys: Sequence[str]) -> list[bytes | FileNotFoundError]:
    found: list[bytes | FileNotFoundError] = [b""] * len(keys)
    numbers = iter(range(len(keys)))

    async def read_some() -> None:
        for number in numbers:
            try:
                # However large, without asking for its size first.
                found[number] = await fs._cat_file(keys[number], max_concurrency=1)
            except FileNotFoundError as error:
                found[number] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_CONNECTIONS, len(keys))):
            group.create_task(read_some())
    return found


def check_reachable(fs: Any, bucket: str, what: str, *, kind: type[InputError] = InputError) -> None:
    """That a bucket answers, asked less patiently than what comes later.

    Args:
        fs: the file system.
        what: what was expected, for the message.

    Raises:
        InputError: (or ``kind``) wrong bucket, credentials or address.
    """
    with said_in_a_line(what, kind=kind), less_patiently(fs):
        fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)


@contextlib.contextmanager
def less_patiently(fs: Any) -> Iterator[None]:
    """While the block runs, half a minute is enough to know that a server does not answer."""
    from data_contracts.files.s3_patience import patience_with_s3

    fs.patience_seconds = min(_SHORT_PATIENCE_SECONDS, patience_with_s3())
    try:
        yield
    finally:
        fs.patience_seconds = None


def cause_of(error: BaseException) -> str | None:
    """Why a request failed, in a few words, if ``error`` is one of a failed request."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    from data_contracts.files.s3_patience import NoBucketError

    if isinstance(error, NoCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, PermissionError):
        return f"no permission ({_words(error)}); check the credentials (AWS_...) and the bucket's name"
    if isinstance(error, FileNotFoundError):
        return f"nothing there ({_words(error)}); check the bucket's name"
    if isinstance(error, NoBucketError):
        return f"{_words(error)} at {_address()}; check its name, create it first, or set AWS_ENDPOINT_URL_S3"
    is_address = isinstance(error, ValueError) and "Invalid endpoint" in str(error)
    if is_address or isinstance(error, BotoCoreError | OSError | asyncio.TimeoutError):
        cause = f"{_words(error) or type(error).__name__}; check AWS_ENDPOINT_URL_S3 ({_address()}), then run again"
        return without_own_secrets(cause)
    return None


def _address() -> str:
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    return without_own_secrets(address)


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
