"""Some cases of ``tests/faults/interruption_matrix.py``, a full disk, and two runs at once."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from distributed import Client

from data_contracts.store.lock import lock_store
from data_contracts.store.store import Store
from flows.extract import extract
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tests.faults.interruption_matrix import CODES, arguments_of, read_results
from tests.faults.interruptions import count_finished, interrupt
from tests.processes import program


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted") / "data"
    generate_demo_data(folder, params=DemoDataParams(2, 0, 0, frames=24))
    (folder / "videos" / "corrupt.mp4").unlink()
    return folder


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory, dask_address):
    store = tmp_path_factory.mktemp("uninterrupted") / "store"
    extract(data, str(store), dask_address=dask_address)
    return read_results(store)


@pytest.mark.parametrize(
    ("dataset", "victim", "workers"),
    [("faces", "command", 2), ("features", "Ctrl-C", 1)],
)
def test_a_stopped_run_leaves_no_process_and_the_next_run_has_the_same_results(
    data, uninterrupted, tmp_path, dask_address, dataset, victim, workers
):
    """The number of workers of the second run differs."""
    store = tmp_path / "store"
    arguments = arguments_of("extract", data, store, workers=workers)
    ended = interrupt(arguments, store, dataset=dataset, units=1, victim=victim)
    assert ended.code in CODES[victim] and ended.orphans == [], ended
    if victim == "Ctrl-C":
        assert "interrupted; finished work is kept" in ended.errors
    if victim != "command":
        assert "Traceback" not in ended.errors, ended.errors
    found = read_results(store)
    assert found.items() <= uninterrupted.items()
    extract(data, str(store), dask_address=dask_address)
    assert read_results(store) == uninterrupted


def test_a_second_run_waits_for_the_first(data, uninterrupted, tmp_path, dask_address, capsys):
    store, errors = str(tmp_path / "store"), ""
    runs = [threading.Thread(target=extract, args=(data, store), kwargs={"dask_address": dask_address}) for _ in "ab"]
    with lock_store(Store(store), on_wait=print):
        for run in runs:
            run.start()
        started = time.monotonic()
        while errors.count("is using this store; waiting until it ends") < 2 and time.monotonic() - started < 300:
            time.sleep(0.1)
            errors += capsys.readouterr().err
        assert read_results(Path(store)) == {}
    for run in runs:
        run.join()
    assert errors.count("is using this store; waiting until it ends") == 2
    assert read_results(Path(store)) == uninterrupted


def test_a_full_disk_is_reported_in_one_line(data, tmp_path):
    """The store is on a small file system in a mount namespace that ends with the command."""
    store = tmp_path / "store"
    store.mkdir()
    command = f"'{program('affwild2')}' extract '{data}' --store '{store}' --quiet"
    script = f"mount -t tmpfs -o size=150k tmpfs '{store}' && exec {command}"
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    finished = subprocess.run(
        [*namespace, "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = finished.stderr.strip().splitlines()
    assert finished.returncode == 2 and f"expected space to write {store}/" in line, finished.stderr
    assert shutil.disk_usage(store).total > 1 << 20


def test_a_killed_worker_is_replaced(data, uninterrupted, tmp_path, dask_address):
    store = tmp_path / "store"
    run = threading.Thread(target=extract, args=(data, str(store)), kwargs={"dask_address": dask_address})
    run.start()
    while count_finished(store / "videos") < 1:
        time.sleep(0.01)
    with Client(dask_address) as client:
        os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)
        run.join()
        assert read_results(store) == uninterrupted
        client.wait_for_workers(2)
