"""Settings of Prefect: no telemetry, one log line per failure, and quiet runs for the command line.

Enter ``quiet_prefect`` before ``prefect`` is imported, because Prefect reads some settings at import.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

from data_contracts.settings import read_settings

# For servers, workers and commands: nothing is sent to anyone except the named server. infra/prefect/server.env has
# further settings of servers.
NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
}
# Without a heartbeat for 100 s, the automations of infra/prefect end a run.
HEARTBEAT_SECONDS = 30
# The automations apply to runs with this tag.
TAG = "affwild2"
_QUIET = NO_TELEMETRY | {
    # The command itself reports each failure in one line; Prefect would add a traceback.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}
# The same as in infra/monitoring/json-logs.env.
_JSON_CONSOLE = {
    "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": "infra.json_logs.JsonFormatter",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
    "PREFECT_LOGGING_HANDLERS_DEBUG_FORMATTER": "json",
    "PREFECT_LOGGING_COLORS": "false",
}


# State of stages without failures whose inputs are quarantined or were used in part.
INCOMPLETE = "Incomplete"
# Prefect logs the end of some runs as information.
_LEVELS = {"Failed": logging.ERROR, INCOMPLETE: logging.WARNING}


class _WithoutTracebacks(logging.Filter):
    """Removes what the record of the final state repeats in one line, such as tracebacks of known causes."""

    def __init__(self, is_known: Callable[[BaseException], bool]) -> None:
        super().__init__()
        self._is_known = is_known

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and self._is_known(error):
            return False
        message = record.getMessage()
        if message.startswith("Task run failed with state"):
            # The record of the final state repeats it.
            return False
        for state, level in _LEVELS.items():
            if message.startswith(f"Finished in state {state}"):
                record.levelno, record.levelname = level, logging.getLevelName(level)
        return True


def log_causes_in_one_line(is_known: Callable[[BaseException], bool]) -> None:
    """Log runs that end with a known cause in one line of level ERROR, without a traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_WithoutTracebacks(is_known))


def has_server_url() -> bool:
    """Return whether the environment names a Prefect server that records runs."""
    return bool(os.environ.get("PREFECT_API_URL"))


@contextlib.contextmanager
def quiet_prefect() -> Iterator[None]:
    """Run flows in this process on the server of ``PREFECT_API_URL``. Settings of the user keep their values."""
    json_console = _JSON_CONSOLE if read_settings().log_format == "json" else {}
    for name, value in (_QUIET | json_console).items():
        os.environ.setdefault(name, value)
    from prefect import tags
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # The heartbeat delays the end by a second, and lets the server recognise a command that was killed.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_SECONDS}), tags(TAG):
        yield
