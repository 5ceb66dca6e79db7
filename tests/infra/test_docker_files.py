"""Tests of the image and the compose file without a container engine: they are linted, rendered by Compose, and their
commands run with other hosts and ports."""

import contextlib
import http.server
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
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
DASHBOARD = FILES / "monitoring" / "grafana" / "affwild2.json"
OURS = ("prefect", "deploy", "flow-worker", "flow-worker-gpu", "scheduler", "worker", "worker-gpu", "bucket", "caches")

MONITORING = ("prometheus", "node-exporter", "grafana")


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
    others = {"postgres", "s3", *MONITORING}
    assert set(OURS) | others == set(services)
    for name, service in services.items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
        assert "privileged" not in service and service.get("network_mode") in (None, "none")
        if name in (*OURS, *MONITORING):
            assert service["read_only"] and service["cap_drop"] == ["ALL"]
        if name in OURS:
            written = {volume["target"] for volume in service["volumes"] if not volume.get("read_only")}
            assert written <= {"/home/affwild2", "/scratch", "/metrics"}
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


def test_every_service_has_limits_for_memory_and_logs(services):
    for name, service in services.items():
        assert int(service["mem_limit"]) >= 256 << 20, name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
    nanny, container = 4 << 30, int(services["worker"]["mem_limit"])
    assert "4GiB" in services["worker"]["command"] and nanny < container


def test_one_variable_makes_all_logs_json(filled, services, tmp_path):
    as_json = tmp_path / ".env"
    as_json.write_text(filled.read_text().replace("AFFWILD2_LOG_FORMAT=text", "AFFWILD2_LOG_FORMAT=json"))
    rendered = compose_config(as_json, "cpu", "gpu", "monitoring")
    assert rendered.returncode == 0, rendered.stderr
    found = json.loads(rendered.stdout)["services"]
    for name in OURS:
        before = services[name].get("environment") or {}
        added = found[name]["environment"].items() - before.items()
        assert "AFFWILD2_LOG_FORMAT" not in before
        assert ("AFFWILD2_LOG_FORMAT", "json") in added and ("DASK_LOGGING__ROOT__HANDLERS", "['stderr']") in added


def test_images_can_be_pinned_by_digest(filled, tmp_path):
    pinned = tmp_path / ".env"
    names = [f"{name}_IMAGE" for name in ("PYTHON", "POSTGRES", "SEAWEEDFS", "PROMETHEUS", "NODE_EXPORTER", "GRAFANA")]
    assert all(f"# {name}=" in filled.read_text() for name in names)
    digest = f"sha256:{'a' * 64}"
    pinned.write_text(filled.read_text() + "".join(f"{name}={name.lower()}@{digest}\n" for name in names))
    rendered = compose_config(pinned, "cpu", "gpu", "monitoring")
    assert rendered.returncode == 0, rendered.stderr
    for name, service in json.loads(rendered.stdout)["services"].items():
        image = service["build"]["args"]["PYTHON_IMAGE"] if "build" in service else service["image"]
        assert image.endswith(digest), name


def test_only_users_of_a_service_join_its_network(services):
    members = {}
    for name, service in services.items():
        assert bool(service.get("networks")) != (service.get("network_mode") == "none")
        for network in service.get("networks", {}):
            members.setdefault(network, set()).add(name)
    flows, workers = {"flow-worker", "flow-worker-gpu"}, {"worker", "worker-gpu"}
    assert members == {
        "database": {"postgres", "prefect"},
        "prefect": {"prefect", "deploy", "prometheus", *flows},
        "dask": {"scheduler", "prometheus", *workers, *flows},
        "s3": {"s3", "bucket", *workers, *flows},
        "monitoring": set(MONITORING),
    }


