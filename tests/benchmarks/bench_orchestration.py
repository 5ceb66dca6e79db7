"""What everything around the work costs: start-up, planning, scheduling, and finding that nothing is to do.

Whole processes are timed, as a user waits for them. Where a goal is a number of seconds, the reference waits just so
long: the ratio says how many times sooner ours is there, and the goal is 1. ``AFFWILD2_BENCH_FRAMES`` sets the frames
of the whole run.
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
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.extract.embed_faces import BackboneChoice
from tasks.fit import predict_outputs
from tasks.fit.fit_head import provide_zero_shot_head
from tasks.fit.subject_features import find_features
from tasks.units import run_unit

WORKERS, VIDEOS, SUBJECTS = 2, 8, 600
QUICK = False
FRAMES = 6_000
# The goal is 1.05 of the bare loop at 100,000 frames.
WHOLE_RUN_GOAL = 1 / 1.05
PROGRAM = str(Path(sys.executable).with_name("affwild2"))


@dataclass(frozen=True)
class Ran:
    """Where a run has left its results, and its seconds."""

    store: Path
    seconds: float


def run_program(*arguments: object) -> str:
    """Standard output of the command; it must end well."""
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def waiting(seconds: float) -> Callable[[], None]:
    """What a goal in seconds is compared with."""
    return lambda: time.sleep(seconds)


def parts_of(store: Path) -> dict[str, bytes]:
    """Every Parquet file of a store: path below it -> bytes."""
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

    def in_a_bare_loop(self) -> Ran:
        """Both halves of the videos side by side, with the settings of processes that workers have."""
        store, started = self._fresh("bare"), time.perf_counter()
        script = str(Path(__file__).with_name("bare_loop.py"))
        environment = WORKER_ENVIRONMENT | dict(os.environ)
        halves = [
            subprocess.Popen([sys.executable, script, self.data, store, str(n), str(WORKERS)], env=environment)
            for n in range(WORKERS)
        ]
        assert [half.wait() for half in halves] == [0] * WORKERS
        return Ran(store, time.perf_counter() - started)

    def by_the_command(self) -> Ran:
        """The command as a user types it."""
        store, started = self._fresh("store"), time.perf_counter()
        run_program("extract", self.data, "--store", store, "--workers", WORKERS)
        return Ran(store, time.perf_counter() - started)


def same_bytes(bare: Ran, ours: Ran) -> str:
    """That both stores hold the same, and what a unit costs beyond its work."""
    expected, got = parts_of(bare.store), parts_of(ours.store)
    differ = [name for name in {*expected, *got} if expected.get(name) != got.get(name)]
    assert not differ, f"{len(differ)} of {len(expected)} files differ, first {sorted(differ)[0]}"
    per_unit = 1000 * (ours.seconds - bare.seconds) * WORKERS / len(got)
    return f"{len(got)} files with the same bytes; {per_unit:+.0f} ms per unit and worker, start-up included"


class ManySubjects:
    """A store with features and outputs of very many subjects of a few frames."""

    def __init__(self, scratch: Path, count: int) -> None:
        self.videos, self.out, self.store = scratch / "videos", scratch / "out", Store(scratch / "store")
        backbone = BackboneChoice.find(DEFAULT_BACKBONE, None)
        fill_store(self.store, make_videos(self.videos, count), backbone=backbone)
        head, variant = provide_zero_shot_head(self.store, backbone), find_features(self.store)
        self.units = predict_outputs.plan_predict_outputs(variant, head=head)

    def predict_in_a_bare_loop(self) -> int:
        """Outputs of every subject, one after the other in this process."""
        return sum(run_unit(self.store.url, predict_outputs.compute, unit).cause is None for unit in self.units)

    def score_anew(self) -> int:
        """The command, when only outputs and predictions are missing."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.rmtree(self.store.locate("outputs"), ignore_errors=True)
        return self.score()

    def score(self) -> int:
        """The command; how many subjects have predictions then."""
        run_program("score", self.videos, "--out", self.out, "--store", self.store.url, "--workers", WORKERS)
        return len(list(self.out.glob("*.parquet")))

    def extract(self) -> None:
        """The command, when there is nothing to do."""
        printed = run_program("extract", self.videos, "--store", self.store.url, "--workers", WORKERS)
        assert "embed_faces" in printed


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Start-up, nothing to do, small units, and a whole run."""
    scratch = Path(tempfile.mkdtemp(prefix="affwild2-bench-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    yield Pair("affwild2 --help, against 0.5 s", waiting(0.5), lambda: run_program("--help"), _done, goal=1)
    yield from _of_one_clip(scratch / "clip")
    yield from _of_many_subjects(scratch / "many")
    frames = int(os.environ.get("AFFWILD2_BENCH_FRAMES", FRAMES))
    run = WholeRun(scratch / "whole", frames)
    yield Pair(
        f"extract, {frames:,} frames, two workers, against a bare loop",
        run.in_a_bare_loop,
        run.by_the_command,
        same_bytes,
        goal=WHOLE_RUN_GOAL,
        rounds=1,
        reference_rounds=1,
        work=frames,
        unit="frames",
    )


def _done(_: object, __: object) -> str:
    return "ends with code 0"


def _of_one_clip(scratch: Path) -> Iterator[Pair]:
    generate_demo_data(scratch, params=DemoDataParams(1, 0, 0, frames=25))
    clip, store = next(scratch.glob("videos/train*")), scratch / "out" / "store"

    def score() -> None:
        shutil.rmtree(scratch / "out", ignore_errors=True)
        run_program("score", clip, "--out", scratch / "out")

    yield Pair("score of a clip of one second, against 8 s", waiting(8), score, _done, goal=1, rounds=3)
    bare = [sys.executable, "-c", "import fsspec, numpy, pyarrow.parquet"]
    yield Pair(
        "status, against importing numpy and pyarrow",
        lambda: subprocess.run(bare, check=True),
        lambda: run_program("status", "--store", store),
        _done,
    )


def _of_many_subjects(scratch: Path) -> Iterator[Pair]:
    many = ManySubjects(scratch, SUBJECTS)
    yield Pair(
        f"predictions of {SUBJECTS} subjects, against outputs alone in a bare loop of one process",
        many.predict_in_a_bare_loop,
        many.score_anew,
        lambda bare, ours: f"{_equal(bare, ours)} subjects",
        rounds=1,
        work=SUBJECTS,
        unit="units",
    )
    for name, command in (("extract", many.extract), ("score", many.score)):
        what = f"{name} again, {SUBJECTS} subjects, nothing to do, start-up included, against 2 s"
        yield Pair(what, waiting(2), command, _done, goal=1, rounds=3)


def _equal(expected: int, got: int) -> int:
    assert expected == got, f"{got} subjects, expected {expected}"
    return got


if __name__ == "__main__":
    run_script(make_pairs)
