"""No process outlives the command that started it, even if that is killed with a signal that it cannot handle.

``kill -9`` of a command would leave Prefect's embedded server running for good. A small process waits at the other end
of a pipe that closes when the command ends, however it ends, and then ends whatever still bears the command's mark.
"""

import contextlib
import os
import subprocess
import sys
import uuid

import psutil

_MARK = "AFFWILD2_COMMAND"
_GRACE_SECONDS = 3.0
_pipe_end: int | None = None


def end_orphans_with_this_process() -> None:
    """Start the watching process; every process that this one starts from now on ends with it at the latest."""
    global _pipe_end
    if _pipe_end is not None:
        return
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if name != _MARK}
    read_end, _pipe_end = os.pipe()
    with os.fdopen(read_end, "rb") as other_end:
        subprocess.Popen(
            [sys.executable, "-m", "infra.orphans", mark],
            stdin=other_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    os.environ[_MARK] = mark


def _wait_and_end(mark: str) -> None:
    sys.stdin.buffer.read()
    orphans = [process for process in psutil.process_iter() if _bears(process, mark)]
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(orphans, timeout=_GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _bears(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(_MARK) == mark
    except (psutil.Error, OSError):
        return False


if __name__ == "__main__":
    _wait_and_end(sys.argv[1])
