"""Overhead of orchestration: start-up, planning, scheduling, and runs with nothing to do.

Whole processes are timed, because users wait for them. If a goal is a number of seconds, the reference waits for that
time: the ratio tells how many times faster the command is, and the goal is 1. ``AFFWILD2_BENCH_FRAMES`` sets the number
of frames of the whole run.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from generated_store import fill_store, make_videos
from pairs import Pair, run_script

from data_contracts.store.store import Store
from flows.parameters import DEFAULT_BACKBONE
from infra.worker_processes import WORKER_ENVIRONMENT
from tasks.backbones import BackboneChoice
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.extract.crop_faces import CropParams
from tasks.fit import predict_outputs
from tasks.fit.fit_head import provide_zero_shot_heads
from tasks.fit.subject_features import find_features
from tasks.units import run_unit

WORKERS, VIDEOS, SUBJECTS = 2, 8, 600
QUICK = False
FRAMES = 6_000
# The goal is 1.05 times the time of the bare loop, for 100,000 frames.
WHOLE_RUN_GOAL = 1 / 1.05
PROGRAM = str(Path(sys.executable).with_name("affwild2"))


@dataclass(frozen=True)
class FinishedRun:
    """The store that a run wrote, and the run's duration."""

    store: Path
    seconds: float


def run_program(*arguments: object) -> str:
    """Run the command, which must succeed; return its standard output."""
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_for(seconds: float) -> Callable[[], None]:
    """Return a reference call that takes a number of seconds."""
    return lambda: time.sleep(seconds)


def read_parts(store: Path) -> dict[str, bytes]:
    """Return the content of every Parquet file of a store by its relative path."""
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*.parquet"))}


