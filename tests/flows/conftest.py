"""One run of ``affwild2 demo``, whose data and store all tests of this folder share."""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from data_contracts.vocabulary import TASKS
from tests.processes import run_command
from tests.video_factory import VideoSpec, write_video


@dataclass(frozen=True)
class Demo:
    """Folder and output of the command."""

    folder: Path
    output: str

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def copy_store(self, target: Path, tasks: Collection[str] = TASKS) -> Path:
        """Copy the store with the heads of some tasks. A report of one head takes a quarter of the time."""
        others = [task for task in TASKS if task not in tasks]
        names = [f"{start}{task}-*" for task in others for start in ("", "head=", "abaw3-")]
        return Path(shutil.copytree(self.store, target, ignore=shutil.ignore_patterns(*names)))


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Run the demo once for all test processes. Tests must not change its folder."""
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
    """Copy of the store of the demo."""
    return demo.copy_store(tmp_path / "store")


@pytest.fixture
def expr_store(demo, tmp_path):
    """Copy of the store of the demo without heads of other tasks."""
    return demo.copy_store(tmp_path / "store", ["expr"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder whose ``videos`` contains one clip, for the deployments of a module."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "videos").mkdir()
    write_video(folder / "videos/clip.mp4", VideoSpec(frame_count=4))
    return folder
