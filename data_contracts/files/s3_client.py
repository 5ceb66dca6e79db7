"""Requests to S3: options, retries with a time limit, parallel reads, and one-line error messages.

Imports s3fs, which takes most of a second. Import this module only inside functions that use S3.

Why the retries of the libraries are not used: botocore's mode *standard* limits the number of retries per client, so
fifty parallel reads fail within three seconds of an outage; its mode *legacy* doubles the wait without a limit; s3fs
counts tries and nests two such loops in reads, so a silent server would block a run for hours. Here the time since the
first try counts.
"""

import asyncio
import contextlib
import os
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from fsspec import register_implementation
from fsspec.asyn import sync, sync_wrapper
from s3fs.core import S3FileSystem, set_custom_error_handler
from s3fs.errors import translate_boto_error

from data_contracts.errors import InputError
from data_contracts.files.credentials import hide_secrets
from data_contracts.settings import read_settings

# For checks before a run starts, and for releasing the lock at its end.
_SHORT_TIMEOUT_SECONDS = 30.0
_CONNECT_TIMEOUT_SECONDS = 5
# Maximum time without a byte of the answer.
_READ_TIMEOUT_SECONDS, _SHORT_READ_TIMEOUT_SECONDS = 15, 6
_MAX_CONNECTIONS = 32
# Waits between tries grow from 0.1 s to 15 s. Random waits keep many workers from coming back at the same moment.
_FIRST_WAIT_SECONDS, _WAIT_GROWTH, _MAX_WAIT_SECONDS, _MIN_RANDOM_FACTOR = 0.1, 1.7, 15.0, 0.7
_TRANSIENT_CODES = (
    *("SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "IncompleteBody", "BadDigest", "429"),
    *("OperationAborted", "XAmzContentSHA256Mismatch"),
)
_CHANGED_CODES = ("PreconditionFailed", "412", "NoSuchKey", "404")
_NOT_IMPLEMENTED = 501
# Up to 48 MB in memory per video. A worker reads one video, or two between its segments.
_BLOCK_BYTES, _MAX_BLOCKS, _MAX_OPEN_VIDEOS = 1 << 21, 24, 2
T = TypeVar("T")
# The current request of this task and the time of its first try: s3fs repeats the request if the body was cut off.
_first_try: ContextVar[tuple[Any, float]] = ContextVar("first_try", default=(None, 0.0))

# Causes of requests of a command that answers soon (``read_settings``) and whose server did not answer.
_unanswered: list[str] = []


class NoBucketError(OSError):
    """There is no such bucket."""


class RetryingS3FileSystem(S3FileSystem):
    """``s3fs.S3FileSystem`` that retries failing requests until a timeout.

    Attributes:
        timeout_seconds: no try starts later than this after the first try of a request; None: the timeout of the
            settings.
    """

    # How often s3fs repeats a read whose body was cut off. The timeout is reached first.
    retries = 100
    timeout_seconds: float | None = None

    async def set_session(self, *args: Any, **kwargs: Any) -> Any:
        """Return the client, which is made at the first call."""
        if self._s3 is None:
            asyncio.get_running_loop().set_default_executor(_DaemonThreads())
        return await super().set_session(*args, **kwargs)

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        await self.set_session()
        call = getattr(await self.get_s3(kwargs.get("Bucket")), method)
        parameters = self._get_s3_method_kwargs(call, *args, **kwargs)
        settings = read_settings()
        timeout_seconds = self.timeout_seconds or settings.s3_timeout_seconds
        started, tries, wait_seconds = _start_of((method, kwargs)), 0, _FIRST_WAIT_SECONDS
        if settings.is_answer_soon and _unanswered:
            raise OSError(_unanswered[-1])
        if time.monotonic() - started > timeout_seconds:
            raise OSError(f"answers that were cut off, for {time.monotonic() - started:.0f} s")
        while True:
            try:
                tries += 1
                # The timeouts of the client do not include the search for the server's address.
                async with asyncio.timeout(_SHORT_READ_TIMEOUT_SECONDS if settings.is_answer_soon else None):
                    return await call(**parameters)
            except Exception as error:
                if not _is_transient(error):
                    raise _translate(error, kwargs) from error
                pause_seconds = wait_seconds * random.uniform(_MIN_RANDOM_FACTOR, 1)
                elapsed_seconds = time.monotonic() - started
                if elapsed_seconds + pause_seconds > timeout_seconds:
                    last = " ".join(str(error).split()) or "no answer"
                    cause = f"{tries} tries in {elapsed_seconds:.0f} s, last: {last}"
                    if settings.is_answer_soon:
                        _unanswered.append(cause)
                    raise OSError(cause) from error
            await asyncio.sleep(pause_seconds)
            wait_seconds = min(wait_seconds * _WAIT_GROWTH, _MAX_WAIT_SECONDS)

    call_s3 = sync_wrapper(_call_s3)


class _DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a daemon thread. The event loop looks up addresses in these threads.

    A look-up can take minutes if DNS servers do not answer, and a process waits for other threads before it ends.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future


def _start_of(request: tuple[str, dict[str, Any]]) -> float:
    known, started = _first_try.get()
    if known != request:
        started = time.monotonic()
        _first_try.set((request, started))
    return started


def _translate(error: Exception, parameters: dict[str, Any]) -> BaseException:
    code = (getattr(error, "response", None) or {}).get("Error", {}).get("Code")
    if code == "NoSuchBucket":
        return NoBucketError(f"there is no bucket {parameters.get('Bucket')}")
    return translate_boto_error(error)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code in _TRANSIENT_CODES or (status >= 500 and status != _NOT_IMPLEMENTED)
    return isinstance(
        error, HTTPClientError | ResponseParserError | BotoConnectionError | ConnectionError | TimeoutError
    )


# From now on, everything in this process that opens ``s3://`` gets this file system.
set_custom_error_handler(_is_transient)
register_implementation("s3", RetryingS3FileSystem, clobber=True)


def s3_options() -> dict[str, Any]:
    """Return the options of the file system. Address and credentials come from the environment (``AWS_...``)."""
    retries = {"mode": "standard", "total_max_attempts": 1}
    read_timeout = _SHORT_READ_TIMEOUT_SECONDS if read_settings().is_answer_soon else _READ_TIMEOUT_SECONDS
    timeouts = {"connect_timeout": _CONNECT_TIMEOUT_SECONDS, "read_timeout": read_timeout}
    return {"config_kwargs": {"retries": retries, "max_pool_connections": _MAX_CONNECTIONS, **timeouts}}


def check_reachable(fs: Any, bucket: str, expected: str, *, kind: type[InputError] = InputError) -> None:
    """Check that a bucket answers within the short timeout.

    Raises:
        InputError: (or ``kind``) wrong bucket, credentials or address. The message begins with ``expected``.
    """
    with explain_errors(expected, kind=kind), short_timeout(fs):
        fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)


