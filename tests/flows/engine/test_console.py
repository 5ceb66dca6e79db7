import io
import json
import logging

import pytest

from flows.engine import console
from infra.json_logs import JsonFormatter


def test_redirected_output_is_complete_and_short(capsys, monkeypatch):
    # As if every unit took an hour.
    hours = iter(range(10**9))
    monkeypatch.setattr(console.time, "monotonic", lambda: 3600.0 * next(hours))
    levels, lines = [], []

    def log(level, text):
        levels.append(level)
        lines.append(text)

    with console.redirect_output(log):
        console.print_table("Stages", ["stage", "units"], [["crop_faces", 1000]])
        console.print_line("a line\nof two")
        console.print_error("an error")
        with console.progress_of("crop_faces", 1000) as progress:
            for number in range(1000):
                progress.advance(f"unit{number}", 2)
    table, line, error, *shown = lines
    assert table == "Stages:\nstage       units\ncrop_faces  1,000"
    assert levels[:3] == [logging.INFO, logging.INFO, logging.ERROR] and {*levels[3:]} == {logging.INFO}
    assert (line, error) == ("a line\\nof two", "an error")
    assert shown == [f"crop_faces: {done} of 1000 done, 2 failed" for done in range(100, 1001, 100)]
    assert capsys.readouterr() == ("", "")
    console.print_line("to be seen")
    assert capsys.readouterr().out == "to be seen\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: expected permission to use it, got: Permission"),
        (IsADirectoryError(21, "Is a directory", "/a"), "/a: expected a file, got: Is a directory; pass a file"),
        (NotADirectoryError(20, "Not a directory", "/bin/sh/a/b"), "/bin/sh: expected a folder, got: Not a directory"),
        (OSError(28, "No space left on device"), "expected free space, got: No space left on device; make room"),
        (OSError(5, "Input/output error", "/a\nb"), "/a\\nb: expected a file or folder that can be used, got: Input/"),
    ],
)
def test_errors_of_the_system_about_a_file_are_one_line(error, line):
    shown, code = console.explain_error(error)
    assert shown.startswith(line) and code == console.EXIT_WRONG_REQUEST
    assert console.explain_error(OSError(9, "Bad file descriptor")) is None


def test_json_lines_in_a_log_have_the_same_fields(monkeypatch):
    monkeypatch.setenv("AFFWILD2_LOG_FORMAT", "json")
    lines = []

    def log(level, text):
        record = logging.makeLogRecord({"name": "prefect.flow_runs", "levelname": "INFO", "msg": text})
        lines.append(json.loads(JsonFormatter().format(record)))

    with console.redirect_output(log), console.add_fields(store="s"):
        console.print_line("failed: clip", stage="crop_faces", unit="clip")
        console.print_table("Stages", ["stage", "units"], [["crop_faces", 1000]])
        console.print_line("the end")
    failed, table, end = lines
    assert (failed["store"], failed["stage"], failed["unit"]) == ("s", "crop_faces", "clip")
    assert table["rows"] == [{"stage": "crop_faces", "units": 1000}] and "1,000" in table["message"]
    assert "rows" not in end and "unit" not in end and end["store"] == "s"


def test_units_that_take_long_have_lines_at_growing_intervals(capsys, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: seconds[0])
    with console.progress_of("fit_head", 2) as progress:
        for _ in range(600):
            seconds[0] += 1
            progress.show("heads/a", f"after {seconds[0]:.0f} s")
        progress.show("heads/b", "only\njust")
        seconds[0] += 10
        progress.show("heads/b", "a line\nof two")
        progress.advance("heads/b", 0)
    *lines, b, done = capsys.readouterr().err.splitlines()
    times = [float(line.removeprefix("fit_head: heads/a: after ").removesuffix(" s")) for line in lines]
    # Every ten seconds first, then a tenth of the time later.
    assert times[:10] == [11.0 + 10 * n for n in range(10)] and times[-1] > 500 and len(times) < 30
    assert b == "fit_head: heads/b: a line\\nof two" and done == "fit_head: 1 of 2 done, 0 failed"


def test_units_that_take_long_have_a_line_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(console.sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress_of("fit_head", 2) as progress:
        progress.show("heads/[a]", "epoch 1 of 2")
        progress.show("heads/[a]", "epoch 2 of 2")
        progress.show("heads/b", "reading features")
        progress.advance("heads/b", 0)
    last_frame = terminal.getvalue().split("fit_head")[-1]
    assert "1/2" in last_frame and "heads/[a]: epoch 2 of 2" in last_frame and "heads/b" not in last_frame


def test_the_time_left_depends_on_how_long_the_other_units_take(monkeypatch, capsys):
    seconds = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: seconds[0])
    with console.progress_of("fit_cell", 3, costs={"short": 1.0, "long": 8.0, "other": 1.0}) as progress:
        seconds[0] = 100
        progress.advance("short", 0)
        seconds[0] = 1000
        progress.advance("long", 1)
    assert capsys.readouterr().err.splitlines() == [
        "fit_cell: 1 of 3 done, 0 failed, about 15 min left",
        "fit_cell: 2 of 3 done, 1 failed, about 111 s left".replace("111 s", "2 min"),
    ]
