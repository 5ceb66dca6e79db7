"""Run ``extract`` on a cluster with a separate scheduler, and inject faults into its processes and its network.

Part of ``python -m tests.faults``. Each fault is injected while a worker is writing a segment. The run then continues,
or is started again, and must end with the files of the uninterrupted run.
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
from tests.faults.dask_cluster import ROOT, DaskCluster, dask_cluster, is_writing
from tests.faults.interruption_matrix import read_results
from tests.faults.interruptions import count_finished
from tests.faults.network import THIS_MACHINE, Host, NetworkSwitch, kill_session, missing_for_namespaces, network_switch

SEGMENT_FRAMES = 50
_SEGMENTS = 9
_WAIT_SECONDS = 400
_CUT_SECONDS = 60
_AWAY_SECONDS = 5
_SHORT_TIMEOUT = {"AFFWILD2_PATIENCE_SECONDS": "8"}


class Pauses:
    """Thread that measures the longest time in which no unit of a store was finished."""

    def __init__(self, store: Path) -> None:
        self._store, self._ended, self._longest = store, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        before, since = count_finished(self._store), time.monotonic()
        while not self._ended.wait(0.05):
            now = count_finished(self._store)
            if now != before:
                self._longest = max(self._longest, time.monotonic() - since)
                before, since = now, time.monotonic()

    def longest(self) -> float:
        """Stop measuring; return seconds, without the time after the last unit."""
        self._ended.set()
        self._thread.join()
        return self._longest


@dataclass
class Trial:
    """A run on a cluster with its output, exit codes and failed checks."""

    data: Path
    store: Path
    cluster: DaskCluster
    hosts: dict[str, Host] = field(default_factory=dict)
    switch: NetworkSwitch | None = None
    run: subprocess.Popen[str] | None = None
    errors: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pauses: "Pauses | None" = None

    def measure_pause(self) -> None:
        """Start measuring how long no unit is finished."""
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

    def wait_for_writing_worker(self, dataset: str = "faces") -> psutil.Process:
        """Wait until a unit of the dataset is finished and a worker writes another one; return that worker."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            assert self.run and self.run.poll() is None, f"ended too early: {self.run and self.run.communicate()[1]}"
            if count_finished(self.store / dataset):
                for process in self.cluster.worker_processes():
                    if is_writing(process, self.store):
                        return process
            time.sleep(0.02)
        raise AssertionError(f"no worker wrote a unit of {dataset}")

    def end_run(self) -> int:
        """Wait for the run; return its exit code."""
        assert self.run
        try:
            _, errors = self.run.communicate(timeout=_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            kill_session(self.run)
            self.errors.append("hangs")
            return -1
        self.errors += errors.strip().splitlines()
        self.codes.append(self.run.returncode)
        return self.run.returncode

    def finish(self) -> None:
        """Run the same command again."""
        self.start_run()
        self.end_run()


Fault = Callable[[Trial], None]


def _kill_worker(trial: Trial) -> None:
    victim = trial.wait_for_writing_worker()
    trial.measure_pause()
    victim.kill()
    trial.cluster.wait_for_workers(2)
    trial.end_run()


def _kill_host(trial: Trial) -> None:
    process = trial.wait_for_writing_worker()
    trial.measure_pause()
    for worker in list(trial.cluster.workers):
        if process in trial.cluster.worker_processes(worker):
            trial.cluster.end_worker(worker)
    trial.end_run()


def _restart_scheduler(trial: Trial) -> None:
    trial.wait_for_writing_worker()
    trial.measure_pause()
    trial.cluster.kill_scheduler()
    time.sleep(_AWAY_SECONDS)
    trial.cluster.start_scheduler()
    trial.end_run()


def _kill_scheduler_for_good(trial: Trial) -> None:
    trial.wait_for_writing_worker()
    trial.measure_pause()
    trial.cluster.kill_scheduler()
    trial.end_run()
    trial.cluster.end_workers()
    trial.cluster.start_scheduler()
    _two_workers(trial)
    trial.finish()


def _kill_all_workers(trial: Trial) -> None:
    trial.wait_for_writing_worker()
    trial.measure_pause()
    trial.cluster.end_workers()
    trial.end_run()
    _two_workers(trial)
    trial.finish()


def _replace_all_workers(trial: Trial) -> None:
    trial.wait_for_writing_worker()
    trial.measure_pause()
    trial.cluster.end_workers()
    time.sleep(_AWAY_SECONDS)
    trial.cluster.start_worker()
    trial.end_run()


def _kill_run(trial: Trial) -> None:
    """Kill the run and start it again at once, while workers still write units of the first one."""
    trial.wait_for_writing_worker()
    trial.measure_pause()
    assert trial.run
    trial.run.kill()
    trial.end_run()
    trial.finish()


def _cut(name: str) -> Fault:
    def cut(trial: Trial) -> None:
        assert trial.switch
        trial.wait_for_writing_worker()
        trial.measure_pause()
        trial.switch.cut(trial.hosts[name])
        reconnect = threading.Timer(_CUT_SECONDS, trial.switch.reconnect, [trial.hosts[name]])
        reconnect.start()
        trial.end_run()
        reconnect.cancel()

    return cut


def _out_of_memory(trial: Trial) -> None:
    """Process a video of huge pictures on workers without enough memory for it, then on others."""
    trial.measure_pause()
    trial.end_run()
    if count_finished(trial.store / "faces") != _SEGMENTS:
        trial.problems.append("other videos are not complete")
    trial.cluster.end_workers()
    _two_workers(trial)
    trial.finish()


def _two_workers(trial: Trial, *, restart: bool = False, options: tuple[str, ...] = ()) -> None:
    for name in ("worker1", "worker2"):
        trial.cluster.start_worker(*options, host=trial.hosts.get(name, THIS_MACHINE), restart=restart)
    trial.cluster.wait_for_workers(2)


@dataclass(frozen=True)
class FaultCase:
    """A fault, the expected exit codes, and a message that the output must contain."""

    name: str
    fault: Fault
    codes: tuple[int, ...] = (0,)
    message: str = ""
    network: bool = False
    restart: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    worker_options: tuple[str, ...] = ()
    huge_video: bool = False


CASES = (
    FaultCase("worker killed", _kill_worker),
    FaultCase("host of a worker lost", _kill_host),
    FaultCase(
        "scheduler killed and restarted",
        _restart_scheduler,
        restart=True,
        message="lost the connection to the Dask scheduler",
    ),
    FaultCase(
        "scheduler killed for good",
        _kill_scheduler_for_good,
        codes=(130, 0),
        message="the same command goes on",
        environment=_SHORT_TIMEOUT,
    ),
    FaultCase(
        "all workers lost for good",
        _kill_all_workers,
        codes=(130, 0),
        message="the same command goes on",
        environment=_SHORT_TIMEOUT,
    ),
    FaultCase("all workers lost, one new worker", _replace_all_workers),
    FaultCase("flow killed, run again at once", _kill_run, codes=(-signal.SIGKILL, 0)),
    FaultCase(
        "workers out of memory",
        _out_of_memory,
        codes=(1, 0),
        message="crop_faces failed: huge: out of memory",
        worker_options=("--memory-limit", "1300MB"),
        huge_video=True,
    ),
    FaultCase("worker without network, 60 s", _cut("worker1"), network=True, restart=True),
    FaultCase("flow without network, 60 s", _cut("flow"), network=True, restart=True),
    FaultCase("scheduler without network, 60 s", _cut("scheduler"), network=True, restart=True),
)


def make_data(folder: Path) -> None:
    """Generate three videos, one with two people: nine segments of about a second of work each."""
    generate_demo_data(folder, params=DemoDataParams(3, 0, 0, frames=3 * SEGMENT_FRAMES))
    (folder / "videos" / "corrupt.mp4").unlink()


def _add_huge_video(data: Path, folder: Path) -> Path:
    """Copy the videos and add one with two 8K frames, which need more than a gigabyte of memory."""
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


def run_uninterrupted(data: Path, folder: Path) -> tuple[dict[str, bytes], float]:
    """Run without a fault; return the expected files and the duration in seconds."""
    with dask_cluster(folder / "logs") as cluster:
        trial = Trial(data, folder / "store", cluster)
        _two_workers(trial)
        started = time.monotonic()
        trial.finish()
        seconds = time.monotonic() - started
        assert trial.codes == [0], trial.errors
    return read_results(trial.store), seconds


def run_case(case: FaultCase, data: Path, folder: Path, expected: dict[str, bytes], seconds: float) -> tuple[bool, str]:
    """Run a case; return whether it passed, and a line that describes the outcome."""
    reason = missing_for_namespaces() if case.network else None
    if reason:
        return True, f"{case.name:32} skipped: {reason}"
    folder.mkdir(parents=True)
    if case.huge_video:
        data = _add_huge_video(data, folder / "data")
        expected, seconds = run_uninterrupted(data, folder)
        (folder / "store").rename(folder / "uninterrupted")
    with _trial(case, data, folder) as trial:
        _two_workers(trial, restart=case.restart, options=case.worker_options)
        started = time.monotonic()
        trial.start_run(**case.environment)
        case.fault(trial)
        extra = time.monotonic() - started - seconds
        pause = trial.pauses.longest() if trial.pauses else 0.0
    found, problems = read_results(trial.store), trial.problems
    if tuple(trial.codes) != case.codes:
        problems.append(f"codes {trial.codes}, expected {list(case.codes)}")
    if case.message not in "\n".join(trial.errors):
        problems.append(f"message is missing: {case.message!r}")
    if any("Traceback" in line for line in trial.errors):
        problems.append("traceback")
    if found.keys() != expected.keys():
        problems.append(
            f"{len(expected.keys() - found.keys())} files missing, {len(found.keys() - expected.keys())} superfluous"
        )
    elif found != expected:
        problems.append("different bytes")
    outcome = "same bytes" if not problems else f"FAILED: {'; '.join(problems)}"
    codes = ", then ".join(map(str, trial.codes))
    if problems:
        outcome += "\n    " + "\n    ".join(trial.errors[-20:])
    return (
        not problems,
        f"{case.name:32} code {codes:10} longest pause {pause:5.1f} s, {extra:+6.1f} s in total, {outcome}",
    )


@contextlib.contextmanager
def _trial(case: FaultCase, data: Path, folder: Path) -> Iterator[Trial]:
    with contextlib.ExitStack() as stack:
        hosts, switch = {}, None
        if case.network:
            switch = stack.enter_context(network_switch())
            hosts = {name: switch.add(name) for name in ("scheduler", "worker1", "worker2", "flow")}
        cluster = stack.enter_context(
            dask_cluster(folder / "logs", scheduler_host=hosts.get("scheduler", THIS_MACHINE))
        )
        trial = Trial(data, folder / "store", cluster, hosts, switch)
        try:
            yield trial
        finally:
            if trial.pauses:
                trial.pauses.longest()
            if trial.run:
                kill_session(trial.run)


def run_cases(root: Path, words: Sequence[str]) -> int:
    """Run the cases whose name contains one of the words, or all; print a line each; return the number of failures."""
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    if not chosen:
        return 0
    data, failed = root / "data", 0
    make_data(data)
    expected, seconds = run_uninterrupted(data, root / "uninterrupted")
    print(f"uninterrupted: {seconds:.1f} s", flush=True)
    for number, case in enumerate(chosen):
        good, line = run_case(case, data, root / str(number), expected, seconds)
        print(line, flush=True)
        failed += not good
    return failed
