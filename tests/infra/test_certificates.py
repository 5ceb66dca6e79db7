"""Tests of certificates with a real scheduler and worker."""

import os
import shlex
import subprocess
import sys

import pytest
from distributed import Client, Security

from infra.certificates import tls_settings, write_certificate
from tests.infra.open_ports import accepts, open_to_anyone, ports_of
from tests.infra.operated import running
from tests.processes import free_port, program, run_command
from tests.video_factory import VideoSpec, write_video

PAGES_OFF = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
NO_PAGES = {f"DASK_DISTRIBUTED__{part}__HTTP__ROUTES": "[]" for part in ("SCHEDULER", "WORKER")}


def read_settings_file(path):
    return dict(shlex.split(line)[0].split("=", 1) for line in path.read_text().splitlines())


def test_only_the_owner_can_read_the_files(tmp_path):
    folder = tmp_path / "with a space"
    settings = write_certificate(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert read_settings_file(settings) == tls_settings(folder)
    sourced = subprocess.run(
        ["sh", "-c", f"set -a; . {shlex.quote(str(settings))}; exec env"], capture_output=True, text=True, check=True
    )
    assert {f"{name}={value}" for name, value in tls_settings(folder).items()} <= set(sourced.stdout.splitlines())


def test_an_existing_certificate_is_kept(tmp_path):
    write_certificate(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = subprocess.run(
        [sys.executable, "-m", "infra.certificates", tmp_path], capture_output=True, text=True, check=False
    )
    assert again.returncode != 0 and "exists" in again.stderr and again.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.service
def test_only_clients_with_the_certificate_reach_the_scheduler_and_its_worker(tmp_path):
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "clip.mp4", VideoSpec(frame_count=4))
    settings = read_settings_file(write_certificate(tmp_path / "ours"))
    write_certificate(tmp_path / "other")
    ours, other = (tmp_path / name / "dask-tls.pem" for name in ("ours", "other"))
    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    scheduler = [program("dask"), "scheduler", "--host", "127.0.0.1", "--port", str(port), *PAGES_OFF]
    worker = [program("dask"), "worker", address, "--nworkers", "1", "--nthreads", "1", *PAGES_OFF]
    with (
        running(scheduler, log=tmp_path / "scheduler.log", environment=settings | NO_PAGES) as first,
        running(worker, log=tmp_path / "worker.log", environment=settings | NO_PAGES) as second,
    ):
        security = Security(require_encryption=True, tls_ca_file=str(ours), tls_client_cert=str(ours))
        with Client(address, timeout="60s", security=security) as client:
            client.wait_for_workers(1, timeout=60)
            (connected,) = client.scheduler_info(n_workers=-1)["workers"]
        assert connected.startswith("tls://") and accepts("127.0.0.1", port, certificate=ours)
        ports = ports_of(first.pid) | ports_of(second.pid)
        assert len(ports) >= 4 and open_to_anyone(ports, other_certificate=other) == []
        arguments = ("extract", tmp_path / "data", "--store", tmp_path / "store", "--dask-address", address)
        refused = run_command(*arguments)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
        allowed = run_command(*arguments, environment=settings)
        assert allowed.returncode == 0, allowed.stderr


@pytest.mark.service
def test_local_workers_use_the_certificate_too(tmp_path):
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "clip.mp4", VideoSpec(frame_count=4))
    settings = read_settings_file(write_certificate(tmp_path / "ours"))
    extracted = run_command("extract", tmp_path / "data", "--store", tmp_path / "store", environment=settings)
    assert extracted.returncode == 0, extracted.stderr
    assert os.listdir(tmp_path / "store" / "features")
