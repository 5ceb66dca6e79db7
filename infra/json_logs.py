"""Log lines as JSON objects: time, level, message, logger, and what is known of the run.

``logging.config`` of other programs may name ``JsonFormatter``: see ``infra/monitoring/json-logs.env``.
"""

import contextlib
import logging
import math
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter as LibraryFormatter

PROGRAM = "affwild2"
# Names of fields: those of logging and of the records of Prefect, and what they are called here.
_RENAMED = {
    "levelname": "level",
    "name": "logger",
    "flow_name": "flow",
    "flow_run_id": "run_id",
    "flow_run_name": "run",
    "task_run_name": "stage",
}
# Prefect's name of a flow before its code is loaded.
_UNKNOWN = "<unknown>"
_LEFT_OUT = ("color_message", "send_to_api", "taskName", "task_name", "task_run_id")
_fields: ContextVar[Mapping[str, object]] = ContextVar("fields", default={})  # noqa: B039 - never changed in place


@contextlib.contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Add fields, such as ``store`` or ``stage``, to every line that is logged inside the block."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


class JsonFormatter(LibraryFormatter):
    """Formats a record as one line of strict JSON. A traceback becomes the field ``exc_info``.

    The arguments are those that ``logging.config`` passes to every formatter; they are not used.
    """

    def __init__(self, fmt: str | None = None, datefmt: str | None = None, style: str = "%", **options: object) -> None:
        super().__init__(
            ["levelname", "message", "name"],
            timestamp="time",
            rename_fields=_RENAMED,
            reserved_attrs=[*RESERVED_ATTRS, *_LEFT_OUT],
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Put the time first, add the fields of the run, and leave out empty fields."""
        time = log_data.pop("time")
        found = {"time": time, **{name: value for name, value in log_data.items() if value != _UNKNOWN}}
        known = {name: value for name, value in _fields.get().items() if found.get(name) is None}
        return {name: _strict(value) for name, value in (found | known).items() if value is not None}


def _strict(value: Any) -> Any:
    """Return a value without what JSON cannot hold: text that is not UTF-8, and numbers that are not finite."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_strict(str(name)): _strict(one) for name, one in value.items()}
    return [_strict(one) for one in value] if isinstance(value, list | tuple) else value


_FORMATTER = JsonFormatter()


def write_line(text: str, stream: TextIO, *, level: int = logging.INFO, **fields: object) -> None:
    """Write one line with further fields to a stream."""
    record = logging.getLogger(PROGRAM).makeRecord(PROGRAM, level, "", 0, text, (), None, extra=fields)
    print(_FORMATTER.format(record), file=stream, flush=True)


def log_as_json() -> None:
    """Write all log records, warnings and tracebacks of this process to standard error as JSON.

    Handlers that are configured already stay, such as those of a program that runs flows.
    """
    root, dask = logging.getLogger(), logging.getLogger("distributed")
    if not root.handlers:
        root.addHandler(_handler(logging.NOTSET))
    # As distributed does for text. Parts of it set their own level, and would log each start and end of a worker.
    dask.addHandler(_handler(logging.CRITICAL))
    dask.propagate = False
    logging.captureWarnings(True)
    sys.excepthook = _log_exception
    threading.excepthook = _log_exception_of_thread
    sys.unraisablehook = _log_unraisable


def _handler(level: int) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTER)
    handler.setLevel(level)
    return handler


def _log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger(PROGRAM).critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _log_exception_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value and not isinstance(arguments.exc_value, SystemExit):
        _log_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


def _log_unraisable(unraisable: Any) -> None:
    error = unraisable.exc_value
    text = unraisable.err_msg or "Exception ignored in"
    logging.getLogger(PROGRAM).error("%s: %r", text, unraisable.object, exc_info=error)
