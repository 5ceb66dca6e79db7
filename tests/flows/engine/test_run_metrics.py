"""The metrics of real commands, read as Prometheus reads them."""

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from data_contracts.errors import InputError, printable
from data_contracts.store.lock import lock_store
from data_contracts.store.store import Store
from flows.engine import run_metrics
from flows.engine.run_metrics import OUTCOMES, measured_run
from tests.processes import free_port, program, run_command


@pytest.fixture
def folder(tmp_path):
    for name in ("metrics", "videos", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"x" * 3000)
    os.utime(tmp_path / "videos" / "bad.mp4", (1e9, 1e9))
    return tmp_path


def rescore(folder, videos, target=None, **environment):
    """Run ``rescore`` of the folder ``videos``; return its exit code and standard error."""
    places = ["--store", folder / "store", "--out", folder / "out", "--backbone", "emotion_lite0", "--workers", "1"]
    environment["AFFWILD2_METRICS"] = str(target or folder / "metrics")
    ended = run_command("rescore", folder / videos, *places, environment=environment)
    return ended.returncode, ended.stderr


def read_metrics(folder, store="store"):
    """Return name and labels -> value of the files that belong to a store."""
    texts = [path.read_text() for path in (folder / "metrics").glob("*.prom")]
    samples = [one for text in texts for family in text_string_to_metric_families(text) for one in family.samples]
    return {
        (
            one.name.removeprefix("affwild2_"),
            *(v for k, v in sorted(one.labels.items()) if k not in ("flow", "store")),
        ): one.value
        for one in samples
        if one.labels["store"] == str(folder / store)
    }


def outcome_of(metrics):
    assert {name for kind, *name in metrics if kind == "run_outcome" for name in name} == set(OUTCOMES)
    (outcome,) = [name[1] for name, value in metrics.items() if name[0] == "run_outcome" and value]
    return outcome


def test_a_success_outlives_runs_that_fail_or_are_refused(folder):
    began = time.time()
    assert rescore(folder, "empty")[0] == 0
    first = read_metrics(folder)
    assert outcome_of(first) == "succeeded"
    assert began <= first["run_start_timestamp_seconds",] < first["run_last_success_timestamp_seconds",] <= time.time()
    assert first["run_last_success_timestamp_seconds",] == first["run_end_timestamp_seconds",]

    assert rescore(folder, "videos")[0] == 1
    second = read_metrics(folder)
    assert outcome_of(second) == "some_failed"
    assert second["run_end_timestamp_seconds",] > second["run_last_success_timestamp_seconds",]
    assert second["run_last_success_timestamp_seconds",] == first["run_last_success_timestamp_seconds",]
    assert second["stage_units", "failed", "index_videos"] == second["run_inputs", "failed"] == 1
    assert second["run_inputs", "done"] == second["stage_rows", "index_videos"] == 0
    assert 0 < second["stage_duration_seconds", "index_videos"] < second["run_duration_seconds",]

    assert rescore(folder, "missing")[0] == 2
    third = read_metrics(folder)
    assert outcome_of(third) == "refused"
    assert third["run_start_timestamp_seconds",] > second["run_end_timestamp_seconds",]
    assert third["run_last_success_timestamp_seconds",] == first["run_last_success_timestamp_seconds",]
    # What the last complete run found is still true.
    assert third["run_inputs", "failed"] == 1


@pytest.mark.service
@pytest.mark.parametrize(("number", "outcome"), [(signal.SIGTERM, "interrupted"), (signal.SIGKILL, None)])
def test_a_run_that_was_ended_is_told_from_one_that_was_killed(folder, number, outcome):
    store = folder / "store"
    command = [program("affwild2"), "extract", str(folder / "videos"), "--store", str(store)]
    environment = os.environ | {"AFFWILD2_METRICS": str(folder / "metrics")}
    with lock_store(Store(str(store)), on_wait=print):
        run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert "is using this store" in run.stderr.readline()
        run.send_signal(number)
        run.communicate(timeout=300)
    found = read_metrics(folder)
    if outcome:
        assert (
            outcome_of(found) == outcome and found["run_end_timestamp_seconds",] > found["run_start_timestamp_seconds",]
        )
    else:
        assert {name for name, *_ in found} == {"run_start_timestamp_seconds", "run_alive_timestamp_seconds"}


