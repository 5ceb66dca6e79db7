"""Tests of the systemd units: systemd verifies them, and their commands run with the environment of the units."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from distributed import Client, Security

from infra.certificates import write_certificate
from infra.worker_processes import WORKER_ENVIRONMENT
from tests.infra.operated import BIN, FILES, ROOT, running, unknown_variables
from tests.processes import free_port
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service

UNITS = FILES / "systemd"
COMMON = UNITS / "affwild2-.service.d" / "common.conf"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
LONG_RUNNING = ("prefect", "flow-worker", "scheduler", "worker@")


def settings_of(name: str) -> list[tuple[str, str]]:
    """Return (name, value) of all lines of a unit, with those of the drop-in that systemd adds."""
    text = (UNITS / name).read_text() + (COMMON.read_text() if name.startswith("affwild2-") else "")
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith("#")]


def values_of(name: str, setting: str) -> list[str]:
    return [value for found, value in settings_of(name) if found == setting]


def environment_of(name: str, **changed: str) -> dict[str, str]:
    """Return the variables that a unit and its environment files set, with changed values."""
    words = [word for line in values_of(name, "Environment") for word in shlex.split(line)]
    # Files win over lines of units.
    for file in values_of(name, "EnvironmentFile"):
        path = ROOT / file.removeprefix("/opt/affwild2/")
        if file.endswith("affwild2.env"):
            path = UNITS / "affwild2.env.example"
        if path.is_file() and not file.startswith("-"):
            words += [shlex.split(line)[0] for line in path.read_text().splitlines() if re.match(r"\w+=", line)]
    return dict(word.split("=", 1) for word in words) | changed


def command_of(
    name: str, environment: Mapping[str, str], setting: str = "ExecStart", ports: Mapping[str, str] | None = None
) -> list[str]:
    """Return the words of a command as systemd makes them, with programs and ports of this machine."""
    (line,) = values_of(name, setting)
    words = []
    for word in shlex.split(line.removeprefix("-")):
        word = word.replace("%H", "host").replace("%i", "1").replace("$$", "\0")
        word = re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], word).replace("\0", "$")
        for stated, used in (ports or {}).items():
            word = word.replace(stated, used)
        words.append(word)
    words[0] = words[0].replace("/opt/affwild2/.venv/bin/", f"{BIN}/")
    return words


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("systemd-analyze"), "install systemd, which checks its units"
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def installed(tmp_path):
    """A copy of the units whose programs exist on this machine."""
    shutil.copytree(UNITS, tmp_path / "units")
    for path in [*(tmp_path / "units").glob("*.*"), *(tmp_path / "units").glob("*/*.conf")]:
        if path.is_file():
            text = path.read_text().replace("/opt/affwild2/.venv/bin/", f"{BIN}/")
            path.write_text(text.replace("/opt/affwild2", str(ROOT)))
    return tmp_path / "units"


def test_systemd_accepts_the_units(installed):
    units = [*installed.glob("*.service"), *installed.glob("*.timer")]
    assert len(units) == 8
    verified = analyze("verify", "--man=no", "--recursive-errors=yes", *units)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize("wrong", ["Restrt=always", "MemoryMax=5 potatoes", "ExecStart=/no/such/program"])
def test_systemd_finds_a_fault(installed, wrong):
    unit = installed / "affwild2-scheduler.service"
    unit.write_text(unit.read_text().replace("Restart=always\n", f"{wrong}\n"))
    verified = analyze("verify", "--man=no", "--recursive-errors=yes", unit)
    assert verified.stderr


@pytest.mark.parametrize("name", [name for name in SERVICES if name.startswith("affwild2-")])
def test_services_are_confined(installed, name):
    instance = installed / name.replace("@.", "@1.")
    if not instance.exists():
        shutil.copy(installed / name, instance)
    rated = analyze("security", "--offline=true", "--no-pager", "--threshold=25", instance)
    assert rated.returncode == 0, rated.stdout
    assert len(values_of(name, "MemoryMax")) == 1
    assert set(values_of(name, "ProtectSystem")) == {"strict"} and values_of(name, "User") == ["affwild2"]


def test_every_variable_is_read_and_workers_have_the_environment_of_local_workers():
    for name in SERVICES:
        environment = environment_of(name, TLS="")
        own = {"TLS", "UNIT", "AFFWILD2_ALERT", "AFFWILD2_VIDEOS", "AFFWILD2_STORE", "AFFWILD2_OUT"}
        assert unknown_variables(set(environment) - own) == set(), name
    assert WORKER_ENVIRONMENT.items() <= environment_of("affwild2-worker@.service").items()


def test_services_that_end_are_started_again_for_ever_and_failed_runs_are_reported():
    for name in SERVICES:
        if name.removeprefix("affwild2-").removesuffix(".service") in LONG_RUNNING:
            assert values_of(name, "Restart") == ["always"] and values_of(name, "StartLimitIntervalSec") == ["0"]
        elif not name.startswith("failed-"):
            assert values_of(name, "OnFailure") == ["failed-affwild2@%N.service"]
    assert analyze("calendar", *values_of("affwild2-rescore.timer", "OnCalendar")).returncode == 0
    assert values_of("affwild2-rescore.timer", "Persistent") == ["true"]


def test_a_failure_is_sent_with_the_log_of_the_unit(tmp_path):
    journal = tmp_path / "journalctl"
    journal.write_text('#!/bin/sh\necho "log of $1"\n')
    journal.chmod(0o755)
    name = "failed-affwild2@.service"
    environment = {"UNIT": "affwild2-rescore", "AFFWILD2_ALERT": f'cat > "{tmp_path}/$UNIT failed"'}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(command_of(name, environment), env=os.environ | path | environment, check=True, timeout=60)
    assert (tmp_path / "affwild2-rescore failed").read_text() == "log of --unit=affwild2-rescore\n"


def test_scheduler_and_worker_serve_a_nightly_run(tmp_path):
    """The command of the timer runs on them."""
    tls = write_certificate(tmp_path / "tls")
    settings = dict(shlex.split(line)[0].split("=", 1) for line in tls.read_text().splitlines())
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "clip.mp4", VideoSpec(frame_count=4))
    os.utime(tmp_path / "videos" / "clip.mp4", (0, 0))
    port, page = free_port(), free_port()
    address = f"tls://127.0.0.1:{port}"
    changed = settings | {name: str(tmp_path / name) for name in ("TMPDIR", "DASK_TEMPORARY_DIRECTORY")}
    for name in ("TMPDIR", "DASK_TEMPORARY_DIRECTORY"):
        (tmp_path / name).mkdir()
    changed |= {"AFFWILD2_DASK_ADDRESS": address, "AFFWILD2_VIDEOS": str(tmp_path / "videos")}
    changed |= {"AFFWILD2_STORE": str(tmp_path / "store"), "AFFWILD2_OUT": str(tmp_path / "out")}
    with contextlib.ExitStack() as stack:
        for unit in ("scheduler", "worker@"):
            name = f"affwild2-{unit}.service"
            environment = environment_of(name, **changed)
            # Use the caches of this machine: filling new ones takes a minute.
            environment = {key: value for key, value in environment.items() if "/var/cache" not in value}
            command = command_of(name, environment, ports={"8786": str(port), "8787": str(page)})
            stack.enter_context(running(command, log=tmp_path / f"{unit}.log", environment=environment))
        certificate = settings["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"]
        security = Security(require_encryption=True, tls_ca_file=certificate, tls_client_cert=certificate)
        with Client(address, security=security, timeout="60s") as client:
            client.wait_for_workers(1, timeout=90)
            (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
            assert (worker["nthreads"], worker["memory_limit"], worker["id"]) == (1, 4 << 30, "host-1")
        with urllib.request.urlopen(f"http://127.0.0.1:{page}/health", timeout=30) as answer:
            assert answer.status == 200
        command = command_of("affwild2-rescore.service", environment)
        ended = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert ended.returncode == 0 and "1 scored" in ended.stdout, ended.stdout + ended.stderr
        assert list((tmp_path / "out").glob("clip.*"))


def test_server_deployments_and_flow_worker_start_and_stop(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    here = {"PREFECT_HOME": str(tmp_path / "home"), "TMPDIR": "/tmp", "DASK_TEMPORARY_DIRECTORY": "/tmp"}
    here |= {"PREFECT_API_URL": url, "PREFECT_SERVER_API_PORT": str(port)}

    def unit(name):
        environment = environment_of(f"affwild2-{name}.service", **here)
        return command_of(f"affwild2-{name}.service", environment), environment

    command, environment = unit("prefect")
    with running(command, log=tmp_path / "server.log", environment=environment) as server:
        wait_until(lambda: is_answered(f"{url}/health"), server, tmp_path / "server.log")
        command, environment = unit("deploy")
        deployed = subprocess.run(
            command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        command, environment = unit("flow-worker")
        log = tmp_path / "worker.log"
        with running(command, log=log, environment=environment) as worker:
            wait_until(lambda: "started!" in log.read_text(), worker, log)
            # Only the worker: its runs report their end (tests/flows/test_died_runs.py).
            assert values_of("affwild2-flow-worker.service", "KillMode") == ["process"]
            worker.send_signal(signal.Signals[values_of("affwild2-flow-worker.service", "KillSignal")[0]])
            assert worker.wait(50) == -signal.SIGKILL


def is_answered(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200
    return False


def wait_until(is_ready, process: subprocess.Popen, log: Path) -> None:
    for _ in range(400):
        if is_ready():
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    raise AssertionError(log.read_text())
