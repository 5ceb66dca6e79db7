"""Programs of the environment as processes, and what servers of tests need."""

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def program(name: str) -> str:
    """Return the path of a program that is installed beside the interpreter."""
    return str(Path(sys.executable).with_name(name))


def run_command(
    *arguments: object, timeout: float = 840, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``affwild2 ARGUMENTS`` as a process, with variables added to the environment of the tests."""
    command = [program("affwild2"), *map(str, arguments)]
    env = os.environ | dict(environment or {})
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, check=False)


def free_port() -> int:
    """Return a port of the loopback interface on which no process listens.

    Systems assign ports above 32,767 to outgoing connections, which could take the port before the server starts.
    """
    for port in random.SystemRandom().sample(range(10_000, 32_768), 1_000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


def prepare_service() -> None:
    """Let a server or worker end with its parent, also if that is killed (Linux), and on SIGINT.

    Processes inherit that SIGINT is ignored if a script started the tests in the background. Prefect turns SIGTERM into
    SIGINT.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
