"""Programs of the environment as processes, and what servers of tests need."""

import ctypes
import os
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
    """Return a port of the loopback interface on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def end_with_parent() -> None:
    """Send SIGTERM to this process when its parent ends, also if the parent is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
