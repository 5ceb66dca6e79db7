"""Work on a scheduler and a worker that were started by hand, and what may become of them meanwhile."""

import contextlib
import itertools
import shutil
import threading
import time
from dataclasses import replace

import pytest
from distributed import Client

from data_contracts.store.store import Store
from flows.engine.fan_out import fan_out
from flows.engine.stage_summary import StageSummary
from infra.cluster_state import ClusterLostError
from infra.clusters import ClusterError, open_cluster, wait_for_cluster
from tests.faults.dask_cluster import ROOT, dask_cluster
from tests.faults.jobs import make, make_jobs


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A worker of four threads that offers one GPU, started again when it ends; its first death is blamed."""
    logs = tmp_path_factory.mktemp("cluster")
    with dask_cluster(logs, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as cluster:
        cluster.start_worker("--nthreads", "4", "--resources", "GPU=1", restart=True)
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


def test_one_unit_at_a_time_on_a_gpu_whatever_the_threads_of_its_worker(cluster, tmp_path):
    summary = run_jobs(cluster, tmp_path, make_jobs(tmp_path, 12, seconds=0.05))
    assert summary.done == 12 and len(log_of(tmp_path)) == 12
    times = sorted((float(began), float(ended)) for _, _, began, ended in log_of(tmp_path))
    assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(times))


def test_a_unit_that_ends_its_worker_takes_no_neighbour_along(cluster, tmp_path):
    """Others wait on the same worker, and are blamed with it; alone, they do well."""
    summary = run_jobs(cluster, tmp_path, make_jobs(tmp_path, 12, killer=5))
    assert summary.done == 11 and list(summary.failures) == ["job5"]
    assert "the worker that ran it ended 1 times" in summary.failures["job5"]
    assert {name for name, *_ in log_of(tmp_path)} == {f"job{n}" for n in range(12)} - {"job5"}


@pytest.mark.service
def test_a_scheduler_that_is_started_again(cluster, tmp_path, capsys):
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
def test_a_video_that_workers_do_not_see(cluster, tmp_path, path):
    jobs = make_jobs(tmp_path, 600)
    jobs[0] = replace(jobs[0], input_files=(path,))
    advice = "mount it there" if path.startswith("/") else "absolute path"
    with pytest.raises(ClusterError, match=rf"workers that see .*video\.mp4, got No such file.*{advice}"):
        run_jobs(cluster, tmp_path, jobs)
    assert not (tmp_path / "log").exists() and not list((tmp_path / "store").rglob(".worker_check*"))


@pytest.mark.service
def test_a_worker_with_another_version(cluster, tmp_path):
    other = shutil.copytree(ROOT / "tasks", tmp_path / "other" / "tasks")
    (other / "units.py").write_text((other / "units.py").read_text() + "# changed\n")
    cluster.environment["PYTHONPATH"] = str(tmp_path / "other")
    worker = cluster.start_worker()
    del cluster.environment["PYTHONPATH"]
    with Client(cluster.address) as client:
        client.wait_for_workers(2, timeout=60)
    with pytest.raises(ClusterError, match=r"expected affwild2 of the version that runs here, got .* on worker tcp"):
        run_jobs(cluster, tmp_path, make_jobs(tmp_path, 600))
    cluster.end_worker(worker)
    assert not (tmp_path / "log").exists()


@pytest.mark.service
def test_a_cluster_that_is_gone_for_good_ends_the_run(cluster, tmp_path, monkeypatch):
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
