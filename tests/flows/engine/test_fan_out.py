"""Work on a scheduler and a worker that were started separately, and that may end during the run."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import threading
import time
from dataclasses import replace

import pytest
from distributed import Client

from data_contracts.store.store import Store
from flows.engine import fan_out as fan_out_module
from flows.engine import progress
from flows.engine.fan_out import fan_out
from flows.engine.stage_summary import StageSummary
from infra import cluster_state, clusters
from infra.cluster_state import ClusterLostError
from infra.clusters import ClusterError, open_cluster, wait_for_cluster
from tests.faults.dask_cluster import ROOT, dask_cluster
from tests.faults.jobs import MEMORY, make, make_jobs

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A worker with four threads and one GPU that is restarted when it ends. Units fail when their worker ends once."""
    logs = tmp_path_factory.mktemp("cluster")
    with dask_cluster(logs, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as cluster:
        cluster.start_worker("--nthreads", "4", "--resources", "GPU=1", "--memory-limit", "1GB", restart=True)
        with Client(cluster.address, timeout="60s") as client:
            client.wait_for_workers(1, timeout=60)
        yield cluster


def run_jobs(cluster, folder, jobs):
    summary = StageSummary("jobs", units=len(jobs))
    with Client(cluster.address, timeout="60s") as client:
        # The previous test may have ended the worker, which needs seconds to start again.
        client.wait_for_workers(1, timeout=60)
    with contextlib.ExitStack() as stack:

        def connect():
            return stack.enter_context(open_cluster(address=cluster.address))

        def reconnect():
            stack.close()
            return wait_for_cluster(connect)

        store = Store(str(folder / "store"))
        fan_out(connect(), store, jobs, make, summary, reconnect=reconnect)
    return summary


def log_of(folder):
    return [line.split() for line in (folder / "log").read_text().splitlines()]


def test_a_gpu_runs_one_unit_at_a_time_for_any_number_of_threads(cluster, tmp_path):
    summary = run_jobs(cluster, tmp_path, make_jobs(tmp_path, 12, seconds=0.05))
    assert summary.done == 12 and len(log_of(tmp_path)) == 12
    times = sorted((float(began), float(ended)) for _, _, began, ended in log_of(tmp_path))
    assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(times))


def test_lines_about_long_jobs_arrive_from_the_workers(cluster, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0)
    monkeypatch.setattr(progress, "_LINE_SHARE", 0)
    summary = run_jobs(cluster, tmp_path, make_jobs(tmp_path, 1, seconds=4))
    assert summary.done == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jobs: job0: ")]
    assert lines and set(lines) <= {f"jobs: job0: {seconds} s left" for seconds in range(5)}


@pytest.mark.parametrize(
    ("ends_with", "fault", "cause"),
    [
        (
            MEMORY,
            "memory",
            r"exceeded its memory limit of 1\.0 GB and was ended, 1 times; start workers with a higher --memory-limit",
        ),
        (
            signal.SIGKILL,
            "memory",
            r"^out of memory: worker .* \(tcp://.*\) was killed 1 times \(SIGKILL\), which the ker",
        ),
        (signal.SIGSEGV, "input", r"^the worker that ran it crashed 1 times \(SIGSEGV\): a decoder or network cannot"),
        (signal.SIGABRT, "other", r"^the worker that ran it ended 1 times \(SIGABRT\): the machine ran out of memory"),
    ],
)
def test_a_unit_that_ends_its_worker_fails_alone(cluster, tmp_path, ends_with, fault, cause):
    """Other units on the same worker are retried alone and succeed. Only a crash of its code is the fault of a unit."""
    summary = run_jobs(cluster, tmp_path, make_jobs(tmp_path, 12, killer=5, ends_with=ends_with))
    assert summary.done == 11 and summary.faults == {"job5": fault}
    assert re.search(cause, summary.failures["job5"])
    assert {name for name, *_ in log_of(tmp_path)} == {f"job{n}" for n in range(12)} - {"job5"}


def test_units_of_a_restarted_scheduler_are_submitted_again(cluster, tmp_path, capsys):
    def restart():
        while not (tmp_path / "log").exists():
            time.sleep(0.01)
        cluster.kill_scheduler()
        cluster.start_scheduler()

    restarting = threading.Thread(target=restart)
    restarting.start()
    summary = run_jobs(cluster, tmp_path, make_jobs(tmp_path, 20))
    restarting.join()
    assert summary.done == 20 and summary.failures == {}
    assert {name for name, *_ in log_of(tmp_path)} == {f"job{n}" for n in range(20)}


@pytest.mark.parametrize("path", ["/nowhere/video.mp4", "video.mp4"])
def test_a_video_that_workers_cannot_read_is_reported_before_any_unit(cluster, tmp_path, path):
    jobs = make_jobs(tmp_path, 600)
    jobs[0] = replace(jobs[0], input_files=(path,))
    advice = "mount it there" if path.startswith("/") else "absolute path"
    with pytest.raises(ClusterError, match=rf"workers that can read .*video\.mp4, got No such file.*{advice}"):
        run_jobs(cluster, tmp_path, jobs)
    assert not (tmp_path / "log").exists() and not list((tmp_path / "store").rglob(".worker_check*"))


def test_a_worker_with_another_version_is_reported(cluster, tmp_path):
    other = shutil.copytree(ROOT / "tasks", tmp_path / "other" / "tasks")
    (other / "units.py").write_text((other / "units.py").read_text() + "# changed\n")
    cluster.environment["PYTHONPATH"] = str(tmp_path / "other")
    worker = cluster.start_worker()
    del cluster.environment["PYTHONPATH"]
    with Client(cluster.address) as client:
        client.wait_for_workers(2, timeout=60)
    with pytest.raises(
        ClusterError, match=r"expected the version of affwild2 that this process runs, got .* on worker tcp"
    ):
        run_jobs(cluster, tmp_path, make_jobs(tmp_path, 600))
    cluster.end_worker(worker)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_scheduler_that_hangs_does_not_hang_the_run(cluster, tmp_path, monkeypatch, comes_back, capsys):
    """Its process is stopped, so that all connections stay open."""
    for module in (cluster_state, fan_out_module):
        monkeypatch.setattr(module, "SILENT_SECONDS", 2.0)
    monkeypatch.setattr(clusters, "_ANSWER_SECONDS", 2)
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "300" if comes_back else "1")
    is_over = threading.Event()

    def hang():
        while not (tmp_path / "log").exists():
            time.sleep(0.01)
        os.kill(cluster.scheduler.pid, signal.SIGSTOP)
        is_over.wait(20 if comes_back else 120)
        os.kill(cluster.scheduler.pid, signal.SIGCONT)

    hanging = threading.Thread(target=hang)
    hanging.start()
    try:
        if comes_back:
            assert run_jobs(cluster, tmp_path, make_jobs(tmp_path, 50)).done == 50
        else:
            with pytest.raises(ClusterLostError, match=r"expected a Dask scheduler at .* no answer for 2 s"):
                run_jobs(cluster, tmp_path, make_jobs(tmp_path, 50))
        assert "the Dask scheduler does not answer" in capsys.readouterr().err
    finally:
        is_over.set()
        hanging.join()


def test_a_cluster_that_does_not_come_back_ends_the_run(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "1")

    def end():
        while not (tmp_path / "log").exists():
            time.sleep(0.01)
        cluster.kill_scheduler()

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(ClusterLostError, match="expected a Dask scheduler at"):
        run_jobs(cluster, tmp_path, make_jobs(tmp_path, 50))
    ending.join()
