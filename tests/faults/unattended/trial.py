"""One fault of a deployed run: what the server shows of it, and what the next run does."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.faults.interruptions import count_finished
from tests.faults.unattended.lab import ENDED, Lab, Parameters, copy_videos, results_of

SHOWN_SECONDS = 120
_WAIT_SECONDS = 600
_ASK_SECONDS = 1


@dataclass
class Outcome:
    """A state of a run: its type, its name, its message, and the seconds since the fault."""

    type: str
    name: str
    message: str
    seconds: float

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.name, self.message)))


@dataclass
class Trial:
    """A folder of videos, a store and a folder of predictions for one fault, and what was seen of it.

    Servers, clusters and disks that a fault needs until its results are compared enter ``resources``.
    """

    lab: Lab
    folder: Path
    resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    parameters: Parameters = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    run: str = ""
    runs: list[str] = field(default_factory=list)
    faulted: float = 0.0
    shown: Outcome | None = None
    end: Outcome | None = None
    ended_seconds: float | None = None
    next_started_seconds: float | None = None
    next: Outcome | None = None
    problems: list[str] = field(default_factory=list)
    note: str = ""
    read: Callable[[], dict[str, bytes]] | None = None

    def __post_init__(self) -> None:
        copy_videos(self.lab.data, self.videos)
        self.parameters |= {"videos": [str(self.videos)], "store": str(self.store), "out": str(self.out), "workers": 2}

    @property
    def videos(self) -> Path:
        """The folder of videos of this fault."""
        return self.folder / "videos"

    @property
    def store(self) -> Path:
        """The store of this fault, if it is on a disk."""
        return self.folder / "store"

    @property
    def out(self) -> Path:
        """The folder of predictions of this fault, if it is on a disk."""
        return self.folder / "out"

    def start(self, deployment: str = "rescore/affwild2", **environment: str) -> str:
        """Start a run; return its id."""
        self.run = self.lab.start_run(deployment, self.parameters, self.environment | environment)
        self.runs.append(self.run)
        return self.run

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until something has happened during the run."""
        deadline, asked = time.monotonic() + _WAIT_SECONDS, 0.0
        while not happened():
            # Every request to the server takes processor time from the run.
            if (now := time.monotonic()) > asked + 2:
                state, asked = self.lab.run(self.run)["state"], now
                assert state["type"] not in ENDED, f"ended before {what}: {state['name']} {state['message']}"
            assert now < deadline, f"waited in vain for: {what}"
            time.sleep(0.1)

    def wait_for_work(self) -> None:
        """Wait until every video is indexed and faces are being cropped."""
        self.wait_until(lambda: count_finished(self.store / "videos") >= 3, "all videos are indexed")

    def wait_for_list(self) -> None:
        """Wait until the videos are listed, and none is read yet."""
        self.wait_until((self.store / "inputs").exists, "the videos are listed")

    def begin_fault(self) -> None:
        """Count seconds from now on."""
        self.faulted = time.monotonic()

    def run_with_fault(self, times: int = 1, *, to_the_end: bool = False, **environment: str) -> None:
        """Watch runs that start with the fault, one after the other; keep what the server shows of the last one."""
        for _ in range(times):
            self.start(**environment)
            self.begin_fault()
            self.watch()
            if to_the_end or times > 1:
                self.wait_for_end()
        if times > 1:
            self.note = f"after {times} runs like this"

    @contextlib.contextmanager
    def fault_during_a_run(
        self, until: Callable[[], object] | None = None, *, to_the_end: bool = False, **environment: str
    ) -> Iterator[psutil.Process]:
        """Start a run, wait ``until`` faces are being cropped, let the block bring the fault about, and watch the run.

        Yields the process of the run.
        """
        self.start(**environment)
        if until:
            until()
        else:
            self.wait_for_work()
        process = self.lab.processes_of(self.run)[0]
        self.begin_fault()
        yield process
        self.watch()
        if to_the_end:
            self.wait_for_end()

    def watch(self, *, seconds: float = SHOWN_SECONDS, run: str | None = None) -> Outcome:
        """Wait until the run has ended, at most two minutes after the fault; keep what the server shows then."""
        self.faulted = self.faulted or time.monotonic()
        self.end, self.ended_seconds = None, None
        while True:
            with contextlib.suppress(httpx.TransportError):
                shown = self._outcome(run or self.run)
                if shown.type in ENDED:
                    self.ended_seconds = shown.seconds
                    break
                if shown.seconds > seconds:
                    break
            time.sleep(_ASK_SECONDS)
        self.shown = shown
        return shown

    def wait_for_end(self) -> Outcome:
        """Wait until a run that may still be shown as running after two minutes has ended."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while (now := self._outcome(self.run)).type not in ENDED:
            assert time.monotonic() < deadline, f"the run does not end: {now}"
            time.sleep(_ASK_SECONDS)
        self.end, self.ended_seconds = now, now.seconds
        return now

    def cancel(self) -> None:
        """Cancel the run with the request of the web page."""
        self.lab.service.ask("POST", f"flow_runs/{self.run}/set_state", state={"type": "CANCELLING"}, force=False)

    def run_next(self, **environment: str) -> Outcome:
        """Start the next run and wait for its end."""
        created = time.monotonic()
        run = self.lab.start_run("rescore/affwild2", self.parameters, self.environment | environment)
        self.runs.append(run)
        return self.follow(run, created)

    def follow(self, run: str, created: float) -> Outcome:
        """Wait until the next run has started and ended."""
        started, deadline = None, created + _WAIT_SECONDS
        while True:
            now = self._outcome(run)
            if started is None and now.type in ("RUNNING", *ENDED):
                started = time.monotonic() - created
            if now.type in ENDED:
                break
            if time.monotonic() > deadline:
                self.problems.append(f"the next run is still {now} after {_WAIT_SECONDS} s")
                self.lab.service.ask("POST", f"flow_runs/{run}/set_state", state={"type": "CANCELLING"}, force=True)
                break
            time.sleep(_ASK_SECONDS)
        self.next, self.next_started_seconds = now, started
        return now

    def _outcome(self, run: str) -> Outcome:
        state = self.lab.run(run)["state"]
        return Outcome(state["type"], state["name"], state["message"] or "", time.monotonic() - self.faulted)

    def check_results(self, *, without: Sequence[str] = ()) -> None:
        """Compare all results with those of the undisturbed run, except those of some videos."""
        read = self.read or (lambda: results_of(self.store, self.out))
        found, expected = (_without(results, without) for results in (read(), self.lab.expected))
        if missing := expected.keys() - found.keys():
            self.problems.append(f"{len(missing)} files missing: {min(missing)}")
        if superfluous := found.keys() - expected.keys():
            self.problems.append(f"{len(superfluous)} files too many: {min(superfluous)}")
        if different := [name for name in expected.keys() & found.keys() if expected[name] != found[name]]:
            self.problems.append(f"{len(different)} files with different bytes: {min(different)}")

    def check_logs(self) -> None:
        """Look for tracebacks in the logs of the runs."""
        for number, run in enumerate(self.runs, start=1):
            log = self.lab.log_of(run)
            if "Traceback" in log:
                last = log[log.index("Traceback") :].strip().splitlines()[-1][:120]
                self.problems.append(f"traceback in the log of run {number}: {last}")


def _without(results: Mapping[str, bytes], names: Sequence[str]) -> dict[str, bytes]:
    return {path: content for path, content in results.items() if not any(name in path for name in names)}
