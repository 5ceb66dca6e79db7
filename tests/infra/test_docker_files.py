"""Tests of the image and the compose file without a container engine: they are linted, rendered by Compose, and their
commands run with other hosts and ports."""

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bokeh.client import pull_session
from distributed import Client

from infra.cluster_state import unit_resources
from infra.worker_processes import WORKER_ENVIRONMENT
from tests.infra.operated import (
    DOCKERFILE,
    FILES,
    ROOT,
    image_environment,
    lint,
    missing_metrics,
    running,
    samples_used,
    unknown_variables,
)
from tests.processes import free_port, program
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service

DOCKER = FILES / "docker"
ALERTS = FILES / "monitoring" / "alerts.yml"
OURS = ("prefect", "deploy", "flow-worker", "flow-worker-gpu", "scheduler", "worker", "worker-gpu", "bucket")


def compose_config(environment_file, *profiles):
    """Render the compose file for the profiles; return the finished process."""
    import compose  # only the services environment has it

    # The package's own script always ends with 0.
    command = [
        Path(compose.__file__).parent / "docker-compose",
        "--file",
        DOCKER / "compose.yaml",
        "--env-file",
        environment_file,
    ]
    command += [word for profile in profiles for word in ("--profile", profile)]
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return subprocess.run(
        [*command, "config", "--format", "json"], capture_output=True, text=True, check=False, env=clean
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The example environment file, with all values filled in."""
    text = (DOCKER / ".env.example").read_text()
    assert re.findall(r"^(?:\w*PASSWORD|PREFECT_AUTH|S3_SECRET_KEY)=(.+)$", text, re.M) == []
    path = tmp_path_factory.mktemp("compose") / ".env"
    path.write_text(re.sub(r"^(PREFECT_AUTH|\w+)=$", lambda m: f"{m[1]}=lab:{secrets.token_hex(8)}", text, flags=re.M))
    return path


@pytest.fixture(scope="module")
def services(filled):
    rendered = compose_config(filled, "cpu", "gpu", "monitoring")
    assert rendered.returncode == 0 and not rendered.stderr, rendered.stderr
    return json.loads(rendered.stdout)["services"]


def test_linters_find_nothing():
    assert lint("hadolint", DOCKERFILE) == ""
    assert lint("shellcheck", *DOCKER.glob("*.sh")) == ""


def test_workers_have_the_environment_of_local_workers_and_flows_use_all_cores(services):
    image = image_environment()
    assert unknown_variables(image) == set()
    for name in ("worker", "worker-gpu"):
        assert WORKER_ENVIRONMENT.items() <= (image | services[name]["environment"]).items()
    assert not [name for name in image | services["flow-worker"]["environment"] if name.endswith("_NUM_THREADS")]
    assert re.search(r"^USER (\d+):\1$", DOCKERFILE.read_text(), re.M)


def test_the_build_context_has_all_copied_files_and_no_data():
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore and all((ROOT / name).exists() for name in kept)
    copied = re.findall(r"^COPY (?!--from)(.*) \./$", DOCKERFILE.read_text(), re.M)
    assert {name for line in copied for name in line.split() if name != "."} <= kept
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= kept and not {"tests", "docs", "demo"} & kept


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "PREFECT_AUTH", "S3_SECRET_KEY"])
def test_compose_has_no_default_password(filled, tmp_path, name):
    without = tmp_path / ".env"
    without.write_text(re.sub(rf"^{name}=.*$", f"{name}=", filled.read_text(), flags=re.M))
    refused = compose_config(without)
    assert refused.returncode != 0 and name in refused.stderr


def test_services_are_confined_and_publish_only_on_the_loopback_interface(services):
    assert set(OURS) | {"postgres", "s3", "prometheus"} == set(services)
    for name, service in services.items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
        assert "privileged" not in service and service.get("network_mode") is None
        if name in (*OURS, "prometheus"):
            assert service["read_only"] and service["cap_drop"] == ["ALL"]
        if name in OURS:
            written = {volume["target"] for volume in service["volumes"] if not volume.get("read_only")}
            assert written <= {"/home/affwild2", "/scratch"}
    assert {name for name, service in services.items() if "devices" in json.dumps(service.get("deploy", {}))} == {
        "flow-worker-gpu",
        "worker-gpu",
    }


def test_every_variable_in_the_compose_file_is_read(services):
    assert (
        unknown_variables({name for service in services.values() for name in service.get("environment") or {}}) == set()
    )
    assert "-master.telemetry=false" in services["s3"]["command"]


def test_services_wait_for_their_dependencies(services):
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], (name, needed)
            else:
                assert (how["condition"], services[needed]["restart"]) == ("service_completed_successfully", "no")


def as_processes(command: list[str], ports: dict[str, str]) -> list[str]:
    """Return a service's command with hosts of this machine; ``ports`` maps addresses of the file to ports here."""
    words = []
    for word in command:
        for stated, used in ports.items():
            word = word.replace(stated, used)
        words.append(program(word) if word in ("dask", "prefect", "python") else word)
    return words


def wait_until_healthy(service, ports, process, log):
    test = as_processes(service["healthcheck"]["test"][1:], ports)
    for _ in range(60):
        if subprocess.run(test, capture_output=True, check=False).returncode == 0:
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.fixture
def cluster(services, tmp_path):
    """Scheduler and workers as the compose file starts them, on CPUs or on a machine with two simulated GPUs."""

    @contextlib.contextmanager
    def start(kind):
        comm, scheduler_page, worker_page = free_port(), free_port(), free_port()
        ports = {
            "scheduler:8786": f"127.0.0.1:{comm}",
            "8786": str(comm),
            "8787": str(scheduler_page),
            "8789": str(worker_page),
            "0.0.0.0": "127.0.0.1",
        }
        # Use the caches of this machine: filling new ones takes a minute.
        environment = {name: value for name, value in image_environment().items() if "/home/" not in value}
        environment["PATH"] = f"{tmp_path}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        environment |= {"TMPDIR": str(tmp_path), "DASK_TEMPORARY_DIRECTORY": str(tmp_path)}
        environment |= {"AFFWILD2_WORKERS_PER_GPU": "2"}
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        with contextlib.ExitStack() as stack:
            for name in ("scheduler", kind):
                log = tmp_path / f"{name}.log"
                command = as_processes(services[name]["command"], ports)
                if command[0] == "sh":
                    script = tmp_path / "gpu_workers.sh"
                    script.write_text((ROOT / command[1]).read_text().replace("8789", str(worker_page)))
                    command[1] = str(script)
                environment |= services[name].get("environment", {})
                process = stack.enter_context(running(command, log=log, environment=environment))
                wait_until_healthy(services[name], ports, process, log)
            yield f"tcp://127.0.0.1:{comm}", process

    return start


def test_a_cpu_worker_connects_and_is_healthy(cluster):
    with cluster("worker") as (address, _), Client(address) as client:
        client.wait_for_workers(1, timeout=60)
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert (worker["nthreads"], worker["resources"], worker["memory_limit"]) == (1, {}, 4 << 30)
        (threads,) = client.run(lambda: os.environ["NUMBA_NUM_THREADS"]).values()
        assert threads == "1"
        pages = {"scheduler": client.scheduler_info()["services"], "worker": worker["services"]}
        for part, services in pages.items():
            used = {sample for sample in samples_used(ALERTS) if sample[0].startswith(f"dask_{part}_")}
            assert used and missing_metrics(f"http://127.0.0.1:{services['dashboard']}/metrics", used) == set()
        # What a browser does: open the page and its web socket, and receive the plots.
        plots = pull_session(url=f"http://127.0.0.1:{pages['scheduler']['dashboard']}/status").document.roots
        assert {"task_stream", "task_progress"} <= {plot.name for plot in plots}


def test_workers_on_each_gpu_extract_a_video(cluster, tmp_path):
    from flows.extract import extract

    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "clip.mp4", VideoSpec(frame_count=4))
    with cluster("worker-gpu") as (address, process):
        with Client(address) as client:
            client.wait_for_workers(4, timeout=60)
            assert unit_resources(client) == {"GPU": 1}
            assert sorted(client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"]).values()) == ["0", "0", "1", "1"]
        extracted = extract(str(tmp_path / "data"), str(tmp_path / "store"), dask_address=address)
        assert extracted.videos == ("clip",)
        process.terminate()
        assert process.wait(20) == 143
