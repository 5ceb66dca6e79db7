"""A few hundred hostile inputs; ``python -m tests.fuzz.fuzz_readers`` makes thousands."""

import subprocess
import sys
from pathlib import Path


def test_no_hostile_input_is_more_than_refused(tmp_path):
    """In a process of its own, so that even a crash would only be a finding."""
    command = [sys.executable, "-m", "tests.fuzz.fuzz_readers", "--inputs", "400", "--keep", str(tmp_path / "kept")]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-3000:]
