"""Prefect for one command: an embedded server that starts quietly, tells nobody, and stops with us.

Must be entered before ``prefect`` is imported: some settings are read at import.
"""

import contextlib
import os
from collections.abc import Iterator

_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # A first start makes the database; on a busy machine that takes more than Prefect's own 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Causes of failures are told by the command itself, one line each; Prefect would add its traceback.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}


_EMBEDDED = {
    # A server on this machine that does not answer has been killed: waiting for minutes would not bring it back.
    "PREFECT_CLIENT_MAX_RETRIES": "1",
}


@contextlib.contextmanager
def local_prefect() -> Iterator[None]:
    """Run flows in this process: against ``PREFECT_API_URL`` if it is set, else with an embedded server."""
    settings = _QUIET if "PREFECT_API_URL" in os.environ else _QUIET | _EMBEDDED
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # The heartbeat is for runs that others watch; here it only delays the end by a second.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
