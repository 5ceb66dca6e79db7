"""One run: its store, its workers, and the results of every stage.

This module does not import Prefect. ``flows.deployments`` records stages as Prefect tasks through ``run_stages_with``.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from data_contracts.errors import InputError, counted, printable
from data_contracts.files.account import InputAccount
from data_contracts.files.credentials import hide_credentials
from data_contracts.store.bundles import Bundle
from data_contracts.store.contents import require_store
from data_contracts.store.input_accounts import InputsDetails, write_account
from data_contracts.store.lock import check_code_version, lock_store
from data_contracts.store.manifest import Failure
from data_contracts.store.store import Store
from flows.engine.console import add_fields, print_line, print_table, print_warning
from flows.engine.quarantine import count_tries, describe_shared_cause
from flows.engine.run_counts import RunCounts, SortedInputs, count_units
from flows.engine.run_metrics import measure
from flows.engine.stage_summary import StageSummary, work_here
from infra.worker_processes import WORKER_MODULES
from models.engines.devices import default_engine
from tasks.units import Compute, Job, Make, Unit, Work, remove_unplanned, split_pending

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)
_FAILURES_SHOWN = 20
# This process computes up to this number of cheap units in less time than workers need to start.
_FEW_UNITS = 16
# From this number of new units on, a stage updates the index of manifests itself.
_MANY_UNITS = 1000


# Receives the name of a stage, the function that runs it and returns its results, and the number of units, which is the
# argument of the function.
StageRunner = Callable[[str, Callable[[int], StageSummary], int], object]
_stage_runner: ContextVar[StageRunner] = ContextVar("stage_runner", default=lambda name, stage, units: stage(units))


class RunRecorder(Protocol):
    """Records runs while they hold the lock of their store. Its methods must not raise."""

    def update(self, run: "Run") -> None:
        """Record a run that has started, or whose stage starts or has ended."""

    def finish(self, run: "Run", error: BaseException | None) -> None:
        """Record a run that ``error`` has ended, or that has ended by itself."""


_recorder: ContextVar[RunRecorder | None] = ContextVar("recorder", default=None)


@contextlib.contextmanager
def run_stages_with(runner: StageRunner, *, recorder: RunRecorder) -> Iterator[None]:
    """Run every stage inside the block through ``runner``, and record every run with ``recorder``."""
    tokens = _stage_runner.set(runner), _recorder.set(recorder)
    try:
        yield
    finally:
        _stage_runner.reset(tokens[0])
        _recorder.reset(tokens[1])


class SomeFailedError(RuntimeError):
    """Some inputs failed; the run has listed them, and everything else is complete."""


class Run:
    """Runs stages one after the other on one cluster, which is opened for the first unit that needs it."""

    def __init__(
        self,
        store: str,
        *,
        dask_address: str | None = None,
        workers: int | None = None,
        max_tries: int | None = None,
        retry_quarantined: bool = False,
        may_be_new: bool = True,
    ) -> None:
        """Begin a run on a store, which the run creates if it ``may_be_new``.

        Args:
            max_tries: skip units that failed in this number of runs because of the same input.
            retry_quarantined: try these units, too, and release those that now fail for another reason.
        """
        self.store = Store(store)
        self.summaries: list[StageSummary] = []
        self.submissions: list[Bundle] = []
        self.is_simulated = False
        self.inputs: list[InputsDetails] = []
        self._dask_address, self._workers = dask_address, workers
        self._max_tries, self._release = None if retry_quarantined else max_tries, retry_quarantined
        self._may_be_new = may_be_new
        self._new_lost: list[tuple[int, InputsDetails]] = []
        self._counts: RunCounts | None = None
        self._tried: set[tuple[str, str]] = set()
        self._stack, self._cluster = contextlib.ExitStack(), contextlib.ExitStack()
        self._client: Client | None = None
        self._raise_if_lost: Callable[[], None] = lambda: None

    def __enter__(self) -> "Run":
        try:
            default_engine()
        except ValueError as error:
            raise InputError(str(error)) from error
        if not self._may_be_new:
            self.store.check_reachable()
            require_store(self.store)
        measure(self)
        self._raise_if_lost = self._stack.enter_context(lock_store(self.store, on_wait=print_warning))
        self._record()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack, self._cluster:
            if recorder := _recorder.get():
                recorder.finish(self, error)

    @property
    def scheduler(self) -> str | None:
        """Address of the scheduler, without a password; None: local workers."""
        return hide_credentials(self._dask_address) if self._dask_address else None

    def _client_for(self, units: int) -> "Client":
        """Return the client of the cluster. Open the cluster for the first units, and add workers for more units."""
        from infra.clusters import add_workers, open_cluster

        if self._client is None:
            cluster = open_cluster(
                address=self._dask_address,
                workers=self._workers,
                units=units,
                modules=WORKER_MODULES,
                on_wait=print_warning,
            )
            self._client = self._cluster.enter_context(cluster)
            if self.scheduler:
                workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
                print_line(f"cluster: {self.scheduler}, {counted(workers, 'worker')}")
        else:
            add_workers(self._client, workers=self._workers, units=units)
        return self._client

    def _reconnect(self) -> "Client":
        """Wait until a scheduler answers again, and return a new client."""
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
        """Compute the units that are missing or outdated.

        ``remove_others``: remove other units in the folders of these. ``cheap``: units are arithmetic on a few arrays,
        without decoders and networks, so that this process may compute a few of them.
        """
        self._check_version(compute)
        if remove_others:
            remove_unplanned(self.store, units)
        summary = self._run_stage(name, units, compute, cheap=cheap)
        if summary.done >= _MANY_UNITS:
            # Otherwise `status` and the next run would read many manifests one by one.
            self.store.update_index(key for unit in units for key in (unit.key, *unit.companions))
        return summary

    def jobs(self, name: str, jobs: Sequence[Job], make: Make, *, here: bool = False) -> StageSummary:
        """Make the bundles that are missing or outdated.

        ``here``: make them in this process, which may use the whole machine; running workers are ended first.
        """
        self._check_version(make)
        if here:
            self._cluster.close()
            self._client = None
        return self._run_stage(name, jobs, make, here=here)

    def _check_version(self, compute: Compute | Make) -> None:
        self._raise_if_lost()
        module = sys.modules[compute.__module__]
        check_code_version(self.store, module.__name__.rsplit(".", 1)[-1], module.CODE_VERSION)

    def _run_stage(
        self,
        name: str,
        work: Sequence[Work],
        compute: Compute | Make,
        *,
        here: bool = False,
        cheap: bool = False,
    ) -> StageSummary:
        def run_stage(units: int) -> StageSummary:
            ready, todo, summary.known_problems, quarantined = split_pending(
                self.store, work, max_tries=self._max_tries
            )
            summary.ready = len(ready)
            summary.quarantined = [(unit.name, note) for unit, note in quarantined]
            summary.missing = {one.name: one for one in (*todo, *(unit for unit, _ in quarantined))}
            todo = self._not_tried_yet(name, todo)
            logger.info("%s: %d units: %d ready, %d to do", name, units, len(ready), len(todo))
            needs_no_cluster = self._client is None and self._dask_address is None and len(todo) <= _FEW_UNITS
            if here or (cheap and needs_no_cluster):
                work_here(self.store, todo, compute, summary)
            elif todo:
                from flows.engine.fan_out import fan_out

                client = self._client_for(len(todo))
                fan_out(client, self.store, todo, compute, summary, reconnect=self._reconnect)
            count_tries(self.store, todo, summary, release=self._release)
            self._tried.update((f"{name} {one.name}", one.fingerprint) for one in todo if one.name in summary.failures)
            return summary

        summary = StageSummary(name, units=len(work))
        # Also a stage that ends the run is reported.
        self.summaries.append(summary)
        self._record()
        try:
            with add_fields(stage=name):
                _stage_runner.get()(name, run_stage, len(work))
        finally:
            summary.seconds = time.monotonic() - summary.started
        self._record()
        return summary

    def _record(self) -> None:
        if recorder := _recorder.get():
            recorder.update(self)

    def _not_tried_yet(self, stage: str, todo: Sequence[Any]) -> list[Any]:
        """Leave out work that failed earlier in this run: heads with other features request the same videos again."""
        return [work for work in todo if (f"{stage} {work.name}", work.fingerprint) not in self._tried]

    def report_inputs(self, account: InputAccount, *, known: int = 0) -> None:
        """Print the account of some inputs and write it into the store.

        The run ends with an error if a file was skipped that is not harmless.

        Args:
            known: number of these files that an earlier run has reported.
        """
        self._raise_if_lost()
        details = write_account(self.store, account)
        lost = details.format_lost()
        for line in details.format_lines():
            print_line(line, level=logging.WARNING if line in lost else logging.INFO)
        self.inputs.append(details)
        self._new_lost.append((max(account.lost - known, 0), details))

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """(stage, unit, cause) of all failures."""
        return [(s.stage, name, cause) for s in self.summaries for name, cause in s.failures.items()]

    @property
    def problems(self) -> list[tuple[str, str, str]]:
        """(stage, unit, line) of all inputs that were used only in part."""
        return [(s.stage, name, line) for s in self.summaries for name, line in s.all_problems]

    @property
    def quarantined(self) -> list[tuple[str, str, Failure]]:
        """(stage, unit, note of the last try) of all quarantined units, each once."""
        found = {(s.stage, name): note for s in self.summaries for name, note in s.quarantined}
        return [(stage, name, note) for (stage, name), note in found.items()]

    @property
    def counts(self) -> RunCounts:
        """The numbers of the run: of inputs if ``count_inputs`` was called, else of the units of all stages so far."""
        return self._counts or count_units(self.summaries, skipped=self._skipped)

    @property
    def _skipped(self) -> int:
        return sum(one.count for account in self.inputs for one in account.lost)

    def count_inputs(
        self,
        names: Collection[str],
        *,
        noun: str,
        verb: str,
        done: Collection[str] | None = None,
        videos: Mapping[str, str] | None = None,
        waiting: int = 0,
    ) -> SortedInputs:
        """Count inputs by the result of the run, and return their names.

        Args:
            names: names of all inputs that were not waiting.
            noun: what they are, in the singular.
            verb: what happened to those that are done.
            done: those with new results; None: those with units that this run computed.
            videos: subject -> the video with the subject.
            waiting: number of other inputs, which wait for a later run.
        """

        def inputs_of(items: Iterable[str]) -> set[str]:
            return {item if item in names else (videos or {}).get(item, item) for item in items}

        failed = inputs_of(item for s in self.summaries for item in _items_of(s, s.failures))
        given_up = inputs_of(item for s in self.summaries for item in _items_of(s, [n for n, _ in s.quarantined]))
        computed = inputs_of(item for s in self.summaries for item in s.done_items) & set(names)
        given_up -= failed
        is_done = (computed if done is None else set(done)) - failed - given_up
        found = SortedInputs(
            up_to_date=frozenset(set(names) - is_done - failed - given_up),
            done=frozenset(is_done),
            failed=frozenset(failed),
            quarantined=frozenset(given_up),
        )
        self._counts = RunCounts(
            noun=noun,
            verb=verb,
            up_to_date=len(found.up_to_date),
            done=len(found.done),
            failed=len(found.failed),
            out_of_memory=sum(summary.out_of_memory for summary in self.summaries),
            quarantined=len(found.quarantined),
            waiting=waiting,
            used_in_part=len({name for _, name, _ in self.problems}),
            skipped=self._skipped,
        )
        return found

    def print_summary(self) -> None:
        """Print the table of stages, and a line per failure and problem."""
        rows = [
            [
                s.stage,
                s.units,
                s.ready,
                s.done,
                s.format_failed() if s.out_of_memory else len(s.failures),
                s.format_counts(),
                round(s.seconds, 1),
            ]
            for s in self.summaries
        ]
        print_table(
            "Stages",
            ["stage", "units", "ready", "done", "failed", "rows", "seconds"],
            rows,
            simulated=self.is_simulated,
        )
        self.print_causes()

    def print_counts(self) -> None:
        """Print the numbers of the run in one line."""
        counts = self.counts
        print_line(counts.describe(), level=logging.WARNING if counts.has_problems else logging.INFO)

    def print_causes(self) -> None:
        """Print a line per failure, problem and quarantined unit."""
        skipped = [(stage, name, f"{n.cause} ({n.format_tries()})") for stage, name, n in self.quarantined]
        for kind, found in (("failed", self.failures), ("in part", self.problems), ("quarantined", skipped)):
            level = logging.ERROR if kind == "failed" else logging.WARNING
            for stage, name, cause in found[:_FAILURES_SHOWN]:
                print_line(f"{kind}: {stage}: {name}: {cause}", level=level, stage=stage, unit=name)
            if (more := len(found) - _FAILURES_SHOWN) > 0:
                print_line(f"... and {more} more: affwild2 status --store {self.store.url}", level=level)

    def raise_for_failures(self, *, known: bool = True) -> None:
        """Raise an exception if a unit failed, or an input was skipped or used only in part.

        ``known``: include inputs that an earlier run skipped or used in part.

        Raises:
            SomeFailedError: the numbers of failures and problems, and the first one.
        """
        problems = self.problems if known else [(s.stage, *problem) for s in self.summaries for problem in s.problems]
        lost = [one for count, one in self._new_lost if count or (known and one.lost)]
        if self.failures or problems or lost:
            causes = [describe_shared_cause(one) for one in self.summaries if one.shared_cause]
            news = "; a fault of the machine" if causes else ""
            causes += [f"{stage} {name}: {cause}" for stage, name, cause in [*self.failures, *problems]]
            causes += [one.format_lost()[0] for one in lost]
            newly_skipped = 0 if known else sum(count for count, _ in self._new_lost)
            news += f"; {newly_skipped:,} newly skipped" if newly_skipped else ""
            raise SomeFailedError(printable(f"{self.counts.format()}{news}; first: {causes[0]}"))


def _items_of(summary: StageSummary, names: Iterable[str]) -> set[str]:
    """Return the videos or subjects of units of a stage that do not exist."""
    units = [summary.missing.get(name) for name in names]
    return {unit.key.item for unit in units if isinstance(unit, Unit)}
