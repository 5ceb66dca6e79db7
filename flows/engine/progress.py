"""Progress of everything that takes long: what runs, how much of it is done, its rate, and the time left.

On a terminal, progress is shown below the output, and disappears when it ends. Elsewhere, it is lines of text at ever
longer intervals.
"""

import contextlib
import contextvars
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from data_contracts.errors import printable
from data_contracts.files.inputs import counting_files
from flows.engine.console import before_output, shows_bars, write_progress_line
from infra.interruption import calling_before_end
from models.engines.progress import Countdown, format_duration, format_rate, reporting_to

# On a terminal, work that has no stage is shown after this time without output.
_SHOW_AFTER_SECONDS = 1.5
_TICK_SECONDS = 0.25
# Interval between two lines of text: at least these seconds, and this share of the time that the work has taken.
_LINE_SECONDS = 10.0
_LINE_SHARE = 0.1
# A line about files that are listed is shown until no further file was found for this time.
_LISTING_SECONDS = 5.0
# Maximum number of units with a line of their own.
_UNITS_SHOWN = 8


class Progress:
    """Shows the progress of a stage, or of a command between its stages, which has no ``total``."""

    def __init__(self, name: str, total: int | None, costs: Mapping[str, float] | None = None) -> None:
        self._name, self._total, self._costs = name, total, costs
        self._done, self._rows, self._failed, self._done_cost = 0, 0, 0, 0.0
        self._lines: dict[str, tuple[str, float]] = {}
        self._began = self._shown_at = time.monotonic()
        # Lines of text go where this thread prints, also if another thread finds that one is due.
        self._context, self._is_plain = contextvars.copy_context(), not shows_bars()
        self._spinner = Spinner("dots")
        self._lock = threading.Lock()

    def advance(self, unit: str, failed: int, *, rows: int = 0) -> None:
        """Show that a unit with this number of rows is finished, and the number of failures so far."""
        with self._lock:
            self._done, self._failed, self._rows = self._done + 1, failed, self._rows + rows
            self._done_cost += self._costs.get(unit, 0.0) if self._costs else 1.0
            self._lines.pop(unit, None)
        self.tick()

    def show(self, unit: str, line: str, *, until: float = math.inf) -> None:
        """Show a line about the progress of a unit that takes long; an empty line: there is none any more.

        ``until``: time of ``time.monotonic`` at which the line ends by itself.
        """
        with self._lock:
            self._lines.pop(unit, None)
            if line:
                self._lines[unit] = line, until
        self.tick()

    def _current_lines(self, now: float) -> list[tuple[str, str]]:
        return [(unit, line) for unit, (line, until) in self._lines.items() if now < until]

    def tick(self, *, silent_since: float = 0.0) -> None:
        """Write lines of text if they are due. ``silent_since``: time of the last output, for work without a total."""
        if not self._is_plain:
            return
        with self._lock:
            now, since = time.monotonic(), self._shown_at
            if self._total is None:
                since = max(since, silent_since)
            if now - since < max(_LINE_SECONDS, _LINE_SHARE * (now - self._began)):
                return
            self._shown_at = now
            lines = self._describe_lines(now)
        for line, fields in lines:
            self._context.copy().run(write_progress_line, line, **fields)

    def _describe_lines(self, now: float) -> list[tuple[str, dict[str, object]]]:
        units = self._current_lines(now)[:_UNITS_SHOWN]
        if self._total is None:
            text = units[-1][1] if units else f"{self._name} is working, {format_duration(now - self._began)} so far"
            return [(text, {})]
        fields: dict[str, object] = {"stage": self._name, "units": self._total, "done": self._done}
        words = [f"{self._name}: {self._done} of {self._total} done, {self._failed} failed", *self._rate_and_left(now)]
        about_units: list[tuple[str, dict[str, object]]] = [
            (f"{self._name}: {unit}: {line}", {"stage": self._name, "unit": unit}) for unit, line in units
        ]
        return [(", ".join(words), fields | {"failed": self._failed}), *about_units]

    def _rate_and_left(self, now: float) -> list[str]:
        """Return the rate and the time left as text; empty before the first unit is finished."""
        seconds = now - self._began
        if not (self._done and seconds > 0):
            return []
        count, noun = (self._rows, "rows") if self._rows else (self._done, "units")
        words = [format_rate(count / seconds, noun)]
        if self._done_cost:
            whole = sum(self._costs.values()) if self._costs else float(self._total or 0)
            words.append(f"about {format_duration(max(whole / self._done_cost - 1, 0) * seconds)} left")
        return words

    def render(self, *, silent_since: float) -> RenderableType | None:
        """Return what a terminal shows now; None: nothing."""
        now = time.monotonic()
        with self._lock:
            if self._is_plain:
                return None
            units = self._current_lines(now)[-_UNITS_SHOWN:]
            if self._total is None:
                if now - max(self._began, silent_since) < _SHOW_AFTER_SECONDS:
                    return None
                elapsed = f"{format_duration(now - self._began)} so far"
                self._spinner.update(text=printable(units[-1][1] if units else f"working, {elapsed}"))
                return self._spinner
            row = Table.grid(padding=(0, 1))
            whole = sum(self._costs.values()) if self._costs else float(self._total)
            row.add_row(
                f"{self._name:<18}",
                ProgressBar(total=max(whole, 1e-9), completed=self._done_cost, width=40),
                f"{self._done}/{self._total}",
                ", ".join([format_duration(now - self._began), *self._rate_and_left(now)]),
                Text(f"{self._failed} failed", style="red") if self._failed else "",
            )
            return Group(row, *(Text(printable(f"  {unit}: {line}")) for unit, line in units))


