"""Run the work of one stage on a Dask cluster: submit it, and count results as they arrive.

Import this module only after a cluster is opened, because distributed takes a second to import.
"""

import contextlib
import functools
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any

from distributed import Client, Future, KilledWorker
from distributed.client import ClosedClientError

from data_contracts.store.store import Store
from flows.engine.console import print_warning
from flows.engine.progress import progress_of
from flows.engine.stage_summary import StageSummary, report_crash, report_failure
from flows.engine.worker_check import check_workers, may_be_other_version
from infra.cluster_state import (
    SILENT_SECONDS,
    ClusterState,
    WorkerDeath,
    explain_killed_worker,
    is_connected,
    unit_resources,
)
from infra.worker_progress import receive_progress, send_progress
from tasks.units import Compute, Fault, Job, Make, UnitReport, Work, run_unit

logger = logging.getLogger(__name__)
_RETRIES = 1
# Interval between checks of the cluster.
_CHECK_SECONDS = 2.0


def fan_out(
    client: Client,
    store: Store,
    todo: Sequence[Work],
    compute: Compute | Make,
    summary: StageSummary,
    *,
    reconnect: Callable[[], Client],
) -> None:
    """Run all work on the cluster. A failure is stored with its cause and does not stop other work.

    If the connection to the scheduler is lost, ``reconnect`` opens the cluster again, and unfinished work is submitted
    again. Work that was on too many workers when they ended is retried at the end, one piece at a time, because other
    work on the same worker may have been the cause.

    Raises:
        StoreError: the store cannot be written to; unfinished work is given up.
        ClusterError: a worker cannot do this work (another version, no access to store or videos).
        ClusterLostError: scheduler or workers ended and did not come back in time.
    """
    costs = {work.name: work.cost for work in todo if isinstance(work, Job)}
    is_uneven = len(set(costs.values())) > 1
    with progress_of(summary.stage, len(todo), costs=costs if is_uneven else None) as progress:

        def answer(report: UnitReport) -> None:
            summary.add(report)
            progress.advance(report.name, len(summary.failures), rows=sum(report.counts.values()))

        stage = _Stage(client, store, compute, reconnect, summary.stage, answer, progress.show)
        for work in stage.complete(todo, at_once=None):
            for killer in stage.complete([work], at_once=1):
                death = stage.deaths[killer.name]
                # Alone, several times: only the memory of the machine or the input can be the cause.
                fault: Fault = "memory" if death.is_memory else "input" if death.is_crash else "other"
                answer(report_failure(store, killer, death.cause, fault=fault))


class _Stage:
    def __init__(
        self,
        client: Client,
        store: Store,
        compute: Compute | Make,
        reconnect: Callable[[], Client],
        name: str,
        answer: Callable[[UnitReport], None],
        show: Callable[[str, str], None],
    ) -> None:
        self._client, self._store, self._compute = client, store, compute
        self._reconnect, self._name, self._answer = reconnect, name, answer
        self._show, self._arrived = show, queue.SimpleQueue[Future | tuple[str, str]]()
        self._resources: dict[str, float] = {}
        self._state: ClusterState | None = None
        self._checked_at = 0.0
        self.deaths: dict[str, WorkerDeath] = {}

    def complete(self, todo: Sequence[Work], *, at_once: int | None) -> list[Work]:
        """Report the results. Return the work that was on too many workers when they ended."""
        waiting, killed = deque(todo), []
        in_flight: dict[Any, tuple[Work, Future]] = {}
        while waiting or in_flight:
            if not self._state or not is_connected(self._client):
                # All submitted work is lost with the connection.
                waiting.extendleft(work for work, _ in in_flight.values())
                in_flight, self._arrived = {}, queue.SimpleQueue()
                self._find_cluster(waiting[0])
            while waiting and len(in_flight) < (at_once or self._check_cluster()):
                work, future = waiting[0], self._submit(waiting[0])
                if future is None:
                    break
                in_flight[future.key] = waiting.popleft(), future
                future.add_done_callback(self._arrived.put)
            try:
                found = self._arrived.get(timeout=_CHECK_SECONDS)
            except queue.Empty:
                self._check_cluster()
                continue
            if isinstance(found, tuple):
                key, line = found
                if key in in_flight:
                    self._show(in_flight[key][0].name, line)
                self._check_cluster()
                continue
            future = found
            work, _ = in_flight.pop(future.key)
            if future.status == "cancelled":
                waiting.appendleft(work)
                continue
            if self._state:
                self._state.record_progress()
            try:
                error = None if future.status == "finished" else future.exception(timeout=SILENT_SECONDS)
                result = None if error else future.result(timeout=SILENT_SECONDS)
            except (OSError, CancelledError):
                # Errors of the unit itself are returned, so the connection was lost.
                future.release()
                waiting.appendleft(work)
                continue
            future.release()
            if isinstance(error, KilledWorker):
                if at_once == 1:
                    self.deaths[work.name] = explain_killed_worker(self._client, error)
                killed.append(work)
            else:
                self._answer(result or self._report_crash(work, error))
        return killed

    def _submit(self, work: Work) -> Future | None:
        # Names may contain lone surrogates, which messages between processes must not.
        key = f"{self._name}-{work.fingerprint[:16]}-{work.name!a}"
        # The working directory of a worker is not the one that a relative path of the store refers to.
        arguments = (self._store.locate("").rstrip("/"), self._compute, work)
        report_line = functools.partial(send_progress, self._client.id, key)
        options = {"key": key, "pure": False, "retries": _RETRIES, "resources": self._resources}
        try:
            return self._client.submit(run_unit, *arguments, report_line=report_line, **options)
        except ClosedClientError:
            return None

    def _report_crash(self, work: Work, error: BaseException | None) -> UnitReport:
        if error and may_be_other_version(error):
            # A worker that joined later may be the cause. This ends the run then.
            check_workers(self._client, self._store, [work])
        return report_crash(self._store, work, error)

    def _check_cluster(self) -> int:
        """Return how many units may be in flight. Check the cluster at intervals."""
        assert self._state
        if time.monotonic() - self._checked_at > _CHECK_SECONDS and is_connected(self._client):
            self._checked_at = time.monotonic()
            try:
                news = self._state.check()
            except TimeoutError:
                # It may also not confirm the end of the connection.
                news = "the Dask scheduler does not answer"
                with contextlib.suppress(TimeoutError):
                    self._client.close(timeout=1)
            if news:
                print_warning(f"{self._name}: {news}")
        return self._state.in_flight

    def _find_cluster(self, work: Work) -> None:
        while True:
            try:
                # The client tries to reconnect by itself for a moment.
                while self._client.status == "connecting":
                    time.sleep(0.1)
                if not is_connected(self._client):
                    print_warning(f"{self._name}: lost the connection to the Dask scheduler; reconnecting")
                    self._client = self._reconnect()
                check_workers(self._client, self._store, [work])
                self._resources = unit_resources(self._client)
                receive_progress(self._client, self._arrived)
                self._state, self._checked_at = ClusterState(self._client, self._resources), 0.0
                return
            except (OSError, ClosedClientError) as error:
                logger.debug("connection lost during the check", exc_info=error)
