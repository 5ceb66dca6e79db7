"""The file system on S3: what fails in passing is repeated for a limited time, in whichever way it fails.

s3fs repeats by count, and what it reads twice as deep: a server that takes requests and never answers would hold a
run for hours. Here the time since the first try counts. Imported only inside functions, as ``s3fs`` is.
"""

import asyncio
import math
import os
import random
import time
from contextvars import ContextVar
from typing import Any

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError
from fsspec import register_implementation
from fsspec.asyn import sync_wrapper
from s3fs.core import S3FileSystem, set_custom_error_handler
from s3fs.errors import translate_boto_error

_VARIABLE = "AFFWILD2_PATIENCE_SECONDS"
_PATIENCE_SECONDS = 120.0
# Waits grow from 0.1 s to 15 s, each up to a third shorter by chance: many workers must not come back at once.
_FIRST_WAIT_SECONDS, _GROWTH, _LONGEST_WAIT_SECONDS, _SHORTEST_SHARE = 0.1, 1.7, 15.0, 0.7
_PASSING = ("SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "IncompleteBody", "BadDigest", "429")
_ALSO_PASSING = ("OperationAborted", "XAmzContentSHA256Mismatch")
_NOT_IMPLEMENTED = 501
# The request that this task is at, and when it was tried first: reading repeats a request whose answer was cut off.
_at_work: ContextVar[tuple[Any, float]] = ContextVar("at_work", default=(None, 0.0))


class NoAnswerError(OSError):
    """A request was repeated until patience was over."""


class NoBucketError(OSError):
    """There is no such bucket: another thing than a file that is not there."""


class PatientS3FileSystem(S3FileSystem):
    """``s3fs.S3FileSystem`` with limits of time.

    ``patience_seconds``: no further try of a request begins so long after its first one.
    """

    # Repetitions of a request whose answer was cut off: time is over first.
    retries = 100
    patience_seconds: float | None = None

    async def _call_s3(self, method: str, *parts: Any, **wanted: Any) -> Any:
        await self.set_session()
        call = getattr(await self.get_s3(wanted.get("Bucket")), method)
        parameters = self._get_s3_method_kwargs(call, *parts, **wanted)
        patience = self.patience_seconds or patience_with_s3()
        began, tries, wait = _first_tried((method, wanted)), 0, _FIRST_WAIT_SECONDS
        if time.monotonic() - began > patience:
            raise NoAnswerError(f"answers that were cut off, for {time.monotonic() - began:.0f} s")
        while True:
            try:
                tries += 1
                return await call(**parameters)
            except Exception as error:
                if not passes(error):
                    raise _translated(error, wanted) from error
                pause = wait * random.uniform(_SHORTEST_SHARE, 1)
                if time.monotonic() - began + pause > patience:
                    said = " ".join(str(error).split())
                    raise NoAnswerError(f"{tries} tries in {time.monotonic() - began:.0f} s, last: {said}") from error
            await asyncio.sleep(pause)
            wait = min(wait * _GROWTH, _LONGEST_WAIT_SECONDS)

    call_s3 = sync_wrapper(_call_s3)


def _first_tried(request: tuple[str, dict[str, Any]]) -> float:
    known, began = _at_work.get()
    if known != request:
        began = time.monotonic()
        _at_work.set((request, began))
    return began


def _translated(error: Exception, wanted: dict[str, Any]) -> BaseException:
    code = (getattr(error, "response", None) or {}).get("Error", {}).get("Code")
    if code == "NoSuchBucket":
        return NoBucketError(f"there is no bucket {wanted.get('Bucket')}")
    return translate_boto_error(error)


def passes(error: Exception) -> bool:
    """Whether the same request may fare better a little later."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code in (*_PASSING, *_ALSO_PASSING) or (status >= 500 and status != _NOT_IMPLEMENTED)
    if isinstance(error, NoAnswerError | NoBucketError):
        return False
    return isinstance(error, HTTPClientError | ResponseParserError | NoConnectionError | ConnectionError | TimeoutError)


def patience_with_s3() -> float:
    """Two minutes, or what ``AFFWILD2_PATIENCE_SECONDS`` says; runs refuse what is no such number."""
    try:
        said = float(os.environ.get(_VARIABLE) or _PATIENCE_SECONDS)
    except ValueError:
        return _PATIENCE_SECONDS
    return said if 0 < said < math.inf else _PATIENCE_SECONDS


def use_patience() -> None:
    """From now on, whoever opens ``s3://`` in this process gets this file system."""
    set_custom_error_handler(passes)
    register_implementation("s3", PatientS3FileSystem, clobber=True)