@contextlib.contextmanager
def short_timeout(fs: Any) -> Iterator[None]:
    """Limit retries in the block to half a minute."""
    fs.timeout_seconds = min(_SHORT_TIMEOUT_SECONDS, read_settings().s3_timeout_seconds)
    try:
        yield
    finally:
        fs.timeout_seconds = None


# -- reading -----------------------------------------------------------------------------------------------------------


def read_each(fs: Any, keys: Sequence[str]) -> list[bytes | FileNotFoundError]:
    """Return the bytes of each file, or ``FileNotFoundError``. Files are read in parallel, with one request each.

    ``fs.cat`` would take brackets in a name for a pattern, and read other files or none. ``fs.cat_ranges`` would ask a
    server that is down for every single file.

    Raises:
        OSError, botocore.exceptions.BotoCoreError: the first request that failed permanently; the others are canceled.
    """
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
                # With max_concurrency=1, s3fs does not ask for the size first.
                found[number] = await fs._cat_file(keys[number], max_concurrency=1)
            except FileNotFoundError as error:
                found[number] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_MAX_CONNECTIONS, len(keys))):
            group.create_task(read_some())
    return found


class VideoFile:
    """One version of a file on S3, read through fsspec's block cache.

    FFmpeg may ignore an error that ``read`` raises. Call ``raise_if_failed`` after FFmpeg is done.
    """

    def __init__(self, file: Any, name: str) -> None:
        self.name = name
        self.seek, self.tell = file.seek, file.tell
        self.error: Exception | None = None
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, none at the end of the file.

        Raises:
            InputError: the file was replaced since it was opened.
            OSError, botocore.exceptions.BotoCoreError: a request failed permanently.
        """
        self.raise_if_failed()
        try:
            return bytes(self._file.read(size))
        except Exception as error:
            self.error = error
            if error_code(error) in _CHANGED_CODES:
                self.error = InputError(
                    f"{self.name}: expected an unchanged file, got: it was changed; run again when it is complete"
                )
            raise self.error from error

    def raise_if_failed(self) -> None:
        """Raise the error of the request that failed, if one has."""
        if self.error is not None:
            raise self.error


_open_videos: "OrderedDict[tuple[str, str], VideoFile]" = OrderedDict()


def open_video_file(place: Any) -> VideoFile:
    """Open a video at a location on S3. The last videos that this process opened keep their cached blocks.

    Every segment of a video reads the container's index again, which is then in the cache.

    Raises:
        FileNotFoundError: there is no such file.
        OSError, botocore.exceptions.BotoCoreError: a request failed permanently.
    """
    fs = place.fs
    etag = str(fs.info(place.path, refresh=True).get("ETag"))
    found = _open_videos.pop((str(place), etag), None)
    if found is None or found.error:
        fs.invalidate_cache(place.path)
        options = {"cache_type": "blockcache", "cache_options": {"maxblocks": _MAX_BLOCKS}}
        found = VideoFile(fs.open(place.path, "rb", block_size=_BLOCK_BYTES, **options), str(place))
    _open_videos[str(place), etag] = found
    while len(_open_videos) > _MAX_OPEN_VIDEOS:
        _open_videos.popitem(last=False)
    found.seek(0)
    return found


# -- errors ------------------------------------------------------------------------------------------------------------


def error_code(error: BaseException | None) -> str:
    """Return the code of the S3 error that caused this one, such as ``NoSuchKey``; empty if there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


