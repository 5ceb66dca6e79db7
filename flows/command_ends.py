"""How a command runs a flow, and how it ends: exit codes, and one line for every cause that is the user's."""

from collections.abc import Callable
from typing import Any

import typer

from infra.interruption import EXIT_INTERRUPTED, end_now

# What Prefect's client raises when its server is gone; by name, so that nothing is imported for it.
_SERVER_LOST = ("ConnectError", "ReadError", "RemoteProtocolError", "ConnectTimeout", "ReadTimeout")
EXIT_SOME_FAILED = 1
EXIT_WRONG_REQUEST = 2


def run_flow(module: str, name: str, check: Callable[[], None] | None = None, **parameters: Any) -> None:
    """Run a flow with an embedded server, and turn its end into an exit code."""

    def run() -> int:
        import importlib

        if check:
            check()

        from infra.interruption import ending_at_once
        from infra.orphans import end_orphans_with_this_process
        from infra.prefect_runtime import local_prefect

        end_orphans_with_this_process()
        with ending_at_once(), local_prefect():
            flow = getattr(importlib.import_module(module), name)
            flow(**parameters)
        return 0

    raise typer.Exit(guarded(run))


def guarded(action: Callable[[], int]) -> int:
    """Exit code of an action; a cause that is the user's is one line, never a traceback."""
    from data_contracts.errors import InputError
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
        if name == "ClusterError":
            print_error(f"affwild2: {error}")
            return EXIT_WRONG_REQUEST
        if name in _SERVER_LOST:
            # Prefect's client would go on for a minute to tell its server what has happened.
            end_now(f"affwild2: the Prefect server stopped answering ({name}); what is finished is kept, run again")
        raise
