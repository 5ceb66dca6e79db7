"""Tests of the Slurm files: they are linted, dask-jobqueue renders their jobs, and the job script runs with an ``srun``
that starts its tasks on this machine."""

import importlib.util
import os
import re
import subprocess

import pytest

from infra.worker_processes import WORKER_ENVIRONMENT
from tests.infra.operated import BIN, FILES, ROOT, lint
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service

SLURM = FILES / "slurm"
SBATCH = SLURM / "affwild2.sbatch"


@pytest.fixture(scope="module")
def start_cluster():
    spec = importlib.util.spec_from_file_location("start_cluster", SLURM / "start_cluster.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exported(script: str) -> dict[str, str]:
    lines = re.findall(r"^export (.*)$", script, re.M)
    return dict(word.split("=", 1) for line in lines for word in line.split() if "=" in word)


@pytest.mark.parametrize("kind", ["gpu", "cpu"])
def test_a_job_requests_one_device_and_starts_workers_with_one_thread(start_cluster, kind):
    with start_cluster.make_cluster(kind, host="127.0.0.1") as cluster:
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


def test_the_job_script_runs_the_command_on_its_workers_and_leaves_no_files(tmp_path):
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "clip.mp4", VideoSpec(frame_count=4))
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\nCUDA_VISIBLE_DEVICES=3 exec "$@"\n')
    srun.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{BIN}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_CPUS_PER_TASK": "2",
        "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "info",
    }
    command = ["bash", SBATCH, "extract", tmp_path / "data", "--store", tmp_path / "store"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "store" / "features").is_dir()
    assert WORKER_ENVIRONMENT.items() <= exported(SBATCH.read_text()).items()
    assert not list(tmp_path.glob(".affwild2-*"))
    assert "GPU=1" in SBATCH.read_text()
