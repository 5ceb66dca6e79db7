"""Health check of a Prefect worker: exit with 1 if it stopped asking a reachable server for runs, or does not answer.

The worker's own page also reports a problem when the server is down. Restarting the worker would then only end the
flows that it runs.
"""

import os
import sys
import urllib.error
import urllib.request

_TIMEOUT_SECONDS = 5.0


def is_healthy(page: str, server: str) -> bool:
    """Return whether the worker's health page answers with 200, or with an error while the server does not answer."""
    status = _status(page)
    return status == 200 or (status is not None and _status(f"{server}/health") != 200)


def _status(url: str) -> int | None:
    """Return the status of the answer; None without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


if __name__ == "__main__":
    port = os.environ.get("PREFECT_WORKER_WEBSERVER_PORT", "8080")
    sys.exit(not is_healthy(f"http://127.0.0.1:{port}/health", os.environ["PREFECT_API_URL"]))
