"""Prefect flows for deployments, schedules and recorded commands. Other modules do not import this one.

Each flow calls the plain function of the same name, and each stage is a task run. The function validates its
parameters. An error of the user ends a run as Failed with one line, in the state and in the log. ``artifacts`` writes
the artifacts of a run.
"""

import contextlib
import functools
import importlib
import inspect
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, flow, task
from prefect._internal.control_listener import get_intent
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.exceptions import CrashedRun, TerminationSignal
from prefect.logging import get_run_logger
from prefect.logging.loggers import LoggingAdapter, flow_run_logger
from prefect.states import Completed, Crashed, Failed

from data_contracts.errors import InputError, printable
from data_contracts.files.credentials import hide_credentials
from flows.artifacts import RunArtifacts, describe_progress
from flows.engine.console import add_fields, explain_error, redirect_output
from flows.engine.progress import watching_progress
from flows.engine.run import run_stages_with
from flows.engine.run_metrics import measured_run
from flows.engine.stage_summary import StageSummary
from flows.options import describe
from flows.parameters import FLOWS
from infra.interruption import ending_with_parent
from infra.prefect.runtime import INCOMPLETE, log_causes_in_one_line

P = ParamSpec("P")
R = TypeVar("R")
_RETRY = "finished work is kept; retry this run, or start another"


def _run_as_task(name: str, stage: Callable[[int], StageSummary], units: int) -> None:
    """Run a stage as a Prefect task, whose state shows its results: red after a failure, although the run goes on."""
    errors = []

    def as_task(units: int) -> Any:
        try:
            with _drop_causes():
                summary = stage(units)
        except Exception as error:
            errors.append(error)
            raise
        message = summary.format_results()
        if summary.failures:
            return Failed(message=message)
        if summary.quarantined or summary.all_problems:
            return Completed(name=INCOMPLETE, message=message)
        return Completed(message=message)

    made = task(name=name, task_run_name=name, cache_policy=NO_CACHE, retries=0)(as_task)
    # The state of a stage with failures must not end the run.
    made(units, return_state=True)
    if errors:
        raise errors[0]


@contextlib.contextmanager
def _drop_causes() -> Iterator[None]:
    """Raise errors of the user without their causes, because Prefect stores the causes too.

    The response of an S3 server, which is the cause of some, may contain credentials.
    """
    try:
        yield
    except InputError as error:
        raise error from None


def _as_flow(function: Callable[P, R], *, run_name: Callable[[Mapping[str, Any]], str]) -> Flow[P, R]:
    """Make a Prefect flow of a plain function, with the same name and parameters."""

    @functools.wraps(function)
    def with_stages_as_tasks(*args: P.args, **kwargs: P.kwargs) -> R:
        # Prefect passes parameters by position; errors should contain their names.
        by_name = inspect.signature(function).bind(*args, **kwargs).arguments
        artifacts = RunArtifacts()
        with (
            run_stages_with(_run_as_task, recorder=artifacts),
            _redirect_output(),
            _add_fields(by_name),
            ending_with_parent() if _is_deployed() else contextlib.nullcontext(lambda: False) as has_worker_ended,
        ):
            try:
                with _drop_causes(), watching_progress(function.__name__), measured_run(function.__name__, by_name):
                    result = function(**by_name)  # type: ignore[call-arg]
                # Without a message, the list of runs would show nothing but the state.
                message = artifacts.run.counts.format() if artifacts.run else None
                return Completed(message=message, data=result)  # type: ignore[return-value]
            except TerminationSignal as error:
                # Service managers and workers send the signal several times. Another one would replace the message
                # below by that of Prefect.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                artifacts.refuse(error)
                if get_intent() == "cancel":
                    raise
                cause = "the end of the worker that started it" if has_worker_ended() else "SIGTERM"
                message = f"interrupted by {cause}; {_RETRY}{describe_progress(artifacts.run, error)}"
                return Crashed(message=message, data=CrashedRun(message))  # type: ignore[return-value]
            except Exception as error:
                artifacts.refuse(error)
                explained = explain_error(error)
                if explained is None:
                    raise
                # The exception is the data of the state, so that Prefect raises it in the caller of the flow.
                message = explained[0] + describe_progress(artifacts.run, error)
                return Failed(message=message, data=error)  # type: ignore[return-value]

    return flow(
        name=function.__name__,
        description=describe(FLOWS[function.__name__])[0],
        flow_run_name=lambda: run_name(_parameters()),
        # The function validates them and reports an error in one line.
        validate_parameters=False,
    )(with_stages_as_tasks)