def test_a_run_that_lasts_shows_that_it_is_alive(folder, monkeypatch):
    monkeypatch.setenv("AFFWILD2_METRICS", str(folder / "metrics"))
    monkeypatch.setattr(run_metrics, "_INTERVAL_SECONDS", 0.05)
    with measured_run("extract", {"store": str(folder / "store")}):
        started, deadline = read_metrics(folder)["run_start_timestamp_seconds",], time.monotonic() + 120
        while read_metrics(folder)["run_alive_timestamp_seconds",] < started + 0.1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "run_outcome" not in {name for name, *_ in read_metrics(folder)}
    alive = read_metrics(folder)["run_alive_timestamp_seconds",]
    time.sleep(0.2)
    assert read_metrics(folder)["run_alive_timestamp_seconds",] == alive


def test_nothing_is_published_after_the_end_of_a_run(folder, monkeypatch):
    """The run ends while the thread that publishes at intervals is about to do so."""
    monkeypatch.setenv("AFFWILD2_METRICS", str(folder / "metrics"))
    measurement, at_the_end = run_metrics._Measurement("extract", str(folder / "store")), []

    class EndsAfterAWait(threading.Event):
        def wait(self, timeout=None):
            if self.is_set():
                return True
            measurement.end("succeeded")
            at_the_end.append(read_metrics(folder))
            return False

    measurement._ended = EndsAfterAWait()
    measurement._publish_at_intervals()
    assert [read_metrics(folder)] == at_the_end


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(InputError("x"), "refused"), (OSError(28, "No space left on device"), "refused"), (KeyError("x"), "crashed")],
)
def test_the_outermost_flow_is_the_run_and_its_error_the_outcome(folder, monkeypatch, error, outcome):
    monkeypatch.setenv("AFFWILD2_METRICS", str(folder / "metrics"))
    store = {"store": str(folder / "store")}
    with pytest.raises(type(error)), measured_run("demo", store), measured_run("extract", {"store": "other"}):
        raise error
    assert outcome_of(read_metrics(folder)) == outcome
    assert len(list((folder / "metrics").iterdir())) == 1


def test_each_flow_and_store_has_its_own_file_and_a_damaged_file_is_replaced(folder, monkeypatch):
    monkeypatch.setenv("AFFWILD2_METRICS", str(folder / "metrics"))
    for flow, store in (("extract", "a"), ("extract", "b"), ("rescore", "a")):
        with measured_run(flow, {"store": str(folder / store)}):
            pass
    paths = sorted((folder / "metrics").iterdir())
    assert [path.name.split("_")[1] for path in paths] == ["extract", "extract", "rescore"]
    paths[0].write_text("affwild2_run_start_timestamp_seconds{flow=")
    for store in "ab":
        with measured_run("extract", {"store": str(folder / store)}):
            pass
    assert [outcome_of(read_metrics(folder, store)) for store in "ab"] == ["succeeded", "succeeded"]


def test_a_store_with_any_name_has_metrics(folder, monkeypatch):
    monkeypatch.setenv("AFFWILD2_METRICS", str(folder / "metrics"))
    name = os.fsdecode(b'caf\xe9 "1"\n\\x')
    with measured_run("extract", {"store": str(folder / name)}):
        pass
    assert outcome_of(read_metrics(folder, printable(name))) == "succeeded"


@contextlib.contextmanager
def pushgateway(status):
    """A server that records requests; a real Pushgateway is not a package for Python."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            requests.append((self.path, self.headers.get("Authorization"), body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def test_a_pushgateway_receives_one_group_per_flow_and_store(folder):
    with pushgateway(202) as (url, requests):
        code, errors = rescore(folder, "empty", url, AFFWILD2_METRICS_AUTH="lab:a:b")
    assert (code, errors) == (0, "")
    paths, keys, bodies = zip(*requests, strict=True)
    assert set(keys) == {"Basic bGFiOmE6Yg=="} and len(set(paths)) == 1
    assert paths[0].startswith("/metrics/job/affwild2/flow/rescore/store@base64/")
    assert "run_end" not in bodies[0] and 'outcome="succeeded"' in bodies[-1]


@pytest.mark.parametrize("kind", ["nothing listens", "no answer", "refused", "no folder"])
def test_metrics_that_cannot_be_written_are_one_warning(folder, kind, monkeypatch, capsys):
    with contextlib.ExitStack() as stack:
        if kind == "refused":
            target, _ = stack.enter_context(pushgateway(401))
        elif kind == "no answer":
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            target = f"http://127.0.0.1:{listening.getsockname()[1]}"
        else:
            target = str(folder / "other") if kind == "no folder" else f"http://127.0.0.1:{free_port()}"
        monkeypatch.setenv("AFFWILD2_METRICS", target)
        with measured_run("rescore", {"store": str(folder / "store")}):
            pass
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"the metrics of this run were not written to {target}: ")
