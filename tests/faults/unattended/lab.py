"""A laboratory: a Prefect server, a worker, the deployments, and videos, started by the documented commands.

The worker asks for runs at Prefect's own interval, so that measured times are those of a lab.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import psutil

from tasks.demo.generate import DemoDataParams, generate_demo_data
from tests.faults.interruption_matrix import read_results
from tests.prefect_service import (
    ROOT,
    SERVER_SETTINGS,
    PrefectService,
    family_of,
    new_service,
    start_prefect,
    wait_for_server,
)
from tests.processes import run_command

Parameters = dict[str, str | int | list[str]]
FRAMES = 75
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_AGE_SECONDS = 600
_DEPLOY_SECONDS = 600


class FlowRunState(TypedDict):
    """The state of a flow run: the fields that trials read."""

    type: str
    name: str
    message: str | None


class FlowRun(TypedDict):
    """A flow run as the web page shows it."""

    name: str
    state: FlowRunState


@dataclass
class Lab:
    """A server and a worker; ``expected`` are the results of an undisturbed run on the videos in ``data``."""

    folder: Path
    service: PrefectService
    data: Path
    expected: dict[str, bytes]
    server: subprocess.Popen | None = None
    worker: subprocess.Popen | None = None
    defaults: dict[str, str] = field(default_factory=dict)

    def start_server(self) -> None:
        """Start the server, and wait until it answers."""
        environment = self.service.environment | SERVER_SETTINGS
        self.server = start_prefect(["server", "start"], environment, self.folder / "server.log")
        wait_for_server(self.service, self.server)

    def start_worker(self) -> None:
        """Start the worker."""
        arguments = ["worker", "start", "--pool", "affwild2"]
        self.worker = start_prefect(arguments, self.service.environment, self.folder / "worker.log")

    def deploy(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m infra.prefect.deploy`` with the variables of the lab, or with others."""
        environment = self.service.environment | self.defaults | variables
        command = [sys.executable, "-m", "infra.prefect.deploy"]
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=_DEPLOY_SECONDS, check=False
        )

    def end(self, process: subprocess.Popen | None, number: int = signal.SIGTERM, *, seconds: float = 60) -> None:
        """Send a signal to a server or worker alone, and wait until it has ended."""
        if process and process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=seconds)

    def end_all(self) -> None:
        """Kill every process of the lab at once, as a power cut does."""
        family = [one for process in (self.worker, self.server) if process for one in family_of(process)]
        for one in (*family, *self._runs_without_worker()):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=30)
        for process in (self.worker, self.server):
            if process:
                process.wait()

    def restart(self) -> None:
        """Start server and worker again, as after a case that failed in between."""
        self.end_all()
        self.start_server()
        self.start_worker()

    def _runs_without_worker(self) -> list[psutil.Process]:
        """Return processes with the environment of the lab: runs whose worker was killed are no children of it."""
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.environ().get("AFFWILD2_CONNECTIONS") == str(self.folder / "connections"):
                    found.append(one)
        return found

    def processes_of(self, run: str) -> list[psutil.Process]:
        """Return the process of a flow run, first, and everything that it started."""
        flows = []
        for one in self._runs_without_worker():
            with contextlib.suppress(psutil.Error):
                if one.environ().get("PREFECT__FLOW_RUN_ID") == run:
                    flows.append(one)
        return sorted(flows, key=lambda one: ("prefect.engine" not in command_of(one), one.create_time()))

    def start_run(self, deployment: str, parameters: Parameters, environment: dict[str, str]) -> str:
        """Start a run of a deployment with variables in the environment of its process; return its id."""
        path = f"deployments/{self.service.deployment(deployment)['id']}/create_flow_run"
        return str(self.service.ask("POST", path, parameters=parameters, job_variables={"env": environment})["id"])

    def run(self, run: str) -> FlowRun:
        """Return a flow run as the web page shows it."""
        return self.service.ask("GET", f"flow_runs/{run}")

    def log_of(self, run: str) -> str:
        """Return the log of a run."""
        wanted = {"flow_run_id": {"any_": [run]}}
        lines = self.service.ask("POST", "logs/filter", logs=wanted, sort="TIMESTAMP_ASC", limit=200)
        return "\n".join(line["message"] for line in lines)


def command_of(process: psutil.Process) -> str:
    """Return the command line of a process; nothing if it has ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def copy_videos(data: Path, folder: Path) -> Path:
    """Copy the videos; their modification time is ten minutes ago, so that none waits to be complete."""
    shutil.copytree(data, folder, dirs_exist_ok=True)
    for path in folder.iterdir():
        set_age(path)
    return folder


def set_age(path: Path, seconds: float = _AGE_SECONDS) -> None:
    """Set the modification time of a file to a number of seconds ago."""
    os.utime(path, times=(time.time() - seconds,) * 2)


def results_of(store: Path, out: Path) -> dict[str, bytes]:
    """Return the bytes of the parts of the store, and of all predictions, by path.

    Parts of ``videos`` contain the path and time of a file, and the names of those of ``frames`` depend on them. Notes
    about files that are being written are no results.
    """
    found = {re.sub(r"^(frames/.*)-[0-9a-f]{8}", r"\1", name): data for name, data in read_results(store).items()}
    found = {name: data for name, data in found.items() if not name.startswith(("videos/", "_arriving/"))}
    predictions = [path for path in out.iterdir() if path.suffix in (".parquet", ".csv")]
    return found | {f"out/{path.name}": path.read_bytes() for path in predictions}


def make_videos(folder: Path) -> Path:
    """Generate three videos, one with two people; return their folder."""
    generate_demo_data(folder, params=DemoDataParams(3, 0, 0, frames=FRAMES))
    (folder / "videos" / "corrupt.mp4").unlink()
    return folder / "videos"


def run_undisturbed(data: Path, folder: Path) -> dict[str, bytes]:
    """Score the videos by the command, without a server; return the results."""
    arguments = ("--store", folder / "store", "--out", folder / "out", "--workers", 2)
    ended = run_command("rescore", copy_videos(data, folder / "videos"), *arguments)
    assert ended.returncode == 0, ended.stderr
    return results_of(folder / "store", folder / "out")


@contextlib.contextmanager
def running_lab(folder: Path, **settings: str) -> Iterator[Lab]:
    """Set up everything as docs/operations.md describes it; end all processes with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    data = make_videos(folder / "data")
    defaults = {f"AFFWILD2_{name.upper()}": str(folder / "default" / name) for name in ("videos", "store", "out")}
    copy_videos(data, folder / "default" / "videos")
    service = new_service(folder, **settings)
    service.environment.pop("PREFECT_WORKER_QUERY_SECONDS")
    # The environment of the tests silences these; the log of each run is checked here.
    service.environment["DASK_DISTRIBUTED__LOGGING__DISTRIBUTED"] = "warning"
    lab = Lab(folder, service, data, run_undisturbed(data, folder / "undisturbed"), defaults=defaults)
    try:
        lab.start_server()
        deployed = lab.deploy()
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        lab.start_worker()
        yield lab
    finally:
        lab.end_all()
