"""Exit codes: run a flow or a function, and turn every expected error into one line and a code."""

import contextlib
import importlib
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from data_contracts.errors import InputError
from data_contracts.files.credentials import check_no_credentials, hide_credentials
from data_contracts.files.locations import location
from data_contracts.settings import read_settings
from flows.engine.console import add_fields, explain_error, print_error
from flows.engine.progress import watching_progress
from flows.engine.run_metrics import measured_run
from infra.interruption import EXIT_INTERRUPTED, RESUME, end_now, ending_on_signals
from infra.prefect.runtime import has_server_url, quiet_prefect

# Exceptions of Prefect's client if its server is gone. Comparing names avoids the import.
_SERVER_LOST = ("ConnectError", "ReadError", "RemoteProtocolError", "ConnectTimeout", "ReadTimeout")
# Flow -> the parameter with the folder of inputs, which is checked before anything is started.
_INPUT_FOLDERS = {"extract": "data", "fit": "annotations", "reproduce": "annotations"}


def run_flow(name: str, parameters: Mapping[str, Any]) -> int:
    """Run a flow and return the exit code. If ``PREFECT_API_URL`` is set, that Prefect server records the run."""

    def run() -> int:
        # A Prefect server stores the parameters even of a run that is then refused.
        for what, value in parameters.items():
            for text in value if isinstance(value, list) else (value,):
                check_no_credentials(str(text), what=what)
        with ending_on_signals():
            _check_folder(name, parameters)
            if has_server_url():
                _run_recorded(name, parameters)
            else:
                getattr(importlib.import_module(f"flows.{name}"), name)(**parameters)
        return 0

    def measured() -> int:
        with measured_run(name, parameters):
            return run()

    # A server gives the run another identity.
    identity = None if has_server_url() else str(uuid.uuid4())
    store = parameters.get("store")
    with add_fields(flow=name, run_id=identity, store=hide_credentials(store) if store else None):
        return guarded(measured)


def _run_recorded(name: str, parameters: Mapping[str, Any]) -> None:
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


def guarded(action: Callable[[], int], *, shows_progress: bool = True) -> int:
    """Run an action and return its exit code. Errors of the user are printed as one line, without a traceback."""
    try:
        # A wrong setting ends the command before any work.
        read_settings()
        with watching_progress("affwild2") if shows_progress else contextlib.nullcontext():
            return action()
    except KeyboardInterrupt:
        print_error(f"affwild2: interrupted; {RESUME}")
        return EXIT_INTERRUPTED
    except Exception as error:
        if explained := explain_error(error):
            print_error(f"affwild2: {explained[0]}")
            return explained[1]
        if type(error).__name__ in _SERVER_LOST:
            # Otherwise Prefect's client would retry for a minute to report the state to its server.
            end_now(f"affwild2: the Prefect server stopped answering ({type(error).__name__}); {RESUME}")
        raise


def _check_folder(name: str, parameters: Mapping[str, Any]) -> None:
    """Raise the error of a wrong folder of inputs before libraries or a flow run delay it."""
    from data_contracts.challenge.layout import find_data

    if name in _INPUT_FOLDERS and (folder := parameters[_INPUT_FOLDERS[name]]):
        layout = find_data(location(folder))
        if task := parameters.get("task"):
            layout.annotations_of(task)
