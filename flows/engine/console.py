"""Output for users: tables, lines, results, and the messages of errors; ``progress`` shows progress.

``choose_output`` applies ``--quiet`` and ``--json``. ``redirect_output`` sends everything to a log instead, where lines
about failures, quarantine and lost inputs have the levels ERROR and WARNING. With ``AFFWILD2_LOG_FORMAT=json``, every
line is a JSON object, and so is every table.
"""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_contracts.errors import InputError, explain_os_error, printable
from data_contracts.settings import read_settings
from data_contracts.vocabulary import SIMULATED_NOTICE
from infra.interruption import EXIT_INTERRUPTED, RESUME

EXIT_SOME_FAILED = 1
EXIT_WRONG_REQUEST = 2
_WIDTH = 160
# Receives a level of ``logging`` and a text.
Log = Callable[[int, str], None]
_log: ContextVar[Log | None] = ContextVar("log", default=None)
# Version of the JSON results: it changes if a key is renamed or removed, or gets another meaning.
_RESULT_VERSION = 1


@dataclass(frozen=True)
class _Output:
    """What a command prints. ``is_quiet``: only problems and the result. ``is_json``: the result as a JSON object."""

    is_quiet: bool = False
    is_json: bool = False


_output: ContextVar[_Output] = ContextVar("output", default=_Output())  # noqa: B039 - never changed in place


@contextlib.contextmanager
def choose_output(*, is_quiet: bool, is_json: bool) -> Iterator[None]:
    """Apply ``--quiet`` and ``--json`` to the output inside the block.

    Args:
        is_quiet: print no progress, and no lines and tables but results on standard output; problems are printed on
            standard error.
        is_json: standard output receives only the object of ``print_result``; all else goes to standard error.
    """
    token = _output.set(_Output(is_quiet, is_json))
    try:
        yield
    finally:
        _output.reset(token)


def _is_quiet() -> bool:
    """Return whether the command prints no progress."""
    return _output.get().is_quiet


@contextlib.contextmanager
def redirect_output(log: Log) -> Iterator[None]:
    """Send lines and tables to ``log`` instead of standard output and standard error inside the block."""
    token = _log.set(log)
    try:
        yield
    finally:
        _log.reset(token)


def add_fields(**fields: object) -> contextlib.AbstractContextManager[None]:
    """Add fields, such as ``store``, to all JSON lines of the block, also to those of libraries."""
    if not _is_json():
        return contextlib.nullcontext()
    from infra.json_logs import log_fields

    return log_fields(**fields)


def console() -> Console:
    """Return a console on standard output: coloured on a terminal, wide and plain elsewhere."""
    return _console_on(sys.stdout)


def _console_on(stream: TextIO) -> Console:
    return Console(file=stream) if stream.isatty() else Console(file=stream, width=_WIDTH, highlight=False)


class Result(Protocol):
    """What a command found out: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def command(self) -> str:
        """Name of the command, for readers of the JSON."""


def print_result(result: Result) -> bool:
    """Print a result as one JSON object on standard output if ``--json`` was given; return whether it was.

    Keys are the names of the fields, in their order, after ``command`` and ``version``.

    Raises:
        ValueError: a number is not finite; JSON has none.
    """
    if not _output.get().is_json or _log.get():
        return False
    values = {"command": result.command, "version": _RESULT_VERSION} | asdict(result)
    _prepare_output()
    # In ASCII, so that names that are not UTF-8 can be printed everywhere.
    sys.stdout.write(json.dumps(values, indent=1, default=str, allow_nan=False) + "\n")
    sys.stdout.flush()
    return True


def print_names(names: Iterable[str]) -> bool:
    """Print names on lines of their own if ``--quiet`` was given; return whether it was."""
    if not _is_quiet():
        return False
    for name in names:
        print_line(name, is_result=True)
    return True


# Functions that remove what a terminal shows below the output.
_before_output: list[Callable[[], None]] = []


@contextlib.contextmanager
def before_output(action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` before anything is printed in the block."""
    _before_output.append(action)
    try:
        yield
    finally:
        _before_output.remove(action)


def _prepare_output() -> None:
    for action in _before_output:
        action()


def shows_bars() -> bool:
    """Return whether progress is shown as bars, because this is a terminal, and not as lines of text."""
    return not (_log.get() or _is_json() or _is_quiet()) and sys.stderr.isatty()


def write_progress_line(line: str, **fields: Any) -> None:
    """Write a line about progress. ``fields``: those of a JSON line, such as ``unit``."""
    if log := _log.get():
        with add_fields(**fields):
            log(logging.INFO, printable(line))
    elif not _is_quiet():
        _write(line, sys.stderr, **fields)


