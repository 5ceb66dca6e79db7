"""Runs whose process, worker or server ended, on a real Prefect server with a worker."""

import contextlib
import time

import psutil
import pytest

from data_contracts.store.lock import lock_store
from data_contracts.store.store import Store
from tests.prefect_service import serving_prefect
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service
KEPT = "finished work is kept; retry this run, or start another"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("died")
    (folder / "videos").mkdir()
    write_video(folder / "videos/clip.mp4", VideoSpec(frame_count=4))
    return folder


@pytest.fixture(scope="module")
def service(folder):
    with serving_prefect(folder) as service:
        service.deploy(folder)
        yield service


def locked(folder):
    """Lock the store, so that runs wait for it."""
    return lock_store(Store(str(folder / "store")), on_wait=print)


def process_of(run):
    """Return the process of a run. The worker sets the variable, which the process's workers inherit."""
    deadline = time.monotonic() + 60
    while True:
        found = processes_of(run)
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in found:
                if any("prefect.engine" in word for word in one.cmdline()):
                    return one
        assert time.monotonic() < deadline, found


def processes_of(run):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == run:
                found.append(process)
    return found


def start_waiting_run(service):
    """Start a run that waits for its store; return its id and its process."""
    text = "is using this store; waiting until it ends"
    count = service.worker_log().count(text)
    run = service.start_run("extract/affwild2")
    service.wait_for_state(run, "Running")
    wait_for_log(service, text, count + 1)
    return run, process_of(run)


def wait_for_log(service, text, count=1):
    deadline = time.monotonic() + 60
    while service.worker_log().count(text) < count:
        assert time.monotonic() < deadline, service.worker_log()
        time.sleep(0.2)


def assert_ended(service, run, state, message):
    ended = service.end_of(run)["state"]
    assert (ended["name"], ended["message"]) == (state, message)
    assert_no_process(run)


def assert_no_process(run):
    _, alive = psutil.wait_procs(processes_of(run), timeout=60)
    assert alive == []


def test_a_run_ends_as_crashed_with_its_worker_or_by_sigterm_and_a_retry_completes_it(service, folder):
    """The runs wait for their store, which this process locks."""
    with service.worker() as worker:
        with locked(folder):
            run, process = start_waiting_run(service)
            process.terminate()
            assert_ended(service, run, "Crashed", f"interrupted by SIGTERM; {KEPT}")
            run, _ = start_waiting_run(service)
            worker.kill()
            assert_ended(service, run, "Crashed", f"interrupted by the end of the worker that started it; {KEPT}")
        with service.worker():
            retried = service.prefect("flow-run", "retry", run)
            assert retried.returncode == 0, retried.stdout + retried.stderr
            assert service.wait_for_state(run, "Completed")["run_count"] == 2
    assert "Traceback" not in service.worker_log() and "BrokenPipe" not in service.worker_log()


def test_a_stopped_worker_lets_its_run_finish_and_then_ends(service, folder):
    with service.worker() as worker:
        with locked(folder):
            run, _ = start_waiting_run(service)
            worker.terminate()
            wait_for_log(service, "Received SIGTERM")
        assert service.end_of(run)["state"]["name"] == "Completed"
        worker.wait(timeout=60)


def test_a_cancelled_run_ends_as_cancelled(service, folder):
    with service.worker(), locked(folder):
        run, _ = start_waiting_run(service)
        cancelled = service.prefect("flow-run", "cancel", run)
        assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
        ended = service.end_of(run)
        assert ended["state"]["name"] == "Cancelled"
        assert_no_process(run)
