"""How Prefect behaves: what it sends to nobody, what it says of a failure, and how quiet it is for one command.

``quiet_prefect`` must be entered before ``prefect`` is imported: some settings are read at import.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

# For servers, workers and commands alike: nothing is sent to anybody but the server that was named.
STAYS_HERE = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
}
# A server also asks GitHub for a list of kinds of workers where a pool is made, and no setting says not to: it gets no
# connection, and takes the list that it brings. Only notifications to others' services, if any are set up, need more.
SERVER_STAYS_HERE = STAYS_HERE | {"HTTPS_PROXY": "http://127.0.0.1:9"}
_QUIET = STAYS_HERE | {
    # Causes of failures are told by the command itself, one line each; Prefect would add its traceback.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}


class _CausesInALine(logging.Filter):
    """Leaves out Prefect's tracebacks of causes that are told in a line: the one that says how a run ended."""

    def __init__(self, is_told: Callable[[BaseException], bool]) -> None:
        super().__init__()
        self._is_told = is_told

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and self._is_told(error):
            return False
        if record.getMessage().startswith("Finished in state Failed"):
            record.levelno, record.levelname = logging.ERROR, "ERROR"
        return True


def tell_causes_in_a_line(is_told: Callable[[BaseException], bool]) -> None:
    """From now on, runs that end for such a cause are one line in the log, of level ERROR, without a traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_CausesInALine(is_told))


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
