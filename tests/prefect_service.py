"""A Prefect server and a worker as a lab runs them: the documented commands, as processes of their own."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from infra.prefect_runtime import NO_TELEMETRY, SERVER_NO_TELEMETRY

ROOT = Path(__file__).parents[1]
_START_SECONDS = 300
_END_SECONDS = 600


@dataclass
class PrefectService:
    """A server that answers at ``url``; ``folder`` holds its database and what every process prints."""

    folder: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def prefect(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
        """``prefect ARGUMENTS``, as a person types it in the project's folder."""
        env = self.environment | (environment or {})
        command = [_program("prefect"), *arguments]
        return subprocess.run(
            command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=_END_SECONDS, check=False
        )

    def run_deployment(self, deployment: str, *options: str) -> str:
        """Id of a new run that ``prefect deployment run`` starts."""
        started = self.prefect("deployment", "run", deployment, *options)
        assert started.returncode == 0, started.stdout + started.stderr
        found = re.search(r"UUID: ([0-9a-f-]{36})", started.stdout)
        assert found, started.stdout
        return found[1]

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Id of a new run of a deployment, as a form of the web page makes it."""
        answer = self._start_run(deployment, parameters)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def refusal_of(self, deployment: str, **parameters: Any) -> str:
        """What the server says of parameters that it does not take."""
        answer = self._start_run(deployment, parameters)
        assert answer.status_code == 409, answer.text
        return str(answer.json()["detail"])

    def _start_run(self, deployment: str, parameters: dict[str, Any]) -> httpx.Response:
        url = f"{self.url}/deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return httpx.post(url, json={"parameters": parameters}, timeout=60)

    def end_of(self, run: str) -> dict[str, Any]:
        """A run, when it has come to its end: ``name``, ``state`` (``name``, ``message``), ..."""
        deadline = time.monotonic() + _END_SECONDS
        while True:
            found = self._ask("GET", f"flow_runs/{run}")
            if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return found
            assert time.monotonic() < deadline, f"run {found['name']} is still {found['state']['name']}"
            time.sleep(0.5)

    def stages_of(self, run: str) -> list[tuple[str, str, str]]:
        """(name, state, message) of a run's task runs, in order."""
        wanted = {"flow_runs": {"id": {"any_": [run]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found = self._ask("POST", "task_runs/filter", **wanted)
        return [(one["name"], one["state"]["name"], one["state"]["message"]) for one in found]

    def deployment(self, name: str) -> dict[str, Any]:
        """What the server knows of ``FLOW/NAME``."""
        return self._ask("GET", f"deployments/name/{name}")

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        answer = httpx.request(method, f"{self.url}/{path}", json=body or None, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()

    @contextlib.contextmanager
    def deployed(self, folder: Path) -> Iterator[None]:
        """Register every deployment, whose defaults are ``videos``, ``store`` and ``out`` of a folder; run a worker."""
        created = self.prefect("work-pool", "create", "affwild2", "--type", "process")
        assert created.returncode == 0, created.stderr
        defaults = {f"AFFWILD2_{name.upper()}": str(folder / name) for name in ("videos", "store", "out")}
        with _running(["worker", "start", "--pool", "affwild2"], self.environment, self.folder / "worker.log"):
            registered = self.prefect("--no-prompt", "deploy", "--all", environment=defaults)
            assert registered.returncode == 0, registered.stdout + registered.stderr
            yield

    def connections(self) -> set[str]:
        """Hosts and addresses that any process of server, worker, commands and runs has asked for or connected to."""
        return {line.split(maxsplit=2)[1] for line in (self.folder / "connections").read_text().splitlines()}

    def worker_log(self) -> str:
        """What the worker and the runs that it has started have said so far."""
        return (self.folder / "worker.log").read_text()


@contextlib.contextmanager
def serving_prefect(folder: Path, **settings: str) -> Iterator[PrefectService]:
    """A new server on a free port, with a database in ``folder`` unless ``settings`` name one.

    It has gone when the block ends, with every process that it has started.
    """
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= NO_TELEMETRY | {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PWD": str(ROOT),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/recorded_connections"), os.environ.get("PYTHONPATH", "")]),
        "AFFWILD2_CONNECTIONS": str(folder / "connections"),
        **settings,
    }
    service = PrefectService(folder, environment["PREFECT_API_URL"], environment)
    with _running(["server", "start"], environment | SERVER_NO_TELEMETRY, folder / "server.log") as server:
        _wait_for(service.url, server, folder / "server.log")
        yield service


@contextlib.contextmanager
def _running(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """``prefect ARGUMENTS`` until the block ends; nothing that it has started outlives it."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [_program("prefect"), *arguments],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A shell's background job would ignore SIGINT, which is what both turn SIGTERM into.
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    try:
        yield process
    finally:
        family = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def end_with_parent() -> None:
    """Also where this process is killed and can end nobody: what is started gets SIGTERM, and ends its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        time.sleep(0.2)


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
