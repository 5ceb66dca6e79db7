"""Causes that are the user's or the machine's, each in a line; there is none for mistakes in the program."""

from typing import Any

from data_contracts.errors import InputError, printable
from infra.interruption import EXIT_INTERRUPTED

GO_ON = "what is finished is kept, the same command goes on from there"
EXIT_SOME_FAILED = 1
EXIT_WRONG_REQUEST = 2


def cause_in_a_line(error: BaseException) -> tuple[str, int] | None:
    """What to say of an exception, and the command's exit code; None for what should be seen with its traceback.

    Kinds that libraries define are told by name, so that nothing is imported for it.
    """
    name = type(error).__name__
    if isinstance(error, InputError) or name == "ClusterError":
        return str(error), EXIT_WRONG_REQUEST
    if name == "SomeFailedError":
        return str(error), EXIT_SOME_FAILED
    if name in ("ValidationError", "ParameterTypeError"):
        return printable(_first_fault(error)), EXIT_WRONG_REQUEST
    if name == "ClusterLostError":
        return f"{error}; {GO_ON}", EXIT_INTERRUPTED
    return None


def _first_fault(error: BaseException) -> str:
    """What pydantic found wrong with a parameter, in a line; Prefect tells the same as text."""
    faults: list[dict[str, Any]] = getattr(error, "errors", list)()
    if not faults:
        return " ".join(str(error).split())
    name = ".".join(str(part) for part in faults[0]["loc"])
    cause = faults[0].get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return f"{name}: {cause}"
    return f"{name}: {faults[0]['msg']}, got {faults[0]['input']!r}"
