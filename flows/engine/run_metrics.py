"""Metrics of runs for Prometheus: when a run started, lives and ended, how it ended, and what each stage did.

Nothing is measured unless ``AFFWILD2_METRICS`` is set. Problems with metrics are one warning, and never change a run.
"""

import contextlib
import contextvars
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from data_contracts.errors import printable
from data_contracts.files.credentials import hide_credentials
from data_contracts.settings import read_settings
from flows.engine.console import EXIT_INTERRUPTED, EXIT_SOME_FAILED, EXIT_WRONG_REQUEST, explain_error, print_warning
from infra.interruption import calling_before_end

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from flows.engine.run_results import RunResults

# A run that did not publish for several intervals was killed.
_INTERVAL_SECONDS = 30.0
SUCCEEDED, SOME_FAILED, REFUSED, INTERRUPTED, CRASHED = OUTCOMES = (
    "succeeded",
    "some_failed",
    "refused",
    "interrupted",
    "crashed",
)
_OF_CODES = {EXIT_SOME_FAILED: SOME_FAILED, EXIT_WRONG_REQUEST: REFUSED, EXIT_INTERRUPTED: INTERRUPTED}
_STAGE = ("stage",)
# Values of further labels -> value of a metric.
Values = Mapping[tuple[str, ...], float]


class _Measurement:
    """What is known of a run while it lasts."""

    def __init__(self, flow: str, store: str) -> None:
        self.runs: list[RunResults] = []
        self._labels = {"flow": flow, "store": store}
        self._started, self._outcome = time.time(), ""
        # A signal may interrupt the main thread while it publishes.
        self._lock, self._ended, self._is_reported = threading.RLock(), threading.Event(), False

    def start(self) -> None:
        """Publish now, and at intervals from another thread."""
        self._publish()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._publish_at_intervals,), daemon=True).start()

    def end(self, outcome: str) -> None:
        """Publish how the run ended. Later calls have no effect."""
        if not self._ended.is_set():
            self._ended.set()
            self._outcome = outcome
            self._publish()

    def _publish_at_intervals(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            with self._lock:
                # The run may have ended since, and must not look alive later than that.
                if not self._ended.is_set():
                    self._publish()

    def _publish(self) -> None:
        settings = read_settings()
        assert settings.metrics is not None
        try:
            from infra.metrics import publish

            with self._lock:
                publish(self._families(), target=settings.metrics, labels=self._labels, auth=settings.metrics_auth)
        except Exception as error:
            if not self._is_reported:
                self._is_reported = True
                cause = " ".join(str(error).split())
                print_warning(f"the metrics of this run were not written to {settings.metrics}: {cause}")

    def _families(self) -> "list[Metric]":
        now = time.time()
        families = [
            self._gauge("run_start_timestamp_seconds", "Start of the last run.", {(): self._started}),
            self._gauge("run_alive_timestamp_seconds", "When the last run was last known to be alive.", {(): now}),
        ]
        if self._outcome:
            families += [
                self._gauge("run_end_timestamp_seconds", "End of the last run that ended.", {(): now}),
                self._gauge("run_duration_seconds", "Duration of the last run that ended.", {(): now - self._started}),
                self._gauge(
                    "run_outcome",
                    "How the last run ended: 1 for its outcome, 0 for all others.",
                    {(outcome,): float(outcome == self._outcome) for outcome in OUTCOMES},
                    names=("outcome",),
                ),
            ]
        if self._outcome == SUCCEEDED:
            families.append(self._gauge("run_last_success_timestamp_seconds", "End of the last success.", {(): now}))
        return [*families, *self._families_of_stages(), *self._families_of_inputs()]

    def _families_of_stages(self) -> "list[Metric]":
        summaries = [summary for run in self.runs for summary in list(run.summaries)]
        if not summaries:
            # The values of the last run stay.
            return []
        units: Counter[tuple[str, ...]] = Counter()
        rows: Counter[tuple[str, ...]] = Counter()
        seconds: Counter[tuple[str, ...]] = Counter()
        for one in summaries:
            results = {
                "ready": one.ready,
                "done": one.done,
                "failed": len(one.failures),
                "quarantined": len(one.quarantined),
            }
            units.update({(one.stage, result): count for result, count in results.items()})
            rows.update({(one.stage,): sum(one.counts.values())})
            seconds.update({(one.stage,): one.seconds or time.monotonic() - one.started})
        return [
            self._gauge("stage_units", "Units of the last run by result.", units, names=(*_STAGE, "result")),
            self._gauge("stage_rows", "Rows, such as frames, that the last run computed.", rows, names=_STAGE),
            self._gauge("stage_duration_seconds", "Duration of a stage of the last run.", seconds, names=_STAGE),
        ]

    def _families_of_inputs(self) -> "list[Metric]":
        if self._outcome not in (SUCCEEDED, SOME_FAILED):
            # The run did not come to its end. The values of the last one that did stay.
            return []
        counts = [run.counts for run in self.runs]
        inputs: Values = {
            (result,): float(sum(getattr(one, result) for one in counts))
            for result in ("up_to_date", "done", "failed", "quarantined", "waiting", "used_in_part")
        }
        skipped: Values = {(): float(sum(one.skipped for one in counts))}
        text = "Inputs of the last complete run by result: videos of extract, score and rescore, else units."
        return [
            self._gauge("run_inputs", text, inputs, names=("result",)),
            self._gauge("run_skipped_inputs", "Files that the last complete run skipped.", skipped),
        ]

    def _gauge(self, name: str, text: str, values: Values, *, names: tuple[str, ...] = ()) -> "Metric":
        from prometheus_client.metrics_core import GaugeMetricFamily

        family = GaugeMetricFamily(f"affwild2_{name}", text, labels=[*self._labels, *names])
        for labels, value in values.items():
            family.add_metric([*self._labels.values(), *labels], value)
        return family


_measurement: ContextVar[_Measurement | None] = ContextVar("measurement", default=None)


@contextlib.contextmanager
def measured_run(flow: str, parameters: Mapping[str, Any]) -> Iterator[None]:
    """Publish the metrics of a run of a flow, however the block ends. Flows inside the block are part of this run."""
    if read_settings().metrics is None or _measurement.get() is not None:
        yield
        return
    measurement = _Measurement(flow, _store_of(parameters))
    token = _measurement.set(measurement)
    try:
        measurement.start()
        with calling_before_end(lambda: measurement.end(INTERRUPTED)):
            yield
    except BaseException as error:
        measurement.end(_outcome_of(error))
        raise
    else:
        measurement.end(SUCCEEDED)
    finally:
        _measurement.reset(token)


def measure(run: "RunResults") -> None:
    """Include the stages of a run on a store in the metrics of the current run of a flow."""
    if measurement := _measurement.get():
        measurement.runs.append(run)


def _store_of(parameters: Mapping[str, Any]) -> str:
    """Return the name of a store for all runs that use it."""
    store = str(parameters.get("store") or f"{parameters.get('out') or '.'}/store")
    return printable(hide_credentials(store) if "://" in store else os.path.abspath(store))


def _outcome_of(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return INTERRUPTED
    explained = explain_error(error)
    return _OF_CODES[explained[1]] if explained else CRASHED
