"""Bring every fault about in deployed runs, and print what the server shows and what the next run does.

Part of ``python -m tests.faults``: a real Prefect server and worker, the deployments, generated videos, a store on a
disk or on S3, and local workers or a Dask cluster that was started by hand. Each case prints a row of the table in
docs/operations.md.
"""

import contextlib
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.faults.unattended import machine_cases, process_cases, service_cases
from tests.faults.unattended.case import Case
from tests.faults.unattended.lab import Lab, running_lab
from tests.faults.unattended.trial import Trial
from tests.postgres_server import serving_postgres

CASES = (*process_cases.CASES, *machine_cases.CASES, *service_cases.CASES)
_HEADER = (
    "| fault | shown after two minutes, or when the run has ended | ended after | next run | everything there after |"
)


def run_cases(root: Path, words: Sequence[str]) -> int:
    """Run the cases whose name contains one of the words, or all; print a row each; return the number of failures."""
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    if not chosen:
        return 0
    failed, started = 0, time.monotonic()
    print(f"{_HEADER}\n|---|---|---|---|---|", flush=True)
    for name, serving in (("sqlite", contextlib.nullcontext), ("postgres", serving_postgres)):
        cases = [case for case in chosen if case.postgres == (name == "postgres")]
        if not cases:
            continue
        with serving() as address, running_lab(root / name, **_database(address)) as lab:
            for number, case in enumerate(cases):
                row, problems = run_case(case, lab, root / name / f"case-{number}")
                print(row, flush=True)
                for problem in problems:
                    print(f"    NOT AS EXPECTED: {problem}", flush=True)
                failed += bool(problems)
    print(f"\n{len(chosen)} faults in {(time.monotonic() - started) / 60:.0f} minutes, {failed} not as expected")
    return failed


def _database(address: str | None) -> dict[str, str]:
    url = f"postgresql+asyncpg://prefect@{address}/prefect"
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url} if address else {}


def run_case(case: Case, lab: Lab, folder: Path) -> tuple[str, list[str]]:
    """Run a case; return its row and everything that is not as expected."""
    if missing := case.needs():
        return f"| {case.name} | skipped: {missing} | | | |", []
    trial = Trial(lab, folder)
    try:
        with trial.resources:
            case.fault(trial)
            if case.next and not trial.next:
                trial.run_next()
            problems = case.judge(trial)
    except Exception as error:
        problems = [*trial.problems, "".join(traceback.format_exception(error)[-3:])]
        lab.restart()
    return case.row(trial), problems