def _parameters() -> Mapping[str, Any]:
    context = FlowRunContext.get()
    return (context and context.parameters) or {}


@contextlib.contextmanager
def _redirect_output() -> Iterator[None]:
    """Write output and warnings of a run that a worker started to the log of the run. Commands print to the terminal.

    Nothing else would show the warnings of this program to those who read the log on the server.
    """
    context = FlowRunContext.get()
    if not (context and context.flow_run and context.flow_run.deployment_id):
        yield
        return
    handler = _ToRunLog(flow_run_logger(context.flow_run, context.flow))
    packages = [logging.getLogger(name) for name in ("data_contracts", "models", "tasks", "flows", "infra")]
    with redirect_output(lambda level, text: get_run_logger().log(level, "%s", text)):
        for package in packages:
            package.addHandler(handler)
            package.propagate = False
        try:
            yield
        finally:
            for package in packages:
                package.removeHandler(handler)
                package.propagate = True


class _ToRunLog(logging.Handler):
    """Writes records of any thread to the log of a run."""

    def __init__(self, log: LoggingAdapter) -> None:
        super().__init__(logging.WARNING)
        self._run_log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._run_log.log(record.levelno, "%s", printable(record.getMessage()))


def _add_fields(parameters: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
    context, store = FlowRunContext.get(), parameters.get("store")
    run_id = str(context.flow_run.id) if context and context.flow_run else None
    flow_name = context.flow.name if context and context.flow else None
    return add_fields(flow=flow_name, run_id=run_id, store=hide_credentials(str(store)) if store else None)


def _is_deployed() -> bool:
    """Return whether a worker started this run."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)


def _short(place: Any) -> str:
    """Return the end of a path (of the first, if there are several), to distinguish runs in a list."""
    places = place if isinstance(place, list | tuple) else [place]
    names = ["/".join(str(one).rstrip("/").rsplit("/", 2)[-2:]) for one in places[:1]]
    return "".join(names) + (f" and {len(places) - 1} more" if len(places) > 1 else "")


def _heads(parameters: Mapping[str, Any]) -> str:
    heads = parameters.get("heads")
    return f" with {', '.join(map(str, heads))}" if heads else ""


_RUN_NAMES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "demo": lambda p: f"demo in {_short(p.get('out'))}",
    "extract": lambda p: f"extract {_short(p.get('data'))} with {p.get('backbone')}",
    "fit": lambda p: f"fit {p.get('task')} {p.get('recipe')} in {_short(p.get('store'))}",
    "pretrain": lambda p: f"pretrain {p.get('goal')} {p.get('backbone')} on {_short(p.get('data'))}",
    "reproduce": lambda p: f"reproduce the paper in {_short(p.get('store'))}",
    "rescore": lambda p: f"rescore {_short(p.get('videos'))}{_heads(p)}",
    "score": lambda p: f"score {_short(p.get('videos'))}{_heads(p)}",
    "submit": lambda p: f"submit {p.get('task')} {p.get('head') or 'of the only head'}",
}
log_causes_in_one_line(
    lambda error: explain_error(error) is not None or isinstance(error, CrashedRun | TerminationSignal)
)


def __getattr__(name: str) -> Any:
    """Make the flow of that name on first access, because a run of one flow does not need the imports of the others."""
    if name not in _RUN_NAMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    function = getattr(importlib.import_module(f"flows.{name}"), name)
    globals()[name] = made = _as_flow(function, run_name=_RUN_NAMES[name])
    return made
