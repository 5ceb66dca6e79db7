"""The results of a stage, and running its work in this process without workers."""

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from data_contracts.errors import StoreError, is_ffmpeg_error, is_out_of_memory, printable
from data_contracts.store.manifest import Failure
from data_contracts.store.store import Store
from flows.engine.progress import progress_of
from tasks.units import Compute, Fault, Make, Unit, UnitReport, Work, run_unit

_MAX_CAUSE = 500
# A message of the C++ library, for example when OpenVINO cannot write a converted network.
_STREAM_ERROR = "iostream error"
logger = logging.getLogger(__name__)


@dataclass
class StageSummary:
    """The results of a stage: one row of the table that every run prints.

    Attributes:
        counts: rows per status.
        seconds: wall time of the stage; 0 while it runs.
        started: clock of ``time.monotonic`` at its start.
        failures: unit -> cause.
        faults: unit -> what caused its failure.
        shared_cause: the cause, if all units of this run failed for the same one, which is a fault of the machine.
        problems, known_problems: (unit, line) of inputs that were used in part, now or by an earlier run.
        quarantined: skipped units, with the note of the last try.
        reads_wrong_unit: work that is to be repeated after another unit was computed again -> cause.
        missing: all work that does not exist as planned, by name.
        done_items: videos and subjects with units that this run computed.
        on_done: called with each piece of work that this run has completed.
    """

    stage: str
    units: int = 0
    ready: int = 0
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    failures: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    shared_cause: str | None = None
    reads_wrong_unit: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    known_problems: list[tuple[str, str]] = field(default_factory=list)
    quarantined: list[tuple[str, Failure]] = field(default_factory=list)
    missing: dict[str, Work] = field(default_factory=dict)
    done_items: set[str] = field(default_factory=set)
    on_done: Callable[[Work], None] | None = None

    @property
    def all_problems(self) -> list[tuple[str, str]]:
        """(unit, line) of all inputs that were used in part."""
        return [*self.known_problems, *self.problems]

    def format_results(self) -> str:
        """Return the numbers of units by result, such as ``412 ready, 3 done, 1 failed``."""
        numbers = [f"{self.ready} ready, {self.done} done, {self.format_failed()} failed"]
        if self.quarantined:
            numbers.append(f"{len(self.quarantined)} quarantined")
        if self.all_problems:
            numbers.append(f"{len({name for name, _ in self.all_problems})} used in part")
        return ", ".join(numbers)

    def format_counts(self) -> str:
        """Return the numbers of rows per status as text."""
        return ", ".join(f"{count:,} {status}" for status, count in sorted(self.counts.items()))

    @property
    def out_of_memory(self) -> int:
        """Number of units that failed because of a memory limit, or because the machine had no more memory."""
        return sum(fault == "memory" for fault in self.faults.values())

    def format_failed(self) -> str:
        """Return the number of failed units as text, and how many of them ran out of memory."""
        return f"{len(self.failures)}" + (f" ({self.out_of_memory} out of memory)" if self.out_of_memory else "")

    def add(self, report: UnitReport) -> None:
        """Count the result of one piece of work.

        Raises:
            StoreError: the store cannot be written to; all other work would fail, too.
        """
        if report.ends_the_run:
            raise StoreError(report.cause or report.name)
        if report.cause is None:
            self.done += 1
            work = self.missing.pop(report.name, None)
            if isinstance(work, Unit):
                self.done_items.add(work.key.item)
            if work is not None and self.on_done is not None:
                self.on_done(work)
            self.counts.update(report.counts)
            self.problems += [(report.name, problem) for problem in report.problems]
        elif report.reads_wrong_unit:
            self.reads_wrong_unit[report.name] = report.cause
        else:
            self.failures[report.name], self.faults[report.name] = report.cause, report.fault
            logger.info("%s failed: %s: %s", self.stage, printable(report.name), report.cause)


def work_here(store: Store, todo: Sequence[Work], compute: Compute | Make, summary: StageSummary) -> None:
    """Run all work in this process. A failure is stored with its cause and does not stop other work.

    Raises:
        StoreError: the store cannot be written to; unfinished work is given up.
    """
    with progress_of(summary.stage, len(todo)) as progress:
        for work in todo:
            try:
                report = run_unit(store.url, compute, work, report_line=functools.partial(progress.show, work.name))
            except Exception as error:
                report = report_crash(store, work, error)
            summary.add(report)
            progress.advance(report.name, len(summary.failures), rows=sum(report.counts.values()))


def report_crash(store: Store, work: Work, error: BaseException | None) -> UnitReport:
    """Report an error that is not an ``InputError``: one line for the table, the traceback for the debug log."""
    logger.debug("%s crashed", work.name, exc_info=error)
    if error is None:
        cause = "the Dask cluster cancelled the work (no worker left, or no connection); run the same command again"
        return report_failure(store, work, cause)
    cause = _first_sentence(f"{type(error).__name__}: {error}")[:_MAX_CAUSE]
    if is_out_of_memory(error):
        cause = f"out of memory: {cause}; use fewer workers, or give this machine or its limits more memory"
        return report_failure(store, work, cause, fault="memory")
    if _STREAM_ERROR in cause:
        cause += "; the disk of the cache folder or of the temporary folder may be full, or a limit of files reached"
    is_of_decoder = is_ffmpeg_error(error) and not isinstance(error, OSError)
    return report_failure(store, work, cause, fault="input" if is_of_decoder else "other")


def _first_sentence(text: str) -> str:
    """Return the first line. Errors of OpenVINO begin with the place in its code and a colon; return all lines then."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines) if lines[0].endswith(":") else lines[0]


def report_failure(store: Store, work: Work, cause: str, *, fault: Fault = "other") -> UnitReport:
    """Store the cause in the folder of the unit, and return it as a report."""
    work.note_failure(store, cause)
    return UnitReport(work.name, cause=cause, fault=fault)
