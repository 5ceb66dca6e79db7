"""The flows as Prefect records, schedules and deploys them. Only what is run with a Prefect server imports this.

Each is the plain function of the same name, and each of its stages a task run. What a run leaves on the server is
in ``artifacts``.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from prefect import Flow, flow, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import leave_artifacts
from flows.demo import demo as demo_plainly
from flows.extract import extract as extract_plainly
from flows.fit import fit as fit_plainly
from flows.pretrain import pretrain as pretrain_plainly
from flows.rescore import rescore as rescore_plainly
from flows.run import stages_run_by
from flows.score import score as score_plainly
from flows.submit import submit as submit_plainly

P = ParamSpec("P")
R = TypeVar("R")


def _run_as_task(name: str, stage: Callable[[int], str], units: int) -> str:
    return task(name=name, task_run_name=name, cache_policy=NO_CACHE, retries=0)(stage)(units)


def _as_flow(function: Callable[P, R], *, run_name: str) -> Flow[P, R]:
    """The flow of a plain function: same name, parameters and description."""

    @functools.wraps(function)
    def with_stages_as_tasks(*args: P.args, **kwargs: P.kwargs) -> R:
        with stages_run_by(_run_as_task, at_end=leave_artifacts):
            return function(*args, **kwargs)

    return flow(name=function.__name__, flow_run_name=run_name)(with_stages_as_tasks)


demo = _as_flow(demo_plainly, run_name="demo in {out}")
extract = _as_flow(extract_plainly, run_name="extract {data}")
fit = _as_flow(fit_plainly, run_name="fit {task}")
pretrain = _as_flow(pretrain_plainly, run_name="pretrain {goal} on {data}")
rescore = _as_flow(rescore_plainly, run_name="rescore into {out}")
score = _as_flow(score_plainly, run_name="score into {out}")
submit = _as_flow(submit_plainly, run_name="submit {task}")
