"""``extract`` on a cluster that was started by hand, and everything that may happen to its processes and its network.

Part of ``python -m tests.faults``, which prints a line per fault. Each is brought about while a worker is in the middle
of a segment; then the run goes on, or is run again, and must end with the very files of the undisturbed run.
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
    """The longest time in which no unit of a store was finished, looked at by a thread until ``longest`` is asked."""

    def __init__(self, store: Path) -> None:
        self._store, self._ended, self._longest = store, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        before, since = finished_units(self._store), time.monotonic()
        while not self._ended.wait(0.05):
            now = finished_units(self._store)
            if now != before:
                self._longest = max(self._longest, time.monotonic() - since)
                before, since = now, time.monotonic()

    def longest(self) -> float:
        """Seconds; the time after the last unit does not count."""
        self._ended.set()
        self._thread.join()
        return self._longest


@dataclass
class Bench:
    """A run on a cluster, and what may be done to it."""

    data: Path
    store: Path
    cluster: HandStarted
    hosts: dict[str, Host] = field(default_factory=dict)
    switched: Switched | None = None
    run: subprocess.Popen[str] | None = None
    errors: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    pauses: "Pauses | None" = None

    def fault_begins(self) -> None:
        """From now on, take note of how long no unit is finished."""
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

    def wait_for_worker_in_mid_segment(self, dataset: str = "faces") -> psutil.Process:
        """Return when a unit of the dataset is there, and a worker is in the middle of another one; that worker."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            assert self.run and self.run.poll() is None, f"ended too early: {self.run and self.run.communicate()[1]}"
            if finished_units(self.store / dataset):
                for process in self.cluster.worker_processes():
                    if writes_in(process, self.store):
                        return process
            time.sleep(0.02)
        raise AssertionError(f"no worker was seen in the middle of {dataset}")

    def end_run(self) -> int:
        """Wait for the run; its exit code."""
        assert self.run
        try:
            _, errors = self.run.communicate(timeout=_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            end_session(self.run)
            self.errors.append("hangs")
            return -1
        self.errors += errors.strip().splitlines()
        self.codes.append(self.run.returncode)
        return self.run.returncode

    def finish(self) -> None:
        """Run again until nothing is left to do, as a person would."""
        self.start_run()
        self.end_run()


Fault = Callable[[Bench], None]


def _kill_worker(bench: Bench) -> None:
    victim = bench.wait_for_worker_in_mid_segment()
    bench.fault_begins()
    victim.kill()
    bench.cluster.wait_for_workers(2)
    bench.end_run()


def _kill_host(bench: Bench) -> None:
    process = bench.wait_for_worker_in_mid_segment()
    bench.fault_begins()
    for worker in list(bench.cluster.workers):
        if process in bench.cluster.worker_processes(worker):
            bench.cluster.end_worker(worker)
    bench.end_run()


def _kill_scheduler_that_comes_back(bench: Bench) -> None:
    bench.wait_for_worker_in_mid_segment()
    bench.fault_begins()
    bench.cluster.kill_scheduler()
    time.sleep(_AWAY_SECONDS)
    bench.cluster.start_scheduler()
    bench.end_run()


def _kill_scheduler_for_good(bench: Bench) -> None:
    bench.wait_for_worker_in_mid_segment()
    bench.fault_begins()
    bench.cluster.kill_scheduler()
    bench.end_run()
    bench.cluster.end_workers()
    bench.cluster.start_scheduler()
    _two_workers(bench)
    bench.finish()


def _kill_all_workers(bench: Bench) -> None:
    bench.wait_for_worker_in_mid_segment()
    bench.fault_begins()
    bench.cluster.end_workers()
    bench.end_run()
    _two_workers(bench)
    bench.finish()


def _kill_all_workers_another_comes(bench: Bench) -> None:
    bench.wait_for_worker_in_mid_segment()
    bench.fault_begins()
    bench.cluster.end_workers()
    time.sleep(_AWAY_SECONDS)
    bench.cluster.start_worker()
    bench.end_run()


def _kill_run(bench: Bench) -> None:
    """And start it again at once, while workers are still in the middle of what the first one wanted."""
    bench.wait_for_worker_in_mid_segment()
    bench.fault_begins()
    assert bench.run
    bench.run.kill()
    bench.end_run()
    bench.finish()


def _cut(name: str) -> Fault:
    def cut(bench: Bench) -> None:
        assert bench.switched
        bench.wait_for_worker_in_mid_segment()
        bench.fault_begins()
        bench.switched.cut(bench.hosts[name])
        mend = threading.Timer(_CUT_SECONDS, bench.switched.mend, [bench.hosts[name]])
        mend.start()
        bench.end_run()
        mend.cancel()

    return cut


def _out_of_memory(bench: Bench) -> None:
    """A video of huge pictures, on workers that have not enough memory for it, then on others."""
    bench.fault_begins()
    bench.end_run()
    if finished_units(bench.store / "faces") != _SEGMENTS:
        bench.wrong.append("neighbours of the huge video are not complete")
    bench.cluster.end_workers()
    _two_workers(bench)
    bench.finish()


def _two_workers(bench: Bench, *, again: bool = False, options: tuple[str, ...] = ()) -> None:
    for name in ("worker1", "worker2"):
        bench.cluster.start_worker(*options, host=bench.hosts.get(name, THIS_MACHINE), again=again)
    bench.cluster.wait_for_workers(2)


@dataclass(frozen=True)
class Cell:
    """A fault, how the disturbed run must end, and what must be said of it."""

    name: str
    fault: Fault
    codes: tuple[int, ...] = (0,)
    says: str = ""
    network: bool = False
    again: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    worker_options: tuple[str, ...] = ()
    huge_video: bool = False


CELLS = (
    Cell("worker killed", _kill_worker),
    Cell("host of a worker gone", _kill_host),
    Cell("scheduler killed, comes back", _kill_scheduler_that_comes_back, again=True, says="scheduler is gone"),
    Cell(
        "scheduler killed for good",
        _kill_scheduler_for_good,
        codes=(130, 0),
        says="the same command goes on",
        environment=_SHORT_TIMEOUT,
    ),
    Cell(
        "all workers gone for good",
        _kill_all_workers,
        codes=(130, 0),
        says="the same command goes on",
        environment=_SHORT_TIMEOUT,
    ),
    Cell("all workers gone, one comes", _kill_all_workers_another_comes),
    Cell("flow killed, run again at once", _kill_run, codes=(-signal.SIGKILL, 0)),
    Cell(
        "workers out of memory",
        _out_of_memory,
        codes=(1, 0),
        says="crop_faces failed: huge: out of memory",
        worker_options=("--memory-limit", "1300MB"),
        huge_video=True,
    ),
    Cell("worker without network, 60 s", _cut("worker1"), network=True, again=True),
    Cell("flow without network, 60 s", _cut("flow"), network=True, again=True),
    Cell("scheduler without network, 60 s", _cut("scheduler"), network=True, again=True),
)


def make_data(folder: Path) -> None:
    """Three videos, one of two people, nine segments of a second or so of work."""
    generate_demo_data(folder, params=DemoDataParams(3, 0, 0, frames=3 * SEGMENT_FRAMES))
    (folder / "videos" / "corrupt.mp4").unlink()


def _with_huge_video(data: Path, folder: Path) -> Path:
    """The same videos and one of two frames of 8K, which take above a gigabyte to look at."""
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


def undisturbed(data: Path, folder: Path) -> tuple[dict[str, bytes], float]:
    """What must be in the store afterwards, and how long it took on a cluster that was started by hand."""
    with hand_started(folder / "logs") as cluster:
        bench = Bench(data, folder / "store", cluster)
        _two_workers(bench)
        started = time.monotonic()
        bench.finish()
        seconds = time.monotonic() - started
        assert bench.codes == [0], bench.errors
    return data_bytes(bench.store), seconds


def try_cell(cell: Cell, data: Path, folder: Path, expected: dict[str, bytes], seconds: float) -> tuple[bool, str]:
    """Whether the cell is as it should be, and a line that says what was seen."""
    reason = reason_for_no_namespaces() if cell.network else None
    if reason:
        return True, f"{cell.name:32} not tried: {reason}"
    folder.mkdir(parents=True)
    if cell.huge_video:
        data = _with_huge_video(data, folder / "data")
        expected, seconds = undisturbed(data, folder)
        (folder / "store").rename(folder / "undisturbed")
    with _bench(cell, data, folder) as bench:
        _two_workers(bench, again=cell.again, options=cell.worker_options)
        started = time.monotonic()
        bench.start_run(**cell.environment)
        cell.fault(bench)
        extra = time.monotonic() - started - seconds
        pause = bench.pauses.longest() if bench.pauses else 0.0
    found, wrong = data_bytes(bench.store), bench.wrong
    if tuple(bench.codes) != cell.codes:
        wrong.append(f"codes {bench.codes}, expected {list(cell.codes)}")
    if cell.says not in "\n".join(bench.errors):
        wrong.append(f"not said: {cell.says!r}")
    if any("Traceback" in line for line in bench.errors):
        wrong.append("traceback")
    if found.keys() != expected.keys():
        wrong.append(
            f"{len(expected.keys() - found.keys())} files missing, {len(found.keys() - expected.keys())} too many"
        )
    elif found != expected:
        wrong.append("other bytes")
    ended = "same bytes" if not wrong else f"WRONG: {'; '.join(wrong)}"
    codes = ", then ".join(map(str, bench.codes))
    if wrong:
        ended += "\n    " + "\n    ".join(bench.errors[-20:])
    return not wrong, f"{cell.name:32} code {codes:10} longest pause {pause:5.1f} s, {extra:+6.1f} s in all, {ended}"


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
    """Print a line per cell whose name holds one of the words, or of all; how many are wrong."""
    chosen = [cell for cell in CELLS if not words or any(word in cell.name for word in words)]
    if not chosen:
        return 0
    data, wrong = root / "data", 0
    make_data(data)
    expected, seconds = undisturbed(data, root / "undisturbed")
    print(f"undisturbed: {seconds:.1f} s", flush=True)
    for number, cell in enumerate(chosen):
        good, line = try_cell(cell, data, root / str(number), expected, seconds)
        print(line, flush=True)
        wrong += not good
    return wrong