def test_unhealthy_services_are_ended_so_that_they_are_restarted(services):
    for name, service in services.items():
        if name == "postgres" or "healthcheck" not in service:
            continue
        check = service["healthcheck"]
        assert check["test"][:2] == ["CMD", "sh"] and check["test"][2].endswith("health.sh"), name
        assert service["restart"] == "unless-stopped" and service["init"]
        # The script must not be ended before the check that it runs.
        assert int(check["timeout"].removesuffix("s")) > 15
    assert {name for name, service in services.items() if "healthcheck" not in service} == {
        "deploy",
        "bucket",
        "caches",
    }


# A shell as the first process of a container: it forwards SIGTERM, and ends with its service. The host's /dev/shm is in
# its place until "mounted" is there.
INIT = (
    "mount -t tmpfs none /dev/shm && touch /dev/shm/mounted; "
    """"$@" & service=$!; trap 'kill -TERM $service' TERM; wait $service; wait $service"""
)
STUBBORN = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]


@pytest.fixture
def container(tmp_path):
    """A function that starts a service in its own process namespace, and returns it and a way to run commands there."""
    init = tmp_path / "docker-init"
    shutil.copy("/bin/sh", init)

    @contextlib.contextmanager
    def start(service):
        namespace = ["unshare", "--user", "--map-root-user", "--pid", "--mount", "--fork", "--mount-proc"]
        with running([*namespace, str(init), "-c", INIT, "init", *service], log=tmp_path / "log") as process:
            for _ in range(100):
                if children := psutil.Process(process.pid).children():
                    break
                time.sleep(0.1)
            enter = [
                "nsenter",
                "--target",
                str(children[0].pid),
                "--user",
                "--preserve-credentials",
                "--pid",
                "--mount",
            ]
            run = lambda *command: subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60)  # noqa: E731
            while run("test", "-e", "/dev/shm/mounted").returncode:
                time.sleep(0.1)
            yield process, run

    return start


@pytest.mark.parametrize("service, seconds", [(["sleep", "300"], 301), (STUBBORN, 601)])
def test_a_service_without_a_successful_check_for_long_is_ended(container, service, seconds):
    check = ("sh", str(DOCKER / "health.sh"), "300")
    with container(service) as (process, run):
        assert (run(*check, "true").returncode, run(*check, "false").returncode) == (0, 1)
        assert run("touch", "-d", "299 seconds ago", "/dev/shm/last-success").returncode == 0
        assert run(*check, "true").returncode == 0 and run(*check, "false").returncode == 1
        assert process.poll() is None
        run("touch", "-d", f"{seconds} seconds ago", "/dev/shm/last-success")
        run(*check, "false")
        process.wait(60)


