"""Tests of the Slurm files: they are linted, dask-jobqueue renders their jobs, and the job script runs with an ``srun``
that starts its tasks on this machine."""

import copy
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import dask
import pytest

from infra.certificates import write_certificate
from infra.worker_processes import WORKER_ENVIRONMENT
from tests.infra.open_ports import accepts, open_to_anyone, ports_of
from tests.infra.operated import BIN, FILES, ROOT, lint, running
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service

SLURM = FILES / "slurm"
SBATCH = SLURM / "affwild2.sbatch"


@pytest.fixture(scope="module")
def start_cluster():
    """Yield the module of the script; restore Dask's configuration, which it changes, afterwards."""
    configuration, defaults = copy.deepcopy(dask.config.config), list(dask.config.defaults)
    spec = importlib.util.spec_from_file_location("start_cluster", SLURM / "start_cluster.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    dask.config.defaults[:] = defaults
    dask.config.config.clear()
    dask.config.config.update(configuration)


def exported(script: str) -> dict[str, str]:
    lines = re.findall(r"^export (.*)$", script, re.M)
    return dict(word.split("=", 1) for line in lines for word in line.split() if "=" in word)


@pytest.mark.parametrize("kind", ["gpu", "cpu"])
def test_a_job_requests_one_device_and_starts_workers_with_one_thread(start_cluster, kind, tmp_path):
    write_certificate(tmp_path)
    with start_cluster.make_cluster(kind, certificate=tmp_path, host="127.0.0.1") as cluster:
        script = cluster.job_script()
        address = cluster.scheduler_address
    assert WORKER_ENVIRONMENT.items() <= exported(script).items()
    assert ("#SBATCH --gres=gpu:1" in script) == (kind == "gpu")
    (worker,) = [line for line in script.splitlines() if "distributed.cli.dask_worker" in line]
    assert f" {address} " in worker and "--nthreads 1 " in worker and ("--nworkers 4 " in worker) == (kind == "gpu")
    assert (" --resources GPU=1 " in f"{worker} ") == (kind == "gpu")
    limit, job = re.search(r"--memory-limit (\d+)\.00GiB", worker), re.search(r"#SBATCH --mem=(\d+)G", script)
    assert int(limit[1]) * (4 if kind == "gpu" else 1) < int(job[1])
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_linters_find_nothing():
    assert lint("shellcheck", SBATCH) == ""


@pytest.fixture
def environment(tmp_path):
    """Two tasks of a job: ``srun`` and ``sbatch`` start them on this machine, as on a node with a GPU."""
    scripts = {
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nCUDA_VISIBLE_DEVICES=3 exec "$@"\n',
        # The script is removed afterwards.
        "sbatch": f'cp "$1" {tmp_path}/job.sh\nbash {tmp_path}/job.sh > {tmp_path}/job.log 2>&1 &\n'
        'echo "Submitted batch job 1"\n',
        "scancel": "true\n",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}:{BIN}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_CPUS_PER_TASK": "2",
        "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "info",
    }


def wait_for(path, process, *, text=""):
    for _ in range(600):
        if path.is_file() and text in path.read_text() and path.stat().st_size:
            return path.read_text()
        assert process.poll() is None
        time.sleep(0.2)
    raise AssertionError(f"no {path}")


def test_other_users_of_the_cluster_cannot_connect_to_a_job(environment, tmp_path):
    other = write_certificate(tmp_path / "other").with_suffix(".pem")
    command = tmp_path / "affwild2"
    command.write_text(f'#!/bin/sh\necho "$@" "$AFFWILD2_DASK_ADDRESS" > {tmp_path}/arguments\nexec sleep 300\n')
    command.chmod(0o755)
    with running(["bash", str(SBATCH), "status"], log=tmp_path / "log", environment=environment) as job:
        name, address = wait_for(tmp_path / "arguments", job).split()
        assert name == "status" and address.startswith("tls://")
        (folder,) = tmp_path.glob(".affwild2-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert json.loads((folder / "scheduler.json").read_text())["address"] == address
        ports = ports_of(job.pid)
        # A scheduler, and two workers with their nannies; a page for each process that is not a nanny.
        assert len(ports) >= 8 and open_to_anyone(ports, other_certificate=other) == []
        host, port = address.removeprefix("tls://").split(":")
        assert accepts(host, int(port), certificate=folder / "dask-tls.pem")
        job.send_signal(signal.SIGTERM)
        assert job.wait(60) == 143
        assert not folder.exists()


def test_other_users_cannot_connect_to_a_cluster_of_jobs(environment, tmp_path):
    other = write_certificate(tmp_path / "other").with_suffix(".pem")
    options = ["gpu", "--jobs", "1", "--host", "127.0.0.1", "--certificates", str(tmp_path)]
    command = [sys.executable, str(SLURM / "start_cluster.py"), *options]
    log = tmp_path / "log"
    with running(command, log=log, environment=environment) as cluster:
        printed = wait_for(log, cluster, text="export AFFWILD2_DASK_ADDRESS=")
        (setting,) = re.findall(r"^set -a; .*$", printed, re.M)
        (address,) = re.findall(r"^export AFFWILD2_DASK_ADDRESS=(tls://.*)$", printed, re.M)
        asked = "import sys; from distributed import Client; Client(sys.argv[1]).wait_for_workers(4, timeout=90)"
        with_certificate = f"{setting}; {shlex.quote(sys.executable)} -c '{asked}' {address}"
        connected = subprocess.run(["sh", "-c", with_certificate], capture_output=True, text=True, check=False)
        assert connected.returncode == 0, connected.stderr + (tmp_path / "job.log").read_text()
        ports = ports_of(cluster.pid)
        assert len(ports) >= 10
        assert open_to_anyone(ports, other_certificate=other) == []
        cluster.send_signal(signal.SIGTERM)
        assert cluster.wait(60) == 143
        assert not list(tmp_path.glob(".affwild2-*"))


def test_the_job_script_runs_the_command_on_its_workers_and_leaves_no_files(environment, tmp_path):
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "clip.mp4", VideoSpec(frame_count=4))
    command = ["bash", SBATCH, "extract", tmp_path / "data", "--store", tmp_path / "store"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "store" / "features").is_dir()
    assert WORKER_ENVIRONMENT.items() <= exported(SBATCH.read_text()).items()
    assert not list(tmp_path.glob(".affwild2-*"))
    assert "GPU=1" in SBATCH.read_text()
