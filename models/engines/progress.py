"""Progress messages of a long computation, and the callback that receives them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

# Receives a line about the unit that runs.
ReportLine = Callable[[str], None]
_SECONDS_BETWEEN_LINES = 1.0


class _Reporter:
    def __init__(self, report: ReportLine) -> None:
        self._report, self._reported_at = report, time.monotonic()

    def report(self, template: str, values: tuple[object, ...]) -> None:
        if time.monotonic() - self._reported_at >= _SECONDS_BETWEEN_LINES:
            self._report(template.format(*values))
            self._reported_at = time.monotonic()


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


def format_duration(seconds: float) -> str:
    """Return a duration such as ``50 s``, ``12 min`` or ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
