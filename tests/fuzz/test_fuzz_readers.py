"""Test a few hundred hostile inputs; ``python -m tests.fuzz.fuzz_readers`` tests thousands."""

import subprocess
import sys
from pathlib import Path


def test_hostile_inputs_are_accepted_or_refused_without_faults(tmp_path):
    """Run in a separate process, so that a crash of a reader fails only this test."""
    command = [sys.executable, "-m", "tests.fuzz.fuzz_readers", "--inputs", "400", "--keep", str(tmp_path / "kept")]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-3000:]
