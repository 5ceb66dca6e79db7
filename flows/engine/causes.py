"""One-line messages for errors of inputs, parameters and machines. Other errors are shown with a traceback."""

from typing import Any

from data_contracts.errors import InputError, printable
from infra.interruption import EXIT_INTERRUPTED

GO_ON = "what is finished is kept, the same command goes on from there"
EXIT_SOME_FAILED = 1
EXIT_WRONG_REQUEST = 2


def cause_in_a_line(error: BaseException) -> tuple[str, int] | None:
    """Return message and exit code for an exception; None if it should be shown with its traceback.

    Exceptions of libraries are compared by name, which avoids the imports.
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
    """Return the first validation error of pydantic in one line. Prefect passes such errors as text."""
    faults: list[dict[str, Any]] = getattr(error, "errors", list)()
    if not faults:
        return " ".join(str(error).split())
    name = ".".join(str(part) for part in faults[0]["loc"])
    cause = faults[0].get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return f"{name}: {cause}"
    return f"{name}: {faults[0]['msg']}, got {faults[0]['input']!r}"
