"""One run: its store, its workers and its stages.

This module does not import Prefect. ``flows.deployments`` records stages as Prefect tasks through ``run_stages_with``.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from data_contracts.errors import InputError, counted
from data_contracts.files.account import InputAccount
from data_contracts.files.credentials import hide_credentials
from data_contracts.store.contents import require_store
from data_contracts.store.input_accounts import write_account
from data_contracts.store.lock import check_code_version, lock_folder, lock_store
from data_contracts.store.store import Store
from flows.engine.console import add_fields, print_line, print_warning
from flows.engine.quarantine import count_tries
from flows.engine.run_metrics import measure
from flows.engine.run_results import RunResults
from flows.engine.stage_summary import StageSummary, work_here
from infra.worker_processes import WORKER_MODULES
from models.engines.devices import default_engine
from tasks.units import Compute, Job, Make, Unit, Work, remove_unplanned, split_pending

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)
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


class Run(RunResults):
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
        super().__init__(Store(store))
        self._dask_address, self._workers = dask_address, workers
        self._max_tries, self._release = None if retry_quarantined else max_tries, retry_quarantined
        self._may_be_new = may_be_new
        self._tried: set[tuple[str, str]] = set()
        self._stack, self._cluster = contextlib.ExitStack(), contextlib.ExitStack()
        self._client: Client | None = None
        self._checks_of_locks: list[Callable[[], None]] = []

    def __enter__(self) -> "Run":
        try:
            default_engine()
        except ValueError as error:
            raise InputError(str(error)) from error
        if not self._may_be_new:
            self.store.check_reachable()
            require_store(self.store)
        measure(self)
        self._hold(lock_store(self.store, on_wait=print_warning))
        self._record()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack, self._cluster:
            if recorder := _recorder.get():
                recorder.finish(self, error)

    def lock_output(self, folder: Store) -> None:
        """Lock a folder of results for the rest of the run, because runs on other stores may write to it, too."""
        self._hold(lock_folder(folder, on_wait=print_warning))

    def _hold(self, lock: AbstractContextManager[Callable[[], None]]) -> None:
        self._checks_of_locks.append(self._stack.enter_context(lock))

    def _raise_if_lost(self) -> None:
        for check in self._checks_of_locks:
            check()

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
            self.store.update_index(key for unit in units for key in unit.written)
        return summary

    def jobs(
        self,
        name: str,
        jobs: Sequence[Job],
        make: Make,
        *,
        here: bool = False,
        on_done: Callable[[Work], None] | None = None,
    ) -> StageSummary:
        """Make the bundles or files that are missing or outdated.

        ``here``: make them in this process, which may use the whole machine; running workers are ended first.
        ``on_done``: called with each job that is completed.
        """
        self._check_version(make)
        if here:
            self._cluster.close()
            self._client = None
        return self._run_stage(name, jobs, make, here=here, on_done=on_done)

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
        on_done: Callable[[Work], None] | None = None,
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

        summary = StageSummary(name, units=len(work), on_done=on_done)
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
        self.add_inputs(write_account(self.store, account), new_lost=max(account.lost - known, 0))
