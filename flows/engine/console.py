"""Output for users: progress, tables, lines, and the messages of errors.

Progress is a bar on a terminal, and lines of text elsewhere. ``redirect_output`` sends everything to a log instead,
where lines about failures, quarantine and lost inputs have the levels ERROR and WARNING. With
``AFFWILD2_LOG_FORMAT=json``, every line is a JSON object, and so is every table.
"""

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from data_contracts.errors import InputError, explain_os_error, printable
from data_contracts.settings import read_settings
from data_contracts.vocabulary import SIMULATED_NOTICE
from infra.interruption import EXIT_INTERRUPTED, RESUME
from models.engines.progress import format_duration

EXIT_SOME_FAILED = 1
EXIT_WRONG_REQUEST = 2
_PLAIN_LINE_SECONDS = 10.0
# Maximum number of progress lines about the units of a stage.
_PLAIN_LINES = 10
# Interval between the lines about one unit that takes long, as a share of its time.
_PLAIN_LINE_SHARE = 0.1
_WIDTH = 160
# Receives a level of ``logging`` and a text.
Log = Callable[[int, str], None]
_log: ContextVar[Log | None] = ContextVar("log", default=None)


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
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH, highlight=False)


class StageProgress(Protocol):
    """Shows the progress of a stage."""

    def advance(self, unit: str, failed: int) -> None:
        """Show that a unit is finished, and the number of failures so far."""

    def show(self, unit: str, line: str) -> None:
        """Show a line about the progress of a unit that takes long."""


@contextlib.contextmanager
def progress_of(name: str, total: int, *, costs: Mapping[str, float] | None = None) -> Iterator[StageProgress]:
    """Show the progress of a stage with this number of units.

    ``costs``: unit -> time that it takes, relative to the others; for the time left. None: all take equally long.
    """
    if _log.get() or _is_json() or not sys.stderr.isatty():
        yield _PlainProgress(name, total, costs)
        return
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        TextColumn("{task.fields[done]}/{task.fields[units]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    stage, units = Progress(*columns), Progress(TextColumn("  {task.description}", markup=False))
    with Live(Group(stage, units), console=Console(stderr=True), transient=True):
        whole = sum(costs.values()) if costs else total
        yield _Bars(stage, units, stage.add_task(name, total=whole, done=0, units=total, failed=""), costs or {})


class _Bars:
    """A bar for the stage, and a line below it for every unit that takes long."""

    def __init__(self, stage: Progress, units: Progress, bar: TaskID, costs: Mapping[str, float]) -> None:
        self._stage, self._units, self._bar, self._costs = stage, units, bar, costs
        self._done = 0
        self._lines: dict[str, TaskID] = {}

    def advance(self, unit: str, failed: int) -> None:
        self._done += 1
        what = f"[red]{failed} failed" if failed else ""
        self._stage.update(self._bar, advance=self._costs.get(unit, 1), done=self._done, failed=what)
        if unit in self._lines:
            self._units.remove_task(self._lines.pop(unit))

    def show(self, unit: str, line: str) -> None:
        if unit not in self._lines:
            self._lines[unit] = self._units.add_task("")
        self._units.update(self._lines[unit], description=printable(f"{unit}: {line}"))


class _PlainProgress:
    """Lines of text: at most ten about the units of a stage, and ever fewer about a unit that takes long."""

    def __init__(self, name: str, total: int, costs: Mapping[str, float] | None) -> None:
        self._name, self._total, self._log = name, total, _log.get()
        self._done, self._shown, self._shown_at = 0, 0, time.monotonic()
        self._began, self._costs, self._done_cost = self._shown_at, costs, 0.0
        # Unit -> when its first line was received, and when a line was shown.
        self._units: dict[str, tuple[float, float]] = {}

    def advance(self, unit: str, failed: int) -> None:
        self._done += 1
        self._done_cost += self._costs.get(unit, 0.0) if self._costs else 0.0
        is_due = time.monotonic() - self._shown_at >= _PLAIN_LINE_SECONDS
        if is_due and (self._done - self._shown) * _PLAIN_LINES >= self._total:
            self._shown, self._shown_at = self._done, time.monotonic()
            line = f"{self._name}: {self._done} of {self._total} done, {failed} failed{self._format_time_left()}"
            self._write(line, units=self._total, done=self._done, failed=failed)

    def _format_time_left(self) -> str:
        if not self._costs or not self._done_cost:
            return ""
        left = sum(self._costs.values()) / self._done_cost - 1
        return f", about {format_duration(left * (time.monotonic() - self._began))} left"

    def show(self, unit: str, line: str) -> None:
        now = time.monotonic()
        began, shown_at = self._units.setdefault(unit, (now, now))
        if now - shown_at >= max(_PLAIN_LINE_SECONDS, _PLAIN_LINE_SHARE * (now - began)):
            self._units[unit] = began, now
            self._write(f"{self._name}: {unit}: {line}", unit=unit)

    def _write(self, line: str, **fields: Any) -> None:
        if self._log:
            with add_fields(**fields):
                self._log(logging.INFO, printable(line))
        else:
            _write(line, sys.stderr, stage=self._name, **fields)


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, simulated: bool = False
) -> None:
    """Print a table with right-aligned numbers; in a log, without lines between its cells.

    ``simulated``: the title says that the numbers come from simulated data.
    """
    title += f": {SIMULATED_NOTICE}" if simulated else ""
    rows, log = [list(row) for row in rows], _log.get()
    by_name = [dict(zip(header, row, strict=True)) for row in rows]
    if log is None and _is_json():
        _write(title, sys.stdout, rows=by_name)
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
        console().print(table)
        return
    text = io.StringIO()
    Console(file=text, width=_WIDTH, highlight=False, color_system=None).print(table)
    with add_fields(rows=by_name):
        log(logging.INFO, "\n".join([f"{title}:", *(line.rstrip() for line in text.getvalue().rstrip().splitlines())]))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else escape(printable(str(value)))


def print_line(text: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Print one line, without markup and wrapping.

    ``level``: in a log or a JSON line. ``fields``: those of a JSON line, such as ``unit``.
    """
    if log := _log.get():
        with add_fields(**fields):
            log(level, printable(text))
    else:
        _write(text, sys.stdout, level=level, **fields)


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
