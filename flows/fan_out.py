"""One stage, many pieces of work: submit what is missing to Dask, count as results arrive, lose nothing."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, as_completed

from data_contracts.errors import StoreError, printable
from data_contracts.store import Store
from flows.console import progress_of
from infra.clusters import unit_resources
from tasks.jobs import Job
from tasks.units import Unit, UnitReport

logger = logging.getLogger(__name__)
_RETRIES = 1

Work = Unit | Job
Run = Callable[[str, Any, Any], UnitReport]


@dataclass
class StageSummary:
    """What a stage did: one row of the table that every run prints."""

    stage: str
    units: int = 0
    ready: int = 0
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, report: UnitReport) -> None:
        """Count what came of one piece of work."""
        self.seconds += report.seconds
        if report.cause is None:
            self.done += 1
            self.counts.update(report.counts)
            self.problems += [(report.name, problem) for problem in report.problems]
        else:
            self.failures[report.name] = report.cause


def fan_out(
    client: Client, store: Store, todo: Sequence[Work], *, run: Run, compute: Any, summary: StageSummary
) -> None:
    """Run every piece of work on the cluster; one that fails is noted with its cause and stops nobody else.

    Raises:
        StoreError: the store cannot be written to; what is not done yet is given up.
    """
    # Names may hold what a message between processes must not: half of a letter.
    by_key = {f"{summary.stage}-{work.fingerprint[:16]}-{work.name!a}": work for work in todo}
    resources = unit_resources(client)
    futures = [
        client.submit(run, store.url, compute, work, key=key, pure=False, retries=_RETRIES, resources=resources)
        for key, work in by_key.items()
    ]
    with progress_of(summary.stage, len(todo)) as advance:
        arriving = as_completed(futures)
        # Futures that are kept would be computed again when a worker dies after it has answered.
        del futures
        for future in arriving:
            work = by_key[future.key]
            answered = future.status == "finished"
            report = future.result() if answered else _crashed(store, work, future.exception())
            future.release()
            if report.ends_the_run:
                raise StoreError(report.cause or report.name)
            summary.add(report)
            if report.cause is not None:
                logger.warning("%s failed: %s: %s", summary.stage, printable(report.name), report.cause)
            advance(len(summary.failures))


def _crashed(store: Store, work: Work, error: BaseException | None) -> UnitReport:
    """A cause that is not the input's: one line for the table, the traceback for the debug log."""
    if error is None:
        cause = "the Dask cluster gave the work up (no worker left, or no connection); run the same command again"
    else:
        cause = f"{type(error).__name__}: {error}".strip().splitlines()[0][:500]
    logger.debug("%s crashed", work.name, exc_info=error)
    work.note_failure(store, cause)
    return UnitReport(work.name, cause=cause)
