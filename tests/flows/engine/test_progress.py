import io
import json
import re
import sys
import threading
import time

import pytest

from data_contracts.files.inputs import list_many
from data_contracts.store.store import Store
from flows.engine import console, progress
from flows.engine.stage_summary import StageSummary, work_here
from models.engines.progress import report_progress, track
from tasks.units import Job


class Terminal(io.StringIO):
    def __init__(self):
        super().__init__()
        self.writes = threading.Semaphore(0)

    def isatty(self):
        return True

    def write(self, text):
        self.writes.release()
        return super().write(text)

    def wait_for(self, text):
        """Wait until the text was written."""
        deadline = time.monotonic() + 60
        while text not in self.getvalue():
            assert time.monotonic() < deadline, self.getvalue()
            self.writes.acquire(timeout=1)


def use_terminal(monkeypatch):
    """Make standard error a terminal. Call this in the test: pytest replaces the stream after fixtures."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0.01)
    return terminal


@pytest.fixture
def clock(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_lines_of_a_stage_are_few_and_have_rate_and_time_left(capsys, clock):
    with progress.progress_of("crop_faces", 36_000) as stage:
        for number in range(36_000):
            clock[0] += 1
            stage.advance(f"unit{number}", 2, rows=500)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "crop_faces: 10 of 36000 done, 2 failed, 500 rows/s, about 10.0 h left"
    assert lines[1].startswith("crop_faces: 20 of 36000") and 50 < len(lines) < 90
    assert lines[-1].startswith("crop_faces: 3")


def test_units_without_rows_have_a_rate_too(capsys, clock):
    with progress.progress_of("fit_cell", 3, costs={"short": 1.0, "long": 8.0, "other": 1.0}) as stage:
        clock[0] = 100
        stage.advance("short", 0)
        clock[0] = 1000
        stage.advance("long", 1)
    assert capsys.readouterr().err.splitlines() == [
        "fit_cell: 1 of 3 done, 0 failed, 36 units/h, about 15 min left",
        "fit_cell: 2 of 3 done, 1 failed, 7.2 units/h, about 2 min left",
    ]


def test_units_that_take_long_have_lines_of_their_own(capsys, clock):
    with progress.progress_of("fit_head", 2) as stage:
        for _ in range(600):
            clock[0] += 1
            stage.show("heads/a", f"after {clock[0]:.0f} s")
        stage.show("heads/b", "only\njust")
        clock[0] += 100
        stage.advance("heads/a", 0)
    lines = capsys.readouterr().err.splitlines()
    times = [float(line.split()[-2]) for line in lines if line.startswith("fit_head: heads/a: after ")]
    # Every ten seconds first, then a tenth of the time later.
    assert times[:10] == [10.0 + 10 * n for n in range(10)] and times[-1] > 500 and len(times) < 30
    assert lines[0] == "fit_head: 0 of 2 done, 0 failed"
    assert lines[-2:] == [
        "fit_head: 1 of 2 done, 0 failed, 5.1 units/h, about 12 min left",
        "fit_head: heads/b: only\\njust",
    ]


def test_a_terminal_shows_the_stage_and_its_units(monkeypatch):
    terminal = use_terminal(monkeypatch)
    with progress.watching_progress("affwild2"), progress.progress_of("fit_head", 2) as stage:
        stage.show("heads/[a]", "epoch 1 of 2")
        terminal.wait_for("heads/[a]: epoch 1 of 2")
        stage.show("heads/[a]", "epoch 2 of 2")
        stage.show("heads/b", "reading features")
        stage.advance("heads/b", 1)
        terminal.wait_for("1/2")
        console.print_error("a message")
    last = terminal.getvalue().split("fit_head")[-1]
    assert "1 failed" in last and "heads/[a]: epoch 2 of 2" in last and "heads/b" not in last
    # The message begins in an empty line, and the cursor is shown again.
    assert "\x1b[2K" in last.split("a message")[0][-60:] and "\x1b[?25h" in last


def test_a_terminal_shows_work_without_a_stage_after_a_silence(monkeypatch):
    terminal = use_terminal(monkeypatch)
    monkeypatch.setattr(progress, "_SHOW_AFTER_SECONDS", 0.05)
    with progress.watching_progress("affwild2"):
        terminal.wait_for("working, 0 s so far")
        monkeypatch.setattr("models.engines.progress._SECONDS_BETWEEN_LINES", 0)
        for number in track(range(40), "reading: {} files"):
            if number == 3:
                terminal.wait_for("reading: 3 of 40 files")
        size = len(terminal.getvalue())
        # What has ended is not shown any more.
        terminal.wait_for("working")
        while "working" not in terminal.getvalue()[size:]:
            terminal.writes.acquire(timeout=60)
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")


def test_silent_work_has_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setenv("AFFWILD2_LOG_FORMAT", "json")
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)
    lines = []
    with progress.watching_progress("affwild2"):
        deadline = time.monotonic() + 60
        while not lines and time.monotonic() < deadline:
            time.sleep(0.01)
            lines = capsys.readouterr().err.splitlines()
    assert json.loads(lines[0])["message"] == "affwild2 is working, 0 s so far"


def test_lines_go_where_the_work_prints(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0)
    arrived, lines = threading.Event(), []

    def log(level, text):
        lines.append(text)
        arrived.set()

    with console.redirect_output(log), progress.watching_progress("rescore"):
        assert arrived.wait(60)
    assert lines[0] == "rescore is working, 0 s so far" and capsys.readouterr() == ("", "")


def test_files_that_are_listed_are_counted(tmp_path, capsys, clock):
    for number in range(30):
        (tmp_path / f"{number:02}").mkdir()
        (tmp_path / f"{number:02}" / "00001.jpg").write_bytes(b"")
    with progress.watching_progress("affwild2"):
        for folder in sorted(tmp_path.iterdir()):
            clock[0] += 1
            list_many([folder])
    lines = [line for line in capsys.readouterr().err.splitlines() if "listing" in line]
    assert lines and re.fullmatch(r"listing files: \d+ found, 1.0/s", lines[-1])


CODE_VERSION = 1


def test_work_of_this_process_reports_its_progress(tmp_path, capsys, clock, monkeypatch):
    monkeypatch.setattr("models.engines.progress._SECONDS_BETWEEN_LINES", 0)

    class Made:
        def write(self, store, job, *, started):
            from tasks.units import UnitReport

            return UnitReport(job.name, {"face": 500})

    def make(store, job):
        clock[0] += 20
        report_progress("at {:.0f} s", clock[0])
        return Made()

    summary = StageSummary("pretrain")
    work_here(Store(str(tmp_path)), [Job("a", "f" * 64, None), Job("b", "f" * 64, None)], make, summary)
    assert capsys.readouterr().err.splitlines() == [
        "pretrain: 0 of 2 done, 0 failed",
        "pretrain: a: at 20 s",
        "pretrain: 1 of 2 done, 0 failed, 12 rows/s, about 40 s left",
        "pretrain: b: at 40 s",
    ]
