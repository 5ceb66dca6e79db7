"""A Prefect server and a worker, started by the documented commands."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from infra.prefect.runtime import NO_TELEMETRY
from tests.processes import free_port, prepare_service, program

ROOT = Path(__file__).parents[1]
# Nothing in this file is quoted.
SERVER_SETTINGS = dict(
    line.split("=", 1)
    for line in (ROOT / "infra" / "prefect" / "server.env").read_text().splitlines()
    if not line.startswith("#")
)
_START_SECONDS = 300
_END_SECONDS = 600
_ANSWER_SECONDS = 180


@dataclass
class PrefectService:
    """A server at ``url``; ``folder`` contains its database and the logs of all its processes."""

    folder: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def prefect(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
        """Run ``prefect ARGUMENTS`` in the folder of the project."""
        env = self.environment | (environment or {})
        command = [program("prefect"), *arguments]
        return subprocess.run(
            command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=_END_SECONDS, check=False
        )

    def run_python(self, code: str) -> None:
        """Run Python code as a client of the server."""
        subprocess.run([sys.executable, "-c", code], env=self.environment, cwd=ROOT, check=True, timeout=_END_SECONDS)

    def run_deployment(self, deployment: str, *options: str) -> str:
        """Start a run with ``prefect deployment run``; return its id."""
        started = self.prefect("deployment", "run", deployment, *options)
        assert started.returncode == 0, started.stdout + started.stderr
        found = re.search(r"UUID: ([0-9a-f-]{36})", started.stdout)
        assert found, started.stdout
        return found[1]

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Start a run of a deployment with the request of the web form; return its id."""
        answer = self._start_run(deployment, parameters)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def refusal_of(self, deployment: str, **parameters: Any) -> str:
        """Return the message with which the server refuses parameters."""
        answer = self._start_run(deployment, parameters)
        assert answer.status_code == 409, answer.text
        return str(answer.json()["detail"])

    def _start_run(self, deployment: str, parameters: dict[str, Any]) -> httpx.Response:
        path = f"deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return self.request("POST", path, {"parameters": parameters})

    def end_of(self, run: str) -> dict[str, Any]:
        """Wait until a run has ended; return it: ``name``, ``state`` (``name``, ``message``), ..."""
        deadline = time.monotonic() + _END_SECONDS
        while True:
            found = self.ask("GET", f"flow_runs/{run}")
            if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return found
            assert time.monotonic() < deadline, f"run {found['name']} is still {found['state']['name']}"
            time.sleep(0.5)

    def wait_for_state(self, run: str, name: str) -> dict[str, Any]:
        """Wait until a run is in a state; return the run."""
        deadline = time.monotonic() + _END_SECONDS
        while (found := self.ask("GET", f"flow_runs/{run}"))["state"]["name"] != name:
            assert time.monotonic() < deadline, f"run {found['name']} is still {found['state']['name']}"
            time.sleep(0.5)
        return found

    def stages_of(self, run: str) -> list[tuple[str, str, str]]:
        """Return (name, state, message) of the task runs of a run, in order."""
        wanted = {"flow_runs": {"id": {"any_": [run]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found = self.ask("POST", "task_runs/filter", **wanted)
        return [(one["name"], one["state"]["name"], one["state"]["message"]) for one in found]

    def deployment(self, name: str) -> dict[str, Any]:
        """Return the deployment ``FLOW/NAME`` as the server stores it."""
        return self.ask("GET", f"deployments/name/{name}")

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """Return the content of the server's answer, which must be a success."""
        answer = self.request(method, path, body or None)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Return the server's answer. While its database is locked, which happens under load, it is 503: ask again."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            answer = httpx.request(method, f"{self.url}/{path}", json=body, timeout=_ANSWER_SECONDS)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                return answer
            time.sleep(0.5)

    @contextlib.contextmanager
    def deployed(self, folder: Path) -> Iterator[None]:
        """Register every deployment, and run a worker."""
        self.deploy(folder)
        with self.worker():
            yield

    def deploy(self, folder: Path) -> None:
        """Register every deployment, whose defaults are ``videos``, ``store`` and ``out`` of a folder."""
        if self.request("GET", "work_pools/affwild2").status_code == httpx.codes.NOT_FOUND:
            created = self.prefect("work-pool", "create", "affwild2", "--type", "process")
            assert created.returncode == 0, created.stderr
        defaults = {f"AFFWILD2_{name.upper()}": str(folder / name) for name in ("videos", "store", "out")}
        registered = self.prefect("--no-prompt", "deploy", "--all", environment=defaults)
        assert registered.returncode == 0, registered.stdout + registered.stderr

    @contextlib.contextmanager
    def worker(self) -> Iterator[subprocess.Popen]:
        """Run a worker, which the block may also end."""
        arguments = ["worker", "start", "--pool", "affwild2"]
        with _running(arguments, self.environment, self.folder / "worker.log") as worker:
            yield worker

    def connections(self) -> set[str]:
        """Return the names that any process of the server, worker, commands and runs resolved or connected to."""
        return {line.split(maxsplit=2)[1] for line in (self.folder / "connections").read_text().splitlines()}

    def worker_log(self) -> str:
        """Return the output so far of the worker and of its runs."""
        return (self.folder / "worker.log").read_text()


@contextlib.contextmanager
def serving_prefect(folder: Path, **settings: str) -> Iterator[PrefectService]:
    """Start a server on a free port, with a database in ``folder`` unless ``settings`` name one.

    The server and all its processes end with the block.
    """
    service = new_service(folder, **settings)
    with _running(["server", "start"], service.environment | SERVER_SETTINGS, folder / "server.log") as server:
        wait_for_server(service, server)
        yield service


def new_service(folder: Path, **settings: str) -> PrefectService:
    """Choose the port and the environment of a server whose log is ``server.log``, without starting it."""
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
    return PrefectService(folder, environment["PREFECT_API_URL"], environment)


@contextlib.contextmanager
def _running(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """Run ``prefect ARGUMENTS`` until the block ends; end all its processes."""
    process = start_prefect(arguments, environment, log)
    try:
        yield process
    finally:
        family = family_of(process)
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def start_prefect(arguments: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    """Start ``prefect ARGUMENTS`` in the folder of the project, with its output at the end of ``log``."""
    with log.open("a") as output:
        return subprocess.Popen(
            [program("prefect"), *arguments],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare_service,
        )


def family_of(process: subprocess.Popen) -> list[psutil.Process]:
    """Return a process and everything that it started, as far as they run."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


def wait_for_server(service: PrefectService, server: subprocess.Popen) -> None:
    """Wait until the server answers."""
    log, deadline = service.folder / "server.log", time.monotonic() + _START_SECONDS
    while True:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{service.url}/health", timeout=5).is_success:
                return
        time.sleep(0.2)