def print_table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    simulated: bool = False,
    is_result: bool = False,
) -> None:
    """Print a table with right-aligned numbers; in a log, without lines between its cells.

    Args:
        simulated: the title says that the numbers come from simulated data.
        is_result: the title sums up what the command did, so ``--quiet`` shows it.
    """
    title += f": {SIMULATED_NOTICE}" if simulated else ""
    rows, log = [list(row) for row in rows], _log.get()
    by_name = [dict(zip(header, row, strict=True)) for row in rows]
    if log is None and _is_quiet():
        if is_result:
            print_line(title, is_result=True)
        return
    if log is None and _is_json():
        _write(title, _stream(), rows=by_name)
        return
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    if log:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for position, name in enumerate(header):
        numeric = all(isinstance(row[position], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if log is None:
        _prepare_output()
        _console_on(_stream()).print(table)
        return
    text = io.StringIO()
    Console(file=text, width=_WIDTH, highlight=False, color_system=None).print(table)
    with add_fields(rows=by_name):
        log(logging.INFO, "\n".join([f"{title}:", *(line.rstrip() for line in text.getvalue().rstrip().splitlines())]))


class Lines(tuple[str, ...]):
    """A cell of a table with several lines."""

    __slots__ = ()

    def __new__(cls, *lines: str) -> "Lines":
        """Return a cell with these lines."""
        return super().__new__(cls, lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Lines):
        return "\n".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else escape(printable(str(value)))


def print_line(text: str, *, level: int = logging.INFO, is_result: bool = False, **fields: Any) -> None:
    """Print one line, without markup and wrapping.

    Args:
        level: in a log or a JSON line; from ``logging.WARNING`` on, the line reports a problem.
        is_result: the line sums up what the command did, so ``--quiet`` shows it.
        fields: those of a JSON line, such as ``unit``.
    """
    if log := _log.get():
        with add_fields(**fields):
            log(level, printable(text))
    elif not _is_quiet() or is_result or level >= logging.WARNING:
        is_problem = _is_quiet() and not is_result
        _write(text, sys.stderr if is_problem else _stream(), level=level, **fields)


def _stream() -> TextIO:
    """Return the stream for lines and tables: standard output, unless it is reserved for a JSON object."""
    return sys.stderr if _output.get().is_json else sys.stdout


def print_warning(text: str) -> None:
    """Print one line on standard error about something that does not end the command."""
    print_error(text, level=logging.WARNING)


def print_error(text: str, *, level: int = logging.ERROR) -> None:
    """Print one line on standard error."""
    if log := _log.get():
        log(level, printable(text))
    else:
        _write(text, sys.stderr, level=level)


def _is_json() -> bool:
    try:
        return read_settings().log_format == "json"
    except InputError:
        # The command reports the invalid setting.
        return False


def _write(text: str, stream: TextIO, *, level: int = logging.INFO, **fields: Any) -> None:
    _prepare_output()
    if _is_json():
        from infra.json_logs import write_line

        write_line(printable(text), stream, level=level, **fields)
    elif stream is sys.stdout:
        console().print(printable(text), markup=False, highlight=False, soft_wrap=True)
    else:
        Console(stderr=True).print(printable(text), markup=False, highlight=False, soft_wrap=True)


def explain_error(error: BaseException) -> tuple[str, int] | None:
    """Return a one-line message and the exit code for an error of inputs, parameters or machines.

    Return None for other errors, which should be shown with their traceback. Exceptions of libraries are compared by
    name, which avoids the imports.
    """
    name = type(error).__name__
    if isinstance(error, InputError) or name == "ClusterError":
        return str(error), EXIT_WRONG_REQUEST
    if name == "SomeFailedError":
        return str(error), EXIT_SOME_FAILED
    if name in ("ValidationError", "ParameterTypeError"):
        return printable(_first_validation_error(error)), EXIT_WRONG_REQUEST
    if name == "ClusterLostError":
        return f"{error}; {RESUME}", EXIT_INTERRUPTED
    if isinstance(error, OSError) and (explained := explain_os_error(error)):
        return explained, EXIT_WRONG_REQUEST
    return None


def _first_validation_error(error: Any) -> str:
    """Return the first validation error of pydantic in one line. Prefect passes such errors as text."""
    if not hasattr(error, "errors"):
        return " ".join(str(error).split())
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    return f"{name}: {cause}" if isinstance(cause, ValueError) else f"{name}: {first['msg']}, got {first['input']!r}"
