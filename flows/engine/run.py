"""One run: its store, its workers, and the table of what every stage did.

Nothing here needs Prefect. Whoever wants stages recorded says how with ``stages_run_by``: ``flows.deployments`` makes
each a Prefect task.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from data_contracts.errors import InputError, printable
from data_contracts.store.bundles import Bundle
from data_contracts.store.lock import check_code_version, lock_store
from data_contracts.store.manifest import Failure
from data_contracts.store.store import Store
from flows.engine.console import print_error, print_line, print_table
from flows.engine.stage_summary import StageSummary, work_here
from infra.worker_processes import WORKER_MODULES
from models.engines.devices import default_engine
from tasks.jobs import Job, Make, run_job, split_pending_jobs
from tasks.units import Compute, Unit, remove_unplanned, run_unit, split_pending

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)
_FAILURES_SHOWN = 20
# So many cheap units are done here sooner than workers have started.
_FEW_UNITS = 16
_MANY_UNITS = 1000


# Takes a stage's name and its function of how many units there are, which says in a line what came of them.
StageRunner = Callable[[str, Callable[[int], str], int], str]
_stage_runner: ContextVar[StageRunner] = ContextVar("stage_runner", default=lambda name, stage, units: stage(units))


# Callback invoked after each run, while the store lock is still held. Receives the run and the exception that ended it,
# if any. Must not raise.
AtEnd = Callable[["Run", BaseException | None], None]
_at_end: ContextVar[AtEnd] = ContextVar("at_end", default=lambda run, error: None)


@contextlib.contextmanager
def stages_run_by(runner: StageRunner, *, at_end: AtEnd) -> Iterator[None]:
    """While the block runs, every stage is handed to ``runner`` instead of being called as it is.

    ``at_end`` is told of every run that is over.
    """
    tokens = _stage_runner.set(runner), _at_end.set(at_end)
    try:
        yield
    finally:
        _stage_runner.reset(tokens[0])
        _at_end.reset(tokens[1])


class SomeFailedError(RuntimeError):
    """The run has ended; some inputs failed (they are listed), and everything else is complete."""


class Run:
    """Runs stages one after the other on one cluster, which starts when the first unit needs it."""

    def __init__(
        self, store: str, *, dask_address: str | None = None, workers: int | None = None, max_tries: int | None = None
    ) -> None:
        """``max_tries``: units that so many runs have failed to make of the same input are not tried any more."""
        self.store = Store(store)
        self.summaries: list[StageSummary] = []
        self.submissions: list[Bundle] = []
        self._dask_address, self._workers, self._max_tries = dask_address, workers, max_tries
        self._tried: set[tuple[str, str]] = set()
        self._stack, self._cluster = contextlib.ExitStack(), contextlib.ExitStack()
        self._client: Client | None = None
        self._raise_if_lost: Callable[[], None] = lambda: None

    def __enter__(self) -> "Run":
        try:
            default_engine()
        except ValueError as error:
            raise InputError(str(error)) from error
        self._raise_if_lost = self._stack.enter_context(lock_store(self.store, on_wait=print_error))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack, self._cluster:
            _at_end.get()(self, error)

    def _client_for(self, units: int) -> "Client":
        """Client of the cluster, which starts with the first units, and grows with more of them."""
        from infra.clusters import add_workers, open_cluster

        if self._client is None:
            cluster = open_cluster(
                address=self._dask_address, workers=self._workers, units=units, modules=WORKER_MODULES
            )
            self._client = self._cluster.enter_context(cluster)
        else:
            add_workers(self._client, workers=self._workers, units=units)
        return self._client

    def _reconnect(self) -> "Client":
        """Client of the cluster once more, where its scheduler has gone: as soon as one answers."""
        from infra.clusters import wait_for_cluster

        self._cluster.close()
        self._client = None
        return wait_for_cluster(lambda: self._client_for(1))

    def stage(
        self,
        name: str,
        units: Sequence[Unit],
        compute: Compute,
        *,
        remove_others: bool = False,
        cheap: bool = False,
    ) -> StageSummary:
        """Make every unit exist; only what is missing or stale is computed.

        ``remove_others``: units of the same folders that are not among these go. ``cheap``: a unit is arithmetic on a
        few arrays, without decoders and networks, so that a few of them need no workers.
        """
        self._check_version(compute)
        if remove_others:
            remove_unplanned(self.store, units)
        summary = self._run_stage(name, units, split=split_pending, run=run_unit, compute=compute, cheap=cheap)
        if summary.done >= _MANY_UNITS:
            # So that `status` and the next run need not read so many manifests one by one.
            self.store.update_index(key for unit in units for key in (unit.key, *unit.companions))
        return summary

    def jobs(self, name: str, jobs: Sequence[Job], make: Make) -> StageSummary:
        """Make every bundle exist; only what is missing or stale is made."""
        self._check_version(make)
        return self._run_stage(name, jobs, split=split_pending_jobs, run=run_job, compute=make)

    def jobs_here(self, name: str, jobs: Sequence[Job], make: Make) -> StageSummary:
        """The same in this process, on all of this machine: workers that were started are ended first."""
        self._check_version(make)
        self._cluster.close()
        self._client = None
        return self._run_stage(name, jobs, split=split_pending_jobs, run=run_job, compute=make, here=True)

    def _check_version(self, compute: Compute | Make) -> None:
        self._raise_if_lost()
        module = sys.modules[compute.__module__]
        check_code_version(self.store, module.__name__.rsplit(".", 1)[-1], module.CODE_VERSION)

    def _run_stage(
        self,
        name: str,
        work: Sequence[Any],
        *,
        split: Any,
        run: Any,
        compute: Any,
        here: bool = False,
        cheap: bool = False,
    ) -> StageSummary:
        def run_stage(units: int) -> str:
            ready, todo, summary.known_problems, quarantined = split(self.store, work, max_tries=self._max_tries)
            summary.ready = len(ready)
            summary.quarantined = [(unit.name, note) for unit, note in quarantined]
            summary.missing = {one.name: one for one in (*todo, *(unit for unit, _ in quarantined))}
            todo = self._not_tried_yet(name, todo)
            logger.info("%s: %d units: %d ready, %d to do", name, units, len(ready), len(todo))
            if here or (cheap and self._needs_no_cluster(len(todo))):
                work_here(self.store, todo, run=run, compute=compute, summary=summary)
            elif todo:
                from flows.engine.fan_out import fan_out

                client = self._client_for(len(todo))
                parts = {"run": run, "compute": compute, "summary": summary}
                fan_out(client, self.store, todo, **parts, reconnect=self._reconnect)
            return f"{summary.ready} ready, {summary.done} done, {len(summary.failures)} failed"

        started = time.monotonic()
        summary = StageSummary(name, units=len(work))
        _stage_runner.get()(name, run_stage, len(work))
        summary.seconds = time.monotonic() - started
        self.summaries.append(summary)
        return summary

    def _not_tried_yet(self, stage: str, todo: Sequence[Any]) -> list[Any]:
        """Without what has failed in this run already: heads of other features ask for the same videos again."""
        found = [work for work in todo if (f"{stage} {work.name}", work.fingerprint) not in self._tried]
        self._tried.update((f"{stage} {work.name}", work.fingerprint) for work in found)
        return found

    def _needs_no_cluster(self, units: int) -> bool:
        return self._client is None and self._dask_address is None and units <= _FEW_UNITS

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """(stage, unit, cause) of everything that failed."""
        return [(s.stage, name, cause) for s in self.summaries for name, cause in s.failures.items()]

    @property
    def problems(self) -> list[tuple[str, str, str]]:
        """(stage, unit, what is lost) of every input of which only a part could be used."""
        return [(s.stage, name, line) for s in self.summaries for name, line in (*s.known_problems, *s.problems)]

    @property
    def quarantined(self) -> list[tuple[str, str, Failure]]:
        """(stage, unit, note of its last try) of everything that was not tried any more, each once."""
        found = {(s.stage, name): note for s in self.summaries for name, note in s.quarantined}
        return [(stage, name, note) for (stage, name), note in found.items()]

    def print_summary(self) -> None:
        """The table of stages, and a line per failure and per loss."""
        rows = [
            [s.stage, s.units, s.ready, s.done, len(s.failures), _counts(s), round(s.seconds, 1)]
            for s in self.summaries
        ]
        print_table("Stages", ["stage", "units", "ready", "done", "failed", "rows", "seconds"], rows)
        self.print_causes()

    def print_causes(self) -> None:
        """A line per failure, per loss, and per unit that is not tried any more."""
        given_up = [(stage, name, f"{n.cause} (failed {n.tries} times)") for stage, name, n in self.quarantined]
        for kind, found in (("failed", self.failures), ("in part", self.problems), ("quarantined", given_up)):
            for stage, name, cause in found[:_FAILURES_SHOWN]:
                print_line(f"{kind}: {stage}: {name}: {cause}")
            if len(found) > _FAILURES_SHOWN:
                print_line(f"... and {len(found) - _FAILURES_SHOWN} more: affwild2 status --store {self.store.url}")

    def raise_for_failures(self, *, known: bool = True) -> None:
        """End the run as failed if anything failed, or could be used only in part.

        ``known``: also if an earlier run had to say it of an input that could be used only in part.

        Raises:
            SomeFailedError: naming how many and the first.
        """
        problems = self.problems if known else [(s.stage, *problem) for s in self.summaries for problem in s.problems]
        counted = [f"{len(self.failures)} failed"] if self.failures else []
        counted += [f"{len(problems)} used in part"] if problems else []
        if counted:
            stage, name, cause = [*self.failures, *problems][0]
            raise SomeFailedError(
                printable(f"{', '.join(counted)}, all else is complete; first: {stage} {name}: {cause}")
            )


def _counts(summary: StageSummary) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in sorted(summary.counts.items()))
