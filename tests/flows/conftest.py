"""One real ``affwild2 demo``, as a user runs it, whose store the tests of this folder look at and copy."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock


def run_command(*arguments, timeout=840, environment=None):
    """The installed command in a process of its own; ``environment`` is added to the one of the tests."""
    command = [str(Path(sys.executable).with_name("affwild2")), *map(str, arguments)]
    env = os.environ | (environment or {})
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, check=False)


@dataclass(frozen=True)
class Demo:
    """What the command left, and what it printed."""

    folder: Path
    output: str

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def store(self) -> Path:
        return self.folder / "store"


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Made once, by whichever process of tests needs it first; nobody changes it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, printed = shared / "demo", shared / "demo.txt"
    with FileLock(shared / "demo.lock"):
        if not printed.exists():
            finished = run_command("demo", "--out", folder)
            assert finished.returncode == 0, finished.stderr[-3000:]
            printed.write_text(finished.stdout)
    return Demo(folder, printed.read_text())


@pytest.fixture
def store_copy(demo, tmp_path):
    """A store of one's own with all that the demo made."""
    return Path(shutil.copytree(demo.store, tmp_path / "store"))
