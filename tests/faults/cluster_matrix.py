"""``extract`` on a cluster that was started by hand, with faults of its processes and of its network.

Part of ``python -m tests.faults``, which prints a line per fault. Each fault occurs while a worker computes a segment.
Then the run continues, or is started again, and must end with the same files as the undisturbed run.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import psutil

from tasks.demo.generate import DemoDataParams, generate_demo_data
from tests.faults.disturbances import finished_units
from tests.faults.hand_started import ROOT, HandStarted, hand_started, writes_in
from tests.faults.hosts import THIS_MACHINE, Host, Switched, end_session, reason_for_no_namespaces, switched_hosts
from tests.faults.interruption_matrix import data_bytes

SEGMENT_FRAMES = 50
_SEGMENTS = 9
_WAIT_SECONDS = 400
_CUT_SECONDS = 60
_AWAY_SECONDS = 5
_SHORT_TIMEOUT = {"AFFWILD2_PATIENCE_SECONDS": "8"}


class Pauses:
    """Measure the longest time without a finished unit in a store, in a thread, until ``longest`` is called."""

    def __init__(self, store: Path) -> None:
        self._store, self._ended, self._longest = store, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        before, since = finished_units(self._store), time.monotonic()
        while not self._ended.wait(0.05):
            now = finished_units(self._store)
            if now != before:
                self._longest = max(self._longest, time.monotonic() - since)
                before, since = now, time.monotonic()

    def longest(self) -> float:
        """Stop and return the longest pause in seconds; the time after the last unit does not count."""
        self._ended.set()
        self._thread.join()
        return self._longest


@dataclass
class Bench:
    """A run on a cluster, with the operations that faults need."""

    data: Path
    store: Path
    cluster: HandStarted
    hosts: dict[str, Host] = field(default_factory=dict)
    switched: Switched | None = None
    run: subprocess.Popen[str] | None = None
    errors: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pauses: "Pauses | None" = None

    def begin_fault(self) -> None:
        """Start measuring the longest time without a finished unit."""
        self.pauses = Pauses(self.store)

    def start_run(self, **environment: str) -> None:
        """Start ``extract`` on the cluster."""
        parameters = {"data": str(self.data), "store": str(self.store), "segment_frames": SEGMENT_FRAMES}
        arguments = json.dumps(parameters | {"dask_address": self.cluster.address})
        self.run = self.hosts.get("flow", THIS_MACHINE).start(
            [sys.executable, "-m", "tests.faults.run_flow", "extract", arguments],
            env={"PYTHONPATH": str(ROOT)} | environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_busy_worker(self, dataset: str = "faces") -> psutil.Process:
        """Wait until one unit of the dataset is finished and a worker computes another; return that worker."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            assert self.run and self.run.poll() is None, (
                f"run ended too early: {self.run and self.run.communicate()[1]}"
            )
            if finished_units(self.store / dataset):
                for process in self.cluster.worker_processes():
                    if writes_in(process, self.store):
                        return process
            time.sleep(0.02)
        raise AssertionError(f"no worker computed a unit of {dataset}")

    def end_run(self) -> int:
        """Wait for the end of the run; return its exit code."""
        assert self.run
        try:
            _, errors = self.run.communicate(timeout=_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            end_session(self.run)
            self.errors.append("run hangs")
            return -1
        self.errors += errors.strip().splitlines()
        self.codes.append(self.run.returncode)
        return self.run.returncode

    def finish(self) -> None:
        """Run again to completion, like a user."""
        self.start_run()
        self.end_run()


Fault = Callable[[Bench], None]


def _kill_worker(bench: Bench) -> None:
    victim = bench.wait_for_busy_worker()
    bench.begin_fault()
    victim.kill()
    bench.cluster.wait_for_workers(2)
    bench.end_run()


def _kill_host(bench: Bench) -> None:
    process = bench.wait_for_busy_worker()
    bench.begin_fault()
    for worker in list(bench.cluster.workers):
        if process in bench.cluster.worker_processes(worker):
            bench.cluster.end_worker(worker)
    bench.end_run()


def _restart_scheduler(bench: Bench) -> None:
    bench.wait_for_busy_worker()
    bench.begin_fault()
    bench.cluster.kill_scheduler()
    time.sleep(_AWAY_SECONDS)
    bench.cluster.start_scheduler()
    bench.end_run()


def _kill_scheduler_for_good(bench: Bench) -> None:
    bench.wait_for_busy_worker()
    bench.begin_fault()
    bench.cluster.kill_scheduler()
    bench.end_run()
    bench.cluster.end_workers()
    bench.cluster.start_scheduler()
    _two_workers(bench)
    bench.finish()


def _kill_all_workers(bench: Bench) -> None:
    bench.wait_for_busy_worker()
    bench.begin_fault()
    bench.cluster.end_workers()
    bench.end_run()
    _two_workers(bench)
    bench.finish()


def _replace_all_workers(bench: Bench) -> None:
    bench.wait_for_busy_worker()
    bench.begin_fault()
    bench.cluster.end_workers()
    time.sleep(_AWAY_SECONDS)
    bench.cluster.start_worker()
    bench.end_run()


def _kill_run(bench: Bench) -> None:
    """Kill the run and start it again at once, while workers still compute units of the first run."""
    bench.wait_for_busy_worker()
    bench.begin_fault()
    assert bench.run
    bench.run.kill()
    bench.end_run()
    bench.finish()


def _cut(name: str) -> Fault:
    def cut(bench: Bench) -> None:
        assert bench.switched
        bench.wait_for_busy_worker()
        bench.begin_fault()
        bench.switched.cut(bench.hosts[name])
        reconnect = threading.Timer(_CUT_SECONDS, bench.switched.reconnect, [bench.hosts[name]])
        reconnect.start()
        bench.end_run()
        reconnect.cancel()

    return cut


def _out_of_memory(bench: Bench) -> None:
    """Process a video of huge pictures on workers with too little memory, then on others."""
    bench.begin_fault()
    bench.end_run()
    if finished_units(bench.store / "faces") != _SEGMENTS:
        bench.problems.append("other videos are not complete")
    bench.cluster.end_workers()
    _two_workers(bench)
    bench.finish()


def _two_workers(bench: Bench, *, again: bool = False, options: tuple[str, ...] = ()) -> None:
    for name in ("worker1", "worker2"):
        bench.cluster.start_worker(*options, host=bench.hosts.get(name, THIS_MACHINE), again=again)
    bench.cluster.wait_for_workers(2)


@dataclass(frozen=True)
class Cell:
    """A fault, with the expected exit codes of the disturbed run and its expected message."""

    name: str
    fault: Fault
    codes: tuple[int, ...] = (0,)
    message: str = ""
    network: bool = False
    again: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    worker_options: tuple[str, ...] = ()
    huge_video: bool = False


CELLS = (
    Cell("worker killed", _kill_worker),
    Cell("host of a worker lost", _kill_host),
    Cell("scheduler killed and restarted", _restart_scheduler, again=True, message="scheduler is gone"),
    Cell(
        "scheduler killed for good",
        _kill_scheduler_for_good,
        codes=(130, 0),
        message="the same command goes on",
        environment=_SHORT_TIMEOUT,
    ),
    Cell(
        "all workers lost for good",
        _kill_all_workers,
        codes=(130, 0),
        message="the same command goes on",
        environment=_SHORT_TIMEOUT,
    ),
    Cell("all workers lost, one new worker", _replace_all_workers),
    Cell("flow killed, run again at once", _kill_run, codes=(-signal.SIGKILL, 0)),
    Cell(
        "workers out of memory",
        _out_of_memory,
        codes=(1, 0),
        message="crop_faces failed: huge: out of memory",
        worker_options=("--memory-limit", "1300MB"),
        huge_video=True,
    ),
    Cell("worker without network, 60 s", _cut("worker1"), network=True, again=True),
    Cell("flow without network, 60 s", _cut("flow"), network=True, again=True),
    Cell("scheduler without network, 60 s", _cut("scheduler"), network=True, again=True),
)


def make_data(folder: Path) -> None:
    """Generate three videos, one with two people: nine segments that take about a second each."""
    generate_demo_data(folder, params=DemoDataParams(3, 0, 0, frames=3 * SEGMENT_FRAMES))
    (folder / "videos" / "corrupt.mp4").unlink()


def _add_huge_video(data: Path, folder: Path) -> Path:
    """Copy the videos and add one with two 8K frames, whose detection needs more than a gigabyte."""
    (folder / "videos").mkdir(parents=True)
    for path in (data / "videos").iterdir():
        shutil.copy(path, folder / "videos")
    with av.open(folder / "videos" / "huge.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((4320, 7680, 3), 90, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder


def run_undisturbed(data: Path, folder: Path) -> tuple[dict[str, bytes], float]:
    """Run without a fault on a cluster started by hand; return the expected content of the store and the seconds."""
    with hand_started(folder / "logs") as cluster:
        bench = Bench(data, folder / "store", cluster)
        _two_workers(bench)
        started = time.monotonic()
        bench.finish()
        seconds = time.monotonic() - started
        assert bench.codes == [0], bench.errors
    return data_bytes(bench.store), seconds


def try_cell(cell: Cell, data: Path, folder: Path, expected: dict[str, bytes], seconds: float) -> tuple[bool, str]:
    """Run one cell; return whether it succeeded and a line with the result."""
    reason = reason_for_no_namespaces() if cell.network else None
    if reason:
        return True, f"{cell.name:32} skipped: {reason}"
    folder.mkdir(parents=True)
    if cell.huge_video:
        data = _add_huge_video(data, folder / "data")
        expected, seconds = run_undisturbed(data, folder)
        (folder / "store").rename(folder / "undisturbed")
    with _bench(cell, data, folder) as bench:
        _two_workers(bench, again=cell.again, options=cell.worker_options)
        started = time.monotonic()
        bench.start_run(**cell.environment)
        cell.fault(bench)
        extra = time.monotonic() - started - seconds
        pause = bench.pauses.longest() if bench.pauses else 0.0
    found, problems = data_bytes(bench.store), bench.problems
    if tuple(bench.codes) != cell.codes:
        problems.append(f"codes {bench.codes}, expected {list(cell.codes)}")
    if cell.message not in "\n".join(bench.errors):
        problems.append(f"missing message: {cell.message!r}")
    if any("Traceback" in line for line in bench.errors):
        problems.append("traceback")
    if found.keys() != expected.keys():
        problems.append(
            f"{len(expected.keys() - found.keys())} files missing, {len(found.keys() - expected.keys())} superfluous"
        )
    elif found != expected:
        problems.append("different bytes")
    outcome = "same bytes" if not problems else f"FAILED: {'; '.join(problems)}"
    codes = ", then ".join(map(str, bench.codes))
    if problems:
        outcome += "\n    " + "\n    ".join(bench.errors[-20:])
    return (
        not problems,
        f"{cell.name:32} code {codes:10} longest pause {pause:5.1f} s, total {extra:+6.1f} s, {outcome}",
    )


@contextlib.contextmanager
def _bench(cell: Cell, data: Path, folder: Path) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        hosts, switched = {}, None
        if cell.network:
            switched = stack.enter_context(switched_hosts())
            hosts = {name: switched.add(name) for name in ("scheduler", "worker1", "worker2", "flow")}
        cluster = stack.enter_context(
            hand_started(folder / "logs", scheduler_host=hosts.get("scheduler", THIS_MACHINE))
        )
        bench = Bench(data, folder / "store", cluster, hosts, switched)
        try:
            yield bench
        finally:
            if bench.pauses:
                bench.pauses.longest()
            if bench.run:
                end_session(bench.run)


def print_matrix(root: Path, words: Sequence[str]) -> int:
    """Print a line per cell whose name contains one of the words (all without words); return the number of failures."""
    chosen = [cell for cell in CELLS if not words or any(word in cell.name for word in words)]
    if not chosen:
        return 0
    data, failed = root / "data", 0
    make_data(data)
    expected, seconds = run_undisturbed(data, root / "undisturbed")
    print(f"undisturbed: {seconds:.1f} s", flush=True)
    for number, cell in enumerate(chosen):
        succeeded, line = try_cell(cell, data, root / str(number), expected, seconds)
        print(line, flush=True)
        failed += not succeeded
    return failed
