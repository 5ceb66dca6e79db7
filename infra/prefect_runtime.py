"""Prefect for one command that is recorded on a server: quiet, and over as soon as the work is.

Must be entered before ``prefect`` is imported: some settings are read at import.
"""

import contextlib
import os
from collections.abc import Iterator

_QUIET = {
    "DO_NOT_TRACK": "1",
    # Causes of failures are told by the command itself, one line each; Prefect would add its traceback.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}


def server_is_named() -> bool:
    """Whether the environment names a Prefect server on which runs are to be recorded."""
    return bool(os.environ.get("PREFECT_API_URL"))


@contextlib.contextmanager
def quiet_prefect() -> Iterator[None]:
    """Run flows in this process against the server of ``PREFECT_API_URL``; what a user has set stays."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # The heartbeat is for runs that others watch; here it only delays the end by a second.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