def test_a_health_check_outside_of_a_container_ends_nothing(tmp_path):
    script = tmp_path / "health.sh"
    text = (DOCKER / "health.sh").read_text().replace("/dev/shm", str(tmp_path)).replace("kill ", "echo would end ")
    script.write_text(text)
    (tmp_path / "last-success").touch()
    os.utime(tmp_path / "last-success", (0, 0))
    checked = subprocess.run(["sh", script, "300", "false"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (1, "", "")


def test_a_flow_worker_is_unhealthy_only_if_its_server_answers(tmp_path):
    """While the server is down, the worker's page reports an error, and a restart would end the flows."""
    script = DOCKER / "flow_worker_health.py"

    def check(page, server):
        environment = {"PREFECT_WORKER_WEBSERVER_PORT": str(page), "PREFECT_API_URL": f"http://127.0.0.1:{server}/api"}
        return subprocess.run([sys.executable, script], env=os.environ | environment, check=False).returncode

    with answering(200) as good, answering(503) as bad:
        nothing = free_port()
        assert (check(good, nothing), check(good, good)) == (0, 0)
        assert (check(bad, nothing), check(bad, bad)) == (0, 0)
        assert (check(bad, good), check(nothing, good)) == (1, 1)


@contextlib.contextmanager
def answering(status):
    """A server on the loopback interface whose every page has this status."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_the_least_recently_used_files_of_a_full_cache_are_deleted(tmp_path):
    now = time.time()
    for folder in ("networks", "inductor"):
        (tmp_path / folder / "deep").mkdir(parents=True)
    ages = {"networks/old": 30, "inductor/deep/older": 40, "networks/deep/recent": 5, "inductor/used": 0}
    for name, days in ages.items():
        (tmp_path / name).write_bytes(os.urandom(1 << 20))
        os.utime(tmp_path / name, (now - days * 86400,) * 2)
    (tmp_path / "networks" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_bytes(bytes(4 << 20))
    folders = [tmp_path / "networks", tmp_path / "inductor", tmp_path / "missing"]
    command = [sys.executable, DOCKER / "limit_cache.py", *folders, "--gigabytes"]

    def left_with(gigabytes):
        limited = subprocess.run([*command, gigabytes], capture_output=True, text=True, check=True)
        return [name for name in ages if (tmp_path / name).exists()], limited.stdout

    assert left_with("0.005") == (list(ages), "")
    left, printed = left_with("0.0025")
    assert left == ["networks/deep/recent", "inductor/used"] and "deleted 0.00 GB" in printed
    # A file that is in use is kept.
    assert left_with("0")[0] == ["inductor/used"] and (tmp_path / "outside").exists()


def as_processes(command: list[str], ports: dict[str, str]) -> list[str]:
    """Return a service's command with hosts of this machine; ``ports`` maps addresses of the file to ports here."""
    words = []
    for word in command:
        for stated, used in ports.items():
            word = word.replace(stated, used)
        words.append(program(word) if word in ("dask", "prefect", "python") else word)
    return words


def wait_until_healthy(service, ports, process, log):
    kind, shell, script, seconds, *test = service["healthcheck"]["test"]
    assert (kind, shell, script, seconds) == ("CMD", "sh", "infra/docker/health.sh", "300")
    test = as_processes(test, ports)
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
            used = {sample for sample in samples_used(ALERTS, DASHBOARD) if sample[0].startswith(f"dask_{part}_")}
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


def test_the_runs_of_a_flow_worker_compute_on_the_dask_cluster(cluster, services, prefect_service, tmp_path):
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "clip.mp4", VideoSpec(frame_count=4))
    with cluster("worker") as (address, _), Client(address) as client, contextlib.ExitStack() as stack:
        client.wait_for_workers(1, timeout=60)
        hosts = {"tcp://scheduler:8786": address, "http://prefect:4200/api": prefect_service.url}
        environments = {
            # There is no proxy with a password in front of this server, and the S3 server is not used.
            name: prefect_service.environment
            | {
                key: hosts.get(value, value)
                for key, value in services[name]["environment"].items()
                if "AUTH" not in key
            }
            | {"PREFECT_WORKER_WEBSERVER_PORT": str(free_port()), "AFFWILD2_METRICS": ""}
            for name in ("deploy", "flow-worker")
        }
        deploy = as_processes(services["deploy"]["command"], {})
        deployed = subprocess.run(
            deploy, env=environments["deploy"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        parameters = prefect_service.deployment("rescore/affwild2")["parameters"]
        assert parameters == {
            "videos": ["/data"],
            "store": "s3://affwild2/store",
            "out": "s3://affwild2/predictions",
        }
        worker = as_processes(services["flow-worker"]["command"], {})
        stack.enter_context(running(worker, log=tmp_path / "flows.log", environment=environments["flow-worker"]))
        places = {"videos": [str(tmp_path / "data")], "store": str(tmp_path / "store"), "out": str(tmp_path / "out")}
        run = prefect_service.start_run("rescore/affwild2", **places, settle_seconds=0)
        ended = prefect_service.end_of(run)
        assert ended["state"]["name"] == "Completed", (tmp_path / "flows.log").read_text()
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter) > 0
        (report,) = (tmp_path / "store" / "reports").glob("rescore-*/index.html")
        assert address in report.read_text()
