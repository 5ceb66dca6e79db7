"""Tests of the worker processes of a local cluster: their parent and their environment."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra import worker_processes
from infra.clusters import add_workers, open_cluster


@pytest.fixture(scope="module")
def client():
    with open_cluster(workers=2, units=1, modules=worker_processes.WORKER_MODULES) as client:
        yield client


def facts():
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "environment": dict(os.environ),
        "unwanted": {"prefect", "prometheus_client"} & set(sys.modules),
    }


def facts_of_workers(client):
    """Facts of all workers that answer: a worker that was killed may still be known to the scheduler."""
    return client.run(facts, on_error="ignore").values()


def test_the_fork_server_has_one_thread(client):
    """A fork copies one thread only: locks held by other threads would never be released."""
    (worker,) = client.run(facts).values()
    parent = psutil.Process(worker["parent"])
    assert parent.ppid() == os.getpid() and "forkserver" in " ".join(parent.cmdline())
    assert parent.num_threads() == 1
    assert not worker["unwanted"]


def test_workers_start_with_memory_and_thread_settings(client):
    (worker,) = client.run(facts).values()
    assert worker["environment"]["MALLOC_TRIM_THRESHOLD_"] == "4294967296"
    assert worker["environment"]["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")
    assert "MALLOC_TRIM_THRESHOLD_" not in os.environ


def test_workers_are_added_for_units_and_a_killed_worker_is_replaced(client):
    add_workers(client, workers=2, units=1)
    assert len(client.cluster.worker_spec) == 1
    add_workers(client, workers=2, units=50)
    client.wait_for_workers(2, timeout=120)
    killed, other = sorted(worker["pid"] for worker in facts_of_workers(client))
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while len(after := {worker["pid"] for worker in facts_of_workers(client)} - {killed}) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert other in after


def test_a_killed_fork_server_restarts_with_the_same_environment(client):
    """Otherwise its workers would run other numbers of threads and compute other last digits."""
    old_workers = {worker["pid"]: worker["parent"] for worker in facts_of_workers(client)}
    (old_server,) = set(old_workers.values())
    for pid in (old_server, *old_workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while not (new := [worker for worker in facts_of_workers(client) if worker["pid"] not in old_workers]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for worker in new:
        assert "forkserver" in " ".join(psutil.Process(worker["parent"]).cmdline())
        assert worker["environment"]["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")
        assert worker["environment"]["MALLOC_TRIM_THRESHOLD_"] == "4294967296"


@pytest.mark.parametrize(
    ("places", "is_new"),
    [
        ({"store": "{tmp}/new"}, True),
        ({"store": None, "out": Path("{tmp}/new")}, True),
        ({"store": None, "out": Path("{tmp}")}, False),
        ({"store": "{tmp}/store"}, False),
        ({"store": "s3://bucket/new"}, False),
        ({"store": "{tmp}/new", "dask_address": "tcp://127.0.0.1:8786"}, False),
    ],
)
def test_workers_are_prepared_at_once_if_the_store_is_new(tmp_path, monkeypatch, places, is_new):
    (tmp_path / "store").mkdir()
    started = []
    monkeypatch.setattr(worker_processes, "start_forking", started.append)
    filled = {k: type(v)(str(v).format(tmp=tmp_path)) if v else None for k, v in places.items()}
    worker_processes.start_forking_for_new_store(**filled)
    assert started == ([worker_processes.WORKER_MODULES] if is_new else [])


def test_workers_take_the_settings_and_credentials_of_their_run_and_no_other_variables(client, monkeypatch):
    """The process that they are forked from has started with the first run."""
    values = {"AWS_ACCESS_KEY_ID": "set later", "AFFWILD2_ENGINE": "torch", "MALLOC_TRIM_THRESHOLD_": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with open_cluster(workers=1) as other:
        (worker,) = other.run(facts).values()
    found = {name: worker["environment"].get(name) for name in values}
    assert found == values | {"MALLOC_TRIM_THRESHOLD_": "4294967296"}
