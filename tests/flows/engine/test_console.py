import json
import logging

import pytest

from flows.engine import console
from infra.json_logs import JsonFormatter


def test_redirected_output_is_complete(capsys):
    levels, lines = [], []

    def log(level, text):
        levels.append(level)
        lines.append(text)

    with console.redirect_output(log):
        console.print_table("Stages", ["stage", "units"], [["crop_faces", 1000]])
        console.print_line("a line\nof two")
        console.print_error("an error")
        console.write_progress_line("progress")
    assert lines == ["Stages:\nstage       units\ncrop_faces  1,000", "a line\\nof two", "an error", "progress"]
    assert levels == [logging.INFO, logging.INFO, logging.ERROR, logging.INFO]
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
