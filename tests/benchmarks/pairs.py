"""A benchmark is a pair: the plain way and ours, run in turns on the same input, with a check that both agree.

Here is how one pair is measured. ``bench_*.py`` scripts yield pairs; ``run_benchmarks`` runs the scripts and keeps what
they measured; ``result_files`` puts it into tables.
"""

import argparse
import ctypes
import gc
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Pair:
    """Two ways to the same result.

    Attributes:
        reference, ours: the calls that are timed, without arguments.
        parity: gets what both returned and says in a few words how far apart they are, with numbers; raises
            AssertionError if that is too far.
        goal: by how much ours should be faster; None where nothing was promised.
        rounds: how often each is timed, in turns, after an untimed call of each; with one, ours is timed while its
            memory is watched.
        reference_rounds: fewer for a slow reference, whose first call then counts as well.
        reference_scale: the reference does only 1 / this of the work, and its seconds are multiplied by it.
        work, unit: how much one call of ours does (472, "frames"), to show speed in absolute terms.
    """

    name: str
    reference: Callable[[], Any]
    ours: Callable[[], Any]
    parity: Callable[[Any, Any], str]
    goal: float | None = None
    rounds: int = 5
    reference_rounds: int | None = None
    reference_scale: float = 1.0
    work: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if min(self.rounds, self.reference_rounds or 1) < 1 or self.reference_scale <= 0:
            raise ValueError(f"{self.name}: expected at least one round and a positive scale")


@dataclass(frozen=True)
class Side:
    """One side of a pair: seconds of each round, and the peak of memory in MB (10^6 bytes).

    ``peak_mb`` is all that the process and its children held; ``grown_mb`` is how much of it came with the call. None
    where the kernel does not tell.
    """

    seconds: list[float]
    peak_mb: float | None
    grown_mb: float | None

    @property
    def median_seconds(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Measured:
    """What was measured for one pair."""

    script: str
    name: str
    reference: Side
    ours: Side
    parity: str
    parity_holds: bool
    allocator: str = "default"
    goal: float | None = None
    reference_scale: float = 1.0
    work: float | None = None
    unit: str = ""

    @property
    def ratio(self) -> float:
        """Median seconds of the reference over those of ours."""
        return self.reference.median_seconds / self.ours.median_seconds

    @property
    def key(self) -> str:
        """What a measurement is found by when it is compared with an earlier one."""
        return f"{self.script}: {self.name} ({self.allocator})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the ratio among them for people who read the file."""
        return asdict(self) | {"ratio": round(self.ratio, 3)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Measured":
        """The value that ``to_dict`` gave."""
        fields = {name: value for name, value in values.items() if name != "ratio"}
        return cls(**fields | {side: Side(**fields[side]) for side in ("reference", "ours")})


def measure(pair: Pair, *, script: str = "", allocator: str = "default") -> Measured:
    """Run a pair: memory of each side first, one after the other, then both in turns."""
    pair.ours()  # compiles what is compiled at the first call
    got, ours_memory, ours_first_seconds = _with_memory(pair.ours)
    expected, reference_memory, first_seconds = _with_memory(pair.reference)
    try:
        parity, holds = pair.parity(expected, got), True
    except AssertionError as error:
        parity, holds = f"BROKEN: {' '.join(str(error).split())[:200]}", False
    del expected, got
    reference_seconds = [] if pair.reference_rounds is None else [first_seconds]
    wanted = pair.reference_rounds or pair.rounds
    ours_seconds = [ours_first_seconds] if pair.rounds == 1 else []
    for _ in range(pair.rounds):
        if len(reference_seconds) < wanted:
            reference_seconds.append(_seconds(pair.reference))
        if len(ours_seconds) < pair.rounds:
            ours_seconds.append(_seconds(pair.ours))
    scaled = [seconds * pair.reference_scale for seconds in reference_seconds]
    return Measured(
        script,
        pair.name,
        Side(scaled, *reference_memory),
        Side(ours_seconds, *ours_memory),
        parity,
        holds,
        allocator,
        pair.goal,
        pair.reference_scale,
        pair.work,
        pair.unit,
    )


def run_script(make_pairs: Callable[[bool], Iterator[Pair]]) -> None:
    """The main function of a benchmark script: measure its pairs and print a line for each.

    ``--quick`` takes smaller sizes, for which no goal was set; ``--json FILE`` keeps the figures; ``--only WORD``
    leaves out other names.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--script", default="")
    parser.add_argument("--allocator", default="default")
    options = parser.parse_args()
    found = []
    for pair in make_pairs(options.quick):
        if options.only in pair.name:
            pair = replace(pair, goal=None) if options.quick else pair
            found.append(measure(pair, script=options.script, allocator=options.allocator))
            print(describe(found[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps([measured.to_dict() for measured in found]))
    if not all(measured.parity_holds for measured in found):
        raise SystemExit(1)


def describe(measured: Measured) -> str:
    """One line: path, seconds of both, ratio, goal, agreement, speed, memory."""
    goal = "" if measured.goal is None else f" (goal {measured.goal:g}x{'' if goal_is_met(measured) else ', MISSED'})"
    speed = f"; {measured.work / measured.ours.median_seconds:,.0f} {measured.unit}/s" if measured.work else ""
    scaled = f" (from 1/{measured.reference_scale:g})" if measured.reference_scale != 1 else ""
    memory = f"; peak {megabytes(measured.reference)} -> {megabytes(measured.ours)} MB"
    return (
        f"{measured.name} [{measured.allocator}]: {measured.reference.median_seconds:.4g} s{scaled} -> "
        f"{measured.ours.median_seconds:.4g} s, {measured.ratio:.3g}x{goal}; {measured.parity}{speed}{memory}"
    )


def goal_is_met(measured: Measured) -> bool:
    """Whether the ratio is at least the goal; True where there is none."""
    return measured.goal is None or measured.ratio >= measured.goal


def megabytes(side: Side) -> str:
    """Peak of a side and how much of it came with the call, as ``812 (+40)``."""
    if side.peak_mb is None or side.grown_mb is None:
        return "?"
    return f"{side.peak_mb:.0f} (+{side.grown_mb:.0f})"


def _seconds(call: Callable[[], Any]) -> float:
    gc.collect()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _with_memory(call: Callable[[], Any]) -> tuple[Any, tuple[float | None, float | None], float]:
    """What a call returns, its (peak, growth) in MB, and its seconds."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else what the side before has freed would count for this one
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew from what is held now
        before = _status_mb("VmRSS")
    except (OSError, AttributeError):
        before = None
    with _ChildrenWatch() as children:
        started = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - started
    if before is None:
        return result, (None, None), seconds
    peak = _status_mb("VmHWM") + children.peak_mb
    return result, (peak, max(peak - before, 0.0)), seconds


def _status_mb(name: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024 / 1e6


class _ChildrenWatch:
    """Highest sum of resident memory of child processes, looked at every 50 ms."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_ChildrenWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.05):
            total = 0
            for child in me.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_mb = max(self.peak_mb, total / 1e6)
