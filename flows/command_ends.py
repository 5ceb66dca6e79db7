"""How a command runs a flow, and how it ends: exit codes, and one line for every cause that is the user's."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import typer

from data_contracts.errors import InputError
from data_contracts.urls import check_no_credentials
from flows.workers import start_ahead
from infra.imports import leave_out_pandas
from infra.interruption import EXIT_INTERRUPTED, end_now, ending_at_once
from infra.prefect_runtime import quiet_prefect, server_is_named

# What Prefect's client raises when its server is gone; by name, so that nothing is imported for it.
_SERVER_LOST = ("ConnectError", "ReadError", "RemoteProtocolError", "ConnectTimeout", "ReadTimeout")
EXIT_SOME_FAILED = 1
EXIT_WRONG_REQUEST = 2


def run_flow(name: str, check: Callable[[], None] | None = None, **parameters: Any) -> None:
    """Run a flow and turn its end into an exit code: here, or recorded on the server that ``PREFECT_API_URL`` names."""

    def run() -> int:
        # A server would keep what it is told, also of a run that is then refused.
        for what, value in parameters.items():
            for text in value if isinstance(value, list | tuple) else (value,):
                check_no_credentials(str(text), what=what)
        if check:
            check()
        leave_out_pandas()
        with ending_at_once():
            if server_is_named():
                _run_recorded(name, parameters)
            else:
                start_ahead(
                    store=parameters.get("store"),
                    out=parameters.get("out"),
                    dask_address=parameters.get("dask_address"),
                )
                getattr(importlib.import_module(f"flows.{name}"), name)(**parameters)
        return 0

    raise typer.Exit(guarded(run))


def _run_recorded(name: str, parameters: dict[str, Any]) -> None:
    with quiet_prefect():
        flow = getattr(importlib.import_module("flows.deployments"), name)
        try:
            flow(**parameters)
        except RuntimeError as error:
            if "Failed to reach API" not in str(error):
                raise
            raise InputError(
                f"PREFECT_API_URL: expected a Prefect server at {os.environ['PREFECT_API_URL']}, got no answer; start "
                "one, or unset the variable to run without"
            ) from error


def guarded(action: Callable[[], int]) -> int:
    """Exit code of an action; a cause that is the user's is one line, never a traceback."""
    from flows.console import print_error

    try:
        return action()
    except InputError as error:
        print_error(f"affwild2: {error}")
        return EXIT_WRONG_REQUEST
    except KeyboardInterrupt:
        print_error("affwild2: interrupted; what is finished is kept, the same command goes on from there")
        return EXIT_INTERRUPTED
    except Exception as error:
        name = type(error).__name__
        if name == "SomeFailedError":
            print_error(f"affwild2: {error}")
            return EXIT_SOME_FAILED
        if name in ("ValidationError", "ParameterTypeError"):
            print_error(f"affwild2: {_first_fault(error)}")
            return EXIT_WRONG_REQUEST
        if name == "ClusterError":
            print_error(f"affwild2: {error}")
            return EXIT_WRONG_REQUEST
        if name == "ClusterLostError":
            print_error(f"affwild2: {error}; what is finished is kept, the same command goes on from there")
            return EXIT_INTERRUPTED
        if name in _SERVER_LOST:
            # Prefect's client would go on for a minute to tell its server what has happened.
            end_now(f"affwild2: the Prefect server stopped answering ({name}); what is finished is kept, run again")
        raise


def _first_fault(error: Exception) -> str:
    """What pydantic found wrong with a parameter, in a line; Prefect tells the same as text."""
    faults: list[dict[str, Any]] = getattr(error, "errors", list)()
    if not faults:
        return " ".join(str(error).split())
    name = ".".join(str(part) for part in faults[0]["loc"])
    cause = faults[0].get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return f"{name}: {cause}"
    return f"{name}: {faults[0]['msg']}, got {faults[0]['input']!r}"