class _Watch:
    """Shows the innermost progress, also while the program computes something and reports nothing."""

    def __init__(self) -> None:
        self._stack: list[Progress] = []
        self._live: Live | None = None
        self._silent_since = time.monotonic()
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._tick_until_end, daemon=True, name="progress")

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self.clear()

    def push(self, progress: Progress) -> None:
        with self._lock:
            self._stack.append(progress)

    def pop(self, progress: Progress) -> None:
        with self._lock:
            self._stack.remove(progress)
            self._stop_live()

    def clear(self) -> None:
        """Remove what the terminal shows: the program prints something now, or ends."""
        with self._lock:
            self._silent_since = time.monotonic()
            self._stop_live()

    def _tick_until_end(self) -> None:
        # Nobody reads the terminal or the pipe any more after an error of writing.
        with contextlib.suppress(OSError, ValueError):
            while not self._ended.wait(_TICK_SECONDS):
                self._tick()

    def _tick(self) -> None:
        with self._lock:
            progress = self._stack[-1]
            shown = progress.render(silent_since=self._silent_since)
            if shown is None:
                self._stop_live()
            elif not self._ended.is_set():
                if self._live is None:
                    # Otherwise output that is piped to another program would be written to the terminal.
                    terminal = {"redirect_stdout": sys.stdout.isatty(), "transient": True, "auto_refresh": False}
                    self._live = Live(console=Console(stderr=True), **terminal)  # type: ignore[arg-type]
                    self._live.start()
                self._live.update(shown, refresh=True)
        progress.tick(silent_since=self._silent_since)

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Listing:
    """Counts the files that a command lists, until it lists nothing more."""

    def __init__(self, command: Progress) -> None:
        self._command, self._count, self._last = command, Countdown("listing files: {} found"), 0.0

    def add(self, files: int) -> None:
        now = time.monotonic()
        if now - self._last > _LISTING_SECONDS:
            self._count = Countdown("listing files: {} found")
        self._last, self._count.done = now, self._count.done + files
        self._command.show("listing", str(self._count), until=now + _LISTING_SECONDS)


_watch: _Watch | None = None


@contextlib.contextmanager
def watching_progress(name: str) -> Iterator[None]:
    """Show progress of everything in the block, also of what is no stage and of what reports nothing.

    ``name``: the command, for people. An inner block changes nothing.
    """
    global _watch
    if _watch is not None:
        yield
        return
    _watch = watch = _Watch()
    command = Progress(name, None)
    watch.push(command)
    watch.start()
    try:
        with (
            before_output(watch.clear),
            calling_before_end(watch.clear, before_message=True),
            reporting_to(lambda line: command.show("", line)),
            counting_files(_Listing(command).add),
        ):
            yield
    finally:
        watch.end()
        _watch = None


@contextlib.contextmanager
def progress_of(name: str, total: int, *, costs: Mapping[str, float] | None = None) -> Iterator[Progress]:
    """Show the progress of a stage with this number of units.

    ``costs``: unit -> time that it takes, relative to the others; for the time left. None: all take equally long.
    """
    progress, watch = Progress(name, total, costs), _watch
    if watch is None:
        yield progress
        return
    watch.push(progress)
    try:
        yield progress
    finally:
        watch.pop(progress)
