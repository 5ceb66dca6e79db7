import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the scripts run from this folder and import each other by name
import size
from command_watch import watch

pytestmark = pytest.mark.service

CHILD = "import time; held = b'1' * 100_000_000; busy = sum(range(30_000_000)); time.sleep(1.0)"
PARENT = f"""
import mmap, os, subprocess, sys, tempfile, time
from pathlib import Path
with tempfile.TemporaryFile() as file:
    file.write(b"1" * 50_000_000)
    file.flush()
    mapped = mmap.mmap(file.fileno(), 0)
    print("a line")
    sys.exit(subprocess.run([sys.executable, "-c", {CHILD!r}]).returncode + 3)
"""


def test_a_command_is_watched_with_its_children_and_deleted_files(tmp_path):
    watched = watch([sys.executable, "-c", PARENT], temporary=tmp_path, environment={})
    assert watched.exit_code == 3 and "a line" in watched.output
    assert watched.anonymous_mb > 100 and watched.peak_mb >= watched.anonymous_mb
    assert watched.temporary_mb > 49 and not list(tmp_path.iterdir())
    assert watched.cpu_seconds > 0.1 and watched.seconds >= watched.silent_seconds > 1
    assert watched.silent_after.endswith("a line")


def test_the_table_has_a_row_per_command_and_is_between_the_markers(tmp_path, monkeypatch):
    monkeypatch.setattr(size, "RESULTS", tmp_path / "size.json")
    monkeypatch.setattr(size, "PAGE", tmp_path / "page.md")
    size.PAGE.write_text(f"before\n{size.BEGIN}\nold\n{size.END}\nafter\n")
    sizes = {"peak_mb": 2345.0, "anonymous_mb": 800.0, "disk_mb": 0.0, "temporary_mb": 4900.0}
    row = {"seconds": 12.4, "cpu_seconds": 20.0, "other_cores": 0.0, "date": "2026-01-01", **sizes}
    size.save([row | {"command": "status"}, row | {"command": "report"}], size.RESULTS)
    size.save([row | {"command": "status", "seconds": 9.0}], size.RESULTS)
    text = size.PAGE.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| `status` | 9 | 20 | 2.3 GB | 800 MB | 0 MB | 4.9 GB |" in text and text.count("| `report` |") == 1
    assert "nothing else ran" in text


def test_the_commands_exist_and_take_these_options():
    for first in {tuple(arguments[:1]) for arguments in size.commands(Path("/folder"), 1.0)}:
        program = Path(sys.executable).with_name("affwild2")
        assert subprocess.run([program, *first, "--help"], capture_output=True).returncode == 0
