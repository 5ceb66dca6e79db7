"""Progress messages of a long computation, and the callback that receives them."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import TypeVar

# Receives a line about the unit that runs; an empty one if there is nothing to report any more.
ReportLine = Callable[[str], None]
Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 1.0
# Before this time, a rate is not worth showing.
_RATE_SECONDS = 0.5


class _Reporter:
    def __init__(self, report: ReportLine) -> None:
        self._report, self._reported_at = report, time.monotonic()
        self._has_line = False

    def report(self, template: str, values: tuple[object, ...]) -> None:
        if time.monotonic() - self._reported_at >= _SECONDS_BETWEEN_LINES:
            self._report(template.format(*values))
            self._reported_at, self._has_line = time.monotonic(), True

    def clear(self) -> None:
        if self._has_line:
            self._report("")
            self._has_line = False


_reporter: ContextVar[_Reporter | None] = ContextVar("reporter", default=None)


@contextlib.contextmanager
def reporting_to(report: ReportLine | None) -> Iterator[None]:
    """Send lines of ``report_progress`` in this thread to ``report``; None: drop them."""
    token = _reporter.set(_Reporter(report) if report else None)
    try:
        yield
    finally:
        _reporter.reset(token)


def report_progress(template: str, *values: object) -> None:
    """Report ``template.format(*values)``, at most once a second. Call this as often as you like."""
    if reporter := _reporter.get():
        reporter.report(template, values)


class Countdown:
    """Counts something, and describes in one line how much of it is done, at which rate, and the time left.

    Args:
        what: such as ``writing predictions: {} videos``; the braces become ``12 of 40``, or ``12`` without a total.
        total: the number at the end, if it is known.
    """

    def __init__(self, what: str, total: float | None = None) -> None:
        self._what, self.total, self.done = what, total, 0.0
        self._started = time.monotonic()

    def __str__(self) -> str:
        """Return one line, such as ``writing predictions: 12 of 40 videos, 3.5/s, about 8 s left``."""
        of_total = f" of {self.total:,.0f}" if self.total else ""
        words, seconds = [self._what.format(f"{self.done:,.0f}{of_total}")], time.monotonic() - self._started
        if self.done and seconds >= _RATE_SECONDS:
            words.append(format_rate(self.done / seconds))
            if self.total:
                words.append(f"about {format_duration(max(self.total / self.done - 1, 0) * seconds)} left")
        return ", ".join(words)


def track(
    items: Iterable[Item], what: str, *, total: int | None = None, reached: Callable[[Item], int] | None = None
) -> Iterator[Item]:
    """Yield the items, and report a ``Countdown`` of those that the caller has finished.

    Args:
        what: as of ``Countdown``.
        total: number of items, if they have no length, or of what ``reached`` counts.
        reached: returns how much is finished after an item; None: count the items.
    """
    count = Countdown(what, len(items) if total is None and isinstance(items, Sized) else total)
    try:
        for item in items:
            yield item
            count.done = reached(item) if reached else count.done + 1
            report_progress("{}", count)
    finally:
        if reporter := _reporter.get():
            reporter.clear()


def format_duration(seconds: float) -> str:
    """Return a duration such as ``50 s``, ``12 min`` or ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def format_rate(per_second: float, noun: str = "") -> str:
    """Return a rate such as ``1,200/s``, ``2.5/min`` or, with a noun, ``31 rows/s``."""
    value, unit = per_second, "s"
    for longer in ("min", "h"):
        if value < 1:
            value, unit = value * 60, longer
    return f"{value:,.{0 if value >= 10 else 1}f}{' ' + noun if noun else ''}/{unit}"
