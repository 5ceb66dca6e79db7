"""Runs whose process, worker or server ended, on a real Prefect server with a worker."""

import contextlib
import http.server
import threading
import time

import psutil
import pytest

from data_contracts.store.lock import lock_store
from data_contracts.store.store import Store
from tests.prefect_service import serving_prefect
from tests.video_factory import VideoSpec, write_video

pytestmark = pytest.mark.service
KEPT = "finished work is kept; retry this run, or start another"
LOST = f"the process of this run, its worker or their machine has ended without a report; {KEPT}"
TWO_MINUTES = 120


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
    deadline = time.monotonic() + 300
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
    deadline = time.monotonic() + 300
    while service.worker_log().count(text) < count:
        assert time.monotonic() < deadline, service.worker_log()
        time.sleep(0.2)


def assert_ended(service, run, state, message):
    ended = service.end_of(run)["state"]
    assert (ended["name"], ended["message"]) == (state, message)
    assert_no_process(run)


def assert_no_process(run):
    _, alive = psutil.wait_procs(processes_of(run), timeout=300)
    assert alive == []


def test_a_run_ends_as_crashed_with_its_worker_or_by_sigterm_and_a_retry_completes_it(service, folder):
    """The runs wait for their store, which this process locks."""
    with service.worker() as worker:
        with locked(folder):
            run, process = start_waiting_run(service)
            # Service managers send the signal to the worker too, which sends it again.
            while process.is_running():
                process.terminate()
                psutil.wait_procs([process], timeout=0.2)
            assert_ended(service, run, "Crashed", f"interrupted by SIGTERM; {KEPT}")
            run, _ = start_waiting_run(service)
            worker.kill()
            assert_ended(service, run, "Crashed", f"interrupted by the end of the worker that started it; {KEPT}")
        with service.worker():
            retried = service.prefect("flow-run", "retry", run)
            assert retried.returncode == 0, retried.stdout + retried.stderr
            assert service.wait_for_state(run, "Completed")["run_count"] == 2
    assert "Traceback" not in service.worker_log() and "BrokenPipe" not in service.worker_log()


def test_a_stopped_worker_ends_and_its_run_does_not_stay_running(service, folder):
    """Prefect's worker kills its runs, or waits for them."""
    with service.worker() as worker:
        with locked(folder):
            run, _ = start_waiting_run(service)
            worker.terminate()
        ended = service.end_of(run)["state"]
        assert ended["name"] == "Completed" or (ended["name"], ended["message"]) == ("Crashed", LOST)
        worker.wait(timeout=300)


def test_a_killed_and_a_cancelled_run_end_with_all_processes(service, folder):
    with service.worker(), locked(folder):
        run, process = start_waiting_run(service)
        process.kill()
        assert service.end_of(run)["state"]["name"] == "Crashed"
        assert_no_process(run)
        run, _ = start_waiting_run(service)
        cancelled = service.prefect("flow-run", "cancel", run)
        assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
        assert service.end_of(run)["state"]["name"] == "Cancelled"
        assert_no_process(run)


def test_a_run_lost_with_its_worker_becomes_crashed_is_notified_and_lets_the_next_one_start(service, folder):
    """The block is saved after a deploy, so that the second deploy creates the notifications."""
    with receiving_posts() as (url, posts):
        service.run_python(
            "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
            f"block = Block(name='test', url={url!r}, json_data={{'text': '{{{{subject}}}}: {{{{body}}}}'}})\n"
            "block.save('affwild2-notify')"
        )
        service.deploy(folder)
        with service.worker() as worker, locked(folder):
            run, process = start_waiting_run(service)
            worker.kill()
            process.kill()
            killed = time.monotonic()
            next_run = service.start_run("extract/affwild2")
            with service.worker():
                assert service.end_of(run)["state"]["message"] == LOST
                assert time.monotonic() - killed < TWO_MINUTES
                service.wait_for_state(next_run, "Running")
        deadline = time.monotonic() + 300
        while not any(LOST in post for post in posts):
            assert time.monotonic() < deadline, posts
            time.sleep(0.2)
    (post,) = [post for post in posts if LOST in post]
    assert "Crashed" in post and "extract" in post


def test_a_run_lost_with_server_and_worker_becomes_crashed_when_they_start_again(tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/clip.mp4", VideoSpec(frame_count=4))
    with locked(tmp_path), serving_prefect(tmp_path) as service:
        service.deploy(tmp_path)
        with service.worker() as worker:
            run, process = start_waiting_run(service)
            # Otherwise the run would end as Crashed with its worker.
            process.suspend()
            worker.kill()
            process.kill()
    with serving_prefect(tmp_path) as service, service.worker():
        assert service.end_of(run)["state"]["message"] == LOST
        retried = service.prefect("flow-run", "retry", run)
        assert retried.returncode == 0, retried.stdout + retried.stderr
        assert service.wait_for_state(run, "Completed")["run_count"] > 1


@contextlib.contextmanager
def receiving_posts():
    """Serve HTTP; yield the URL and the list of all bodies that were posted to it."""
    posts = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            posts.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", posts
        finally:
            server.shutdown()
