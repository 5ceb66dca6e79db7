"""The flows as Prefect records, schedules and deploys them. Only what is run with a Prefect server imports this.

Each is the plain function of the same name, and each of its stages a task run. Parameters are checked by the function
itself; a cause that is the user's ends a run as Failed with one line, in the state and in the log. What a run leaves on
the server is in ``artifacts``.
"""

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from data_contracts.errors import InputError
from flows.artifacts import leave_artifacts
from flows.engine.causes import cause_in_a_line
from flows.engine.console import told_to
from flows.engine.run import stages_run_by
from flows.options import describe
from flows.parameters import FLOWS
from infra.prefect_runtime import log_causes_in_one_line

P = ParamSpec("P")
R = TypeVar("R")


def _run_as_task(name: str, stage: Callable[[int], str], units: int) -> str:
    """What came of a stage in a line, which is also the message of its task run's state."""

    def as_task(units: int) -> Any:
        with _causes_dropped():
            told = stage(units)
        return Completed(message=told, data=told)

    return str(task(name=name, task_run_name=name, cache_policy=NO_CACHE, retries=0)(as_task)(units))


@contextlib.contextmanager
def _causes_dropped() -> Iterator[None]:
    """Errors of one line bring no others along: Prefect keeps these with all that they say.

    What a server of S3 answers may hold our keys; the line does not.
    """
    try:
        yield
    except InputError as error:
        raise error from None


def _as_flow(function: Callable[P, R], *, run_name: Callable[[Mapping[str, Any]], str]) -> Flow[P, R]:
    """The flow of a plain function: same name, parameters and description."""

    @functools.wraps(function)
    def with_stages_as_tasks(*args: P.args, **kwargs: P.kwargs) -> R:
        # Prefect passes them by position, and a fault would be told by a number.
        by_name = inspect.signature(function).bind(*args, **kwargs).arguments
        with stages_run_by(_run_as_task, at_end=leave_artifacts), _telling():
            try:
                with _causes_dropped():
                    return function(**by_name)  # type: ignore[call-arg]
            except Exception as error:
                told = cause_in_a_line(error)
                if told is None:
                    raise
                # With the exception as its data, it is raised where the flow was called, in this process or another.
                return Failed(message=told[0], data=error)  # type: ignore[return-value]

    return flow(
        name=function.__name__,
        description=describe(FLOWS[function.__name__])[0],
        flow_run_name=lambda: run_name(_parameters()),
        # The function does it, and names the cause in a line.
        validate_parameters=False,
    )(with_stages_as_tasks)


def _parameters() -> Mapping[str, Any]:
    context = FlowRunContext.get()
    return (context and context.parameters) or {}


def _telling() -> contextlib.AbstractContextManager[None]:
    """A run that a worker has started tells its story in its log; a command does on the terminal."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return contextlib.nullcontext()
    return told_to(lambda text: get_run_logger().info("%s", text))


def _short(place: Any) -> str:
    """The end of a path, of the first of several: what tells runs apart in a list."""
    places = place if isinstance(place, list | tuple) else [place]
    names = ["/".join(str(one).rstrip("/").rsplit("/", 2)[-2:]) for one in places[:1]]
    return "".join(names) + (f" and {len(places) - 1} more" if len(places) > 1 else "")


def _of_model(parameters: Mapping[str, Any]) -> str:
    heads = parameters.get("heads")
    return f" with {', '.join(map(str, heads))}" if heads else ""


_RUN_NAMES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "demo": lambda p: f"demo in {_short(p.get('out'))}",
    "extract": lambda p: f"extract {_short(p.get('data'))} with {p.get('backbone')}",
    "fit": lambda p: f"fit {p.get('task')} {p.get('recipe')} in {_short(p.get('store'))}",
    "pretrain": lambda p: f"pretrain {p.get('goal')} {p.get('backbone')} on {_short(p.get('data'))}",
    "rescore": lambda p: f"rescore {_short(p.get('videos'))}{_of_model(p)}",
    "score": lambda p: f"score {_short(p.get('videos'))}{_of_model(p)}",
    "submit": lambda p: f"submit {p.get('task')} {p.get('head') or 'of the only head'}",
}
log_causes_in_one_line(lambda error: cause_in_a_line(error) is not None)


def __getattr__(name: str) -> Any:
    """The flow of that name, made when it is asked for: some import much that the others' runs can do without."""
    if name not in _RUN_NAMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    function = getattr(importlib.import_module(f"flows.{name}"), name)
    globals()[name] = made = _as_flow(function, run_name=_RUN_NAMES[name])
    return made