@contextlib.contextmanager
def explain_errors(expected: str, *, kind: type[InputError] = InputError) -> Iterator[None]:
    """Turn errors of requests in the block into one line, ``EXPECTED, got: CAUSE``.

    Raises:
        InputError: (or ``kind``) a request failed permanently.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = _cause_of(error)
        if cause is None:
            raise
        raise kind(f"{expected}, got: {cause}") from error


def _cause_of(error: BaseException) -> str | None:
    """Describe why a request failed; None if ``error`` is not an error of a request."""
    if isinstance(error, NoCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, PermissionError):
        return f"no permission ({_message_of(error)}); check the credentials (AWS_...) and the bucket's name"
    if isinstance(error, FileNotFoundError):
        return f"nothing there ({_message_of(error)}); check the bucket's name"
    if isinstance(error, NoBucketError):
        return f"{_message_of(error)} at {_address()}; check its name, create it first, or set AWS_ENDPOINT_URL_S3"
    is_address = isinstance(error, ValueError) and "Invalid endpoint" in str(error)
    if is_address or isinstance(error, BotoCoreError | OSError | asyncio.TimeoutError):
        cause = _message_of(error) or type(error).__name__
        return hide_secrets(f"{cause}; check AWS_ENDPOINT_URL_S3 ({_address()}), then run again")
    return None


def _address() -> str:
    address = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    return hide_secrets(address)


def _message_of(error: BaseException) -> str:
    # Cut after hiding: a part of a secret would not be recognized.
    return hide_secrets(" ".join(str(error.args[-1] if error.args else error).split()))[:200]