class WholeRun:
    """``affwild2 extract`` with two workers against the same unit functions in two plain processes."""

    def __init__(self, scratch: Path, frames: int) -> None:
        self.scratch, self.data = scratch, scratch / "data"
        params = DemoDataParams(VIDEOS, 0, 0, frames=frames // VIDEOS)
        generate_demo_data(self.data, params=params)
        (self.data / "videos" / "corrupt.mp4").unlink()

    def _fresh(self, name: str) -> Path:
        store = self.scratch / name
        shutil.rmtree(store, ignore_errors=True)
        return store

    def run_bare_loop(self) -> FinishedRun:
        """Compute both halves of the videos in parallel, in processes with the environment of workers."""
        store, started = self._fresh("bare"), time.perf_counter()
        script = str(Path(__file__).with_name("bare_loop.py"))
        environment = WORKER_ENVIRONMENT | dict(os.environ)
        halves = [
            subprocess.Popen([sys.executable, script, self.data, store, str(n), str(WORKERS)], env=environment)
            for n in range(WORKERS)
        ]
        assert [half.wait() for half in halves] == [0] * WORKERS
        return FinishedRun(store, time.perf_counter() - started)

    def run_command(self) -> FinishedRun:
        """Run the command as a user does."""
        store, started = self._fresh("store"), time.perf_counter()
        run_program("extract", self.data, "--store", store, "--workers", WORKERS)
        return FinishedRun(store, time.perf_counter() - started)


def check_same_bytes(bare: FinishedRun, ours: FinishedRun) -> str:
    """Check that both stores have equal files; return the overhead per unit."""
    expected, got = read_parts(bare.store), read_parts(ours.store)
    differ = [name for name in {*expected, *got} if expected.get(name) != got.get(name)]
    assert not differ, f"{len(differ)} of {len(expected)} files differ, first {sorted(differ)[0]}"
    per_unit = 1000 * (ours.seconds - bare.seconds) * WORKERS / len(got)
    return f"{len(got)} identical files; {per_unit:+.0f} ms per unit and worker, start-up included"


class ManySubjects:
    """A store with features and outputs of many subjects with few frames each."""

    def __init__(self, scratch: Path, count: int) -> None:
        self.videos, self.out, self.store = scratch / "videos", scratch / "out", Store(scratch / "store")
        backbone = BackboneChoice.find(DEFAULT_BACKBONE, None)
        fill_store(self.store, make_videos(self.videos, count), backbone=backbone)
        (head,), variant = provide_zero_shot_heads(self.store, backbone, CropParams()), find_features(self.store)
        self.units = predict_outputs.plan_predict_outputs(self.store, variant, head=head)

    def predict_in_loop(self) -> int:
        """Compute outputs of every subject in this process; return the number of successes."""
        return sum(run_unit(self.store.url, predict_outputs.compute, unit).cause is None for unit in self.units)

    def score_from_features(self) -> int:
        """Run ``score`` with outputs and predictions deleted."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.store.locate("outputs"), ignore_errors=True)
        return self.score()

    def score(self) -> int:
        """Run ``score``; return the number of subjects with predictions."""
        options = ("--store", self.store.url, "--people", "main", "--workers", WORKERS)
        run_program("score", self.videos, "--out", self.out, *options)
        return len(list(self.out.glob("*.parquet")))

    def extract(self) -> None:
        """Run ``extract`` with nothing to do."""
        printed = run_program("extract", self.videos, "--store", self.store.url, "--workers", WORKERS)
        assert "embed_faces" in printed


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Yield pairs for start-up, runs with nothing to do, small units, and a whole run."""
    scratch = Path(tempfile.mkdtemp(prefix="affwild2-bench-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    yield Pair("affwild2 --help, against 0.5 s", wait_for(0.5), lambda: run_program("--help"), _report_success, goal=1)
    yield from _one_clip_pairs(scratch / "clip")
    yield from _many_subjects_pairs(scratch / "many")
    frames = int(os.environ.get("AFFWILD2_BENCH_FRAMES", FRAMES))
    run = WholeRun(scratch / "whole", frames)
    yield Pair(
        f"extract, {frames:,} frames, two workers, against a bare loop",
        run.run_bare_loop,
        run.run_command,
        check_same_bytes,
        goal=WHOLE_RUN_GOAL,
        rounds=1,
        reference_rounds=1,
        work=frames,
        unit="frames",
    )


def _report_success(_: object, __: object) -> str:
    return "exit code 0"


def _one_clip_pairs(scratch: Path) -> Iterator[Pair]:
    generate_demo_data(scratch, params=DemoDataParams(1, 0, 0, frames=25))
    clip, store = next(scratch.glob("videos/train*")), scratch / "out" / "store"

    def score() -> None:
        shutil.rmtree(scratch / "out", ignore_errors=True)
        run_program("score", clip, "--out", scratch / "out")

    yield Pair("score of a one-second clip, against 8 s", wait_for(8), score, _report_success, goal=1, rounds=3)
    bare = [sys.executable, "-c", "import fsspec, numpy, pyarrow.parquet"]
    yield Pair(
        "status, against importing numpy and pyarrow",
        lambda: subprocess.run(bare, check=True),
        lambda: run_program("status", "--store", store),
        _report_success,
    )


def _many_subjects_pairs(scratch: Path) -> Iterator[Pair]:
    many = ManySubjects(scratch, SUBJECTS)
    yield Pair(
        f"score of {SUBJECTS} subjects, against predict_outputs in a bare loop of one process",
        many.predict_in_loop,
        many.score_from_features,
        lambda bare, ours: f"{_check_equal(bare, ours)} subjects",
        rounds=1,
        work=SUBJECTS,
        unit="units",
    )
    for name, command in (("extract", many.extract), ("score", many.score)):
        what = f"{name} again, {SUBJECTS} subjects, nothing to do, start-up included, against 2 s"
        yield Pair(what, wait_for(2), command, _report_success, goal=1, rounds=3)


def _check_equal(expected: int, got: int) -> int:
    assert expected == got, f"{got} subjects, expected {expected}"
    return got


if __name__ == "__main__":
    run_script(make_pairs)
