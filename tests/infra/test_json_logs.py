"""Every line of commands, workers and services is a JSON object with ``AFFWILD2_LOG_FORMAT=json``."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from data_contracts.store.lock import lock_store
from data_contracts.store.store import Store
from infra.json_logs import JsonFormatter, log_fields, write_line
from tests.processes import program, run_command

AS_JSON = {"AFFWILD2_LOG_FORMAT": "json"}


def strictly(line: str) -> dict:
    """Parse a line as other programs do: Python alone would accept NaN."""

    def refuse(constant):
        raise ValueError(constant)

    found = json.loads(line, parse_constant=refuse)
    assert {"time", "level", "message", "logger"} <= set(found), line
    assert datetime.fromisoformat(found["time"]).utcoffset() == timedelta(0)
    assert found["level"] in logging.getLevelNamesMapping()
    return found


def lines_of(text: str) -> list[dict]:
    return [strictly(line) for line in text.splitlines()]


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "bad.mp4").write_bytes(b"x" * 3000)
    (folder / "a\nb\x1b.mp4").write_bytes(b"y" * 3000)
    return folder


def test_a_record_is_one_line_of_strict_json_with_the_fields_of_the_run():
    record = logging.makeLogRecord(
        {"name": "x", "levelno": 30, "levelname": "WARNING", "msg": "%s\n2", "args": ("a\udcff",)}
    )
    record.flow_run_id, record.task_run_name, record.flow_name = "1-2", "crop_faces", None
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record.exc_info = sys.exc_info()
    with log_fields(store="s3://lab/store", stage="other", run_id=None):
        line = JsonFormatter().format(record)
    assert "\n" not in line
    found = strictly(line)
    assert (found["level"], found["message"], found["logger"]) == ("WARNING", "a\\udcff\n2", "x")
    assert (found["run_id"], found["stage"], found["store"]) == ("1-2", "crop_faces", "s3://lab/store")
    assert "flow" not in found and "Traceback" in found["exc_info"] and "first\nsecond" in found["exc_info"]
    assert datetime.now(UTC) - datetime.fromisoformat(found["time"]) < timedelta(minutes=1)
    assert "store" not in strictly(JsonFormatter().format(record))


def test_numbers_that_are_not_finite_are_null():
    stream = io.StringIO()
    write_line("Validation", stream, rows=[{"f1": float("nan"), "loss": float("inf"), "seed": 1, "file": "\udcff"}])
    assert strictly(stream.getvalue())["rows"] == [{"f1": None, "loss": None, "seed": 1, "file": "\\udcff"}]


def test_all_lines_of_a_run_with_a_failed_video_are_objects(videos, tmp_path):
    store = tmp_path / "store"
    ended = run_command("extract", videos, "--store", store, "--workers", "1", environment=AS_JSON)
    assert ended.returncode == 1
    out, err = lines_of(ended.stdout), lines_of(ended.stderr)
    assert {(one["flow"], one["store"], one["run_id"]) for one in out + err} == {
        ("extract", str(store), out[0]["run_id"])
    }
    (table,) = [one for one in out if one["message"] == "Stages"]
    assert [row["failed"] for row in table["rows"] if row["stage"] == "index_videos"] == [2]
    assert {(one["stage"], one["unit"]) for one in out if "unit" in one} == {
        ("index_videos", "bad"),
        ("index_videos", "a\nb\x1b"),
    }
    assert err[-1]["level"] == "ERROR" and err[-1]["message"].startswith("affwild2: 2 ")
    shown = run_command("status", "--store", store, environment=AS_JSON)
    assert shown.returncode == 1 and lines_of(shown.stdout)[0]["rows"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("rescore", "missing", "--store", "s", "--out", "o"), "missing"),
        (("rescore", "missing", "--sotre", "s"), "No such option"),
        (("rescor",), "rescor"),
        (("rescore", "v", "--store", "s3://key:secret@host/s", "--out", "o"), "key"),
    ],
)
def test_a_refused_command_is_one_object(arguments, expected, tmp_path):
    ended = subprocess.run(
        [program("affwild2"), *arguments],
        env=os.environ | AS_JSON,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    (found,) = lines_of(ended.stderr)
    assert found["level"] == "ERROR" and expected in found["message"] and "secret" not in ended.stderr


def test_an_invalid_format_is_one_line(tmp_path):
    ended = run_command("status", "--store", tmp_path, environment={"AFFWILD2_LOG_FORMAT": "xml"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "affwild2: AFFWILD2_LOG_FORMAT: expected one of text, json, got 'xml'\n"


@pytest.mark.service
def test_a_command_that_waits_and_is_interrupted_writes_objects(videos, tmp_path):
    store, command = (
        tmp_path / "store",
        [program("affwild2"), "extract", str(videos), "--store", str(tmp_path / "store")],
    )
    with lock_store(Store(str(store)), on_wait=print):
        run = subprocess.Popen(
            command, env=os.environ | AS_JSON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        waiting = strictly(run.stderr.readline())
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=300)
    assert (run.returncode, out) == (130, "")
    assert waiting["level"] == "WARNING" and "is using this store" in waiting["message"]
    (ended,) = lines_of(err)
    assert (ended["level"], ended["flow"]) == ("ERROR", "extract") and "interrupted" in ended["message"]


DEFECTS = """
import logging, threading, warnings
import infra
logging.getLogger("library").warning("a\\nb")
logging.getLogger("library").info("not shown")
warnings.warn("old\\nway")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Bad:
    def __del__(self):
        raise OSError("lost")
Bad()
raise KeyError("a defect")
"""


def test_warnings_and_tracebacks_of_any_thread_are_objects():
    ended = subprocess.run(
        [sys.executable, "-c", DEFECTS], env=os.environ | AS_JSON, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    found = lines_of(ended.stderr)
    assert [one["level"] for one in found] == ["WARNING", "WARNING", "CRITICAL", "ERROR", "CRITICAL"]
    assert all("Traceback" in one["exc_info"] for one in found[2:])


LOGGING_WORKER = """
import logging
from infra.clusters import open_cluster

def fail():
    logging.getLogger("library").warning("from a worker")
    logging.getLogger("distributed.worker").critical("lost")

if __name__ == "__main__":
    with open_cluster(workers=1) as client:
        client.submit(fail).result(timeout=60)
"""


@pytest.mark.service
def test_forked_workers_write_objects(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(LOGGING_WORKER)
    # The tests' own environment silences distributed.
    environment = os.environ | AS_JSON | {"PYTHONPATH": os.getcwd()}
    environment.pop("DASK_DISTRIBUTED__LOGGING__DISTRIBUTED", None)
    ended = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    # Nothing about the start and the end of the workers, as in text.
    assert [one["message"] for one in lines_of(ended.stderr)] == ["from a worker", "lost"]
