"""Measure a pair: a reference and our implementation, run in turns on the same input, with a check that both agree.

The scripts ``bench_*.py`` yield pairs, ``run_benchmarks`` runs the scripts and stores the measurements, and
``result_files`` renders them as tables.
"""

import argparse
import ctypes
import gc
import json
import resource
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
    """A reference and our implementation of the same computation.

    Attributes:
        reference, ours: the calls to time, without arguments.
        parity: receives both results and returns a short description of their difference, with numbers. Raises
            AssertionError if they differ too much.
        goal: the ratio to reach; None if there is no goal.
        rounds: how often each side is timed, in turns, after an untimed call of each. With one round, ours is timed
            while its memory is measured.
        reference_rounds: a smaller number for a slow reference, whose first call then counts as well.
        reference_scale: the reference does only 1 / ``reference_scale`` of the work; its time is multiplied.
        work, unit: amount of work of one call of ours (472, "frames"), to show absolute speed.
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
class Growth:
    """A reference and our implementation of the same computation, on fewer and more copies of an input.

    Attributes:
        reference, ours: the calls to time; they receive the number of copies. Results do not depend on it.
        copies, reference_copies: fewer and more copies. The difference of the times is without start-up.
        parity, goal: as of a ``Pair``.
        work, unit: amount of work of one copy (472, "frame").
    """

    name: str
    reference: Callable[[int], Any]
    ours: Callable[[int], Any]
    parity: Callable[[Any, Any], str]
    work: float
    unit: str
    copies: tuple[int, int] = (4, 16)
    reference_copies: tuple[int, int] = (1, 2)
    goal: float | None = None


@dataclass(frozen=True)
class Side:
    """One side of a pair: seconds of each round, and peak memory in MB (10^6 bytes).

    ``peak_mb`` is the peak of the process and its children; ``grown_mb`` is the increase during the call. Both are None
    if the kernel does not report them.
    """

    seconds: list[float]
    peak_mb: float | None
    grown_mb: float | None

    @property
    def median_seconds(self) -> float:
        """Median time of the rounds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Measured:
    """The measurement of one pair."""

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
        """Median time of the reference divided by that of ours."""
        return self.reference.median_seconds / self.ours.median_seconds

    @property
    def key(self) -> str:
        """Key that identifies the same measurement in earlier results."""
        return f"{self.script}: {self.name} ({self.allocator})"

    def to_dict(self) -> dict[str, Any]:
        """Return values for JSON, including the ratio for readers of the file."""
        return asdict(self) | {"ratio": round(self.ratio, 3)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Measured":
        """Restore a measurement from the result of ``to_dict``."""
        fields = {name: value for name, value in values.items() if name != "ratio"}
        return cls(**fields | {side: Side(**fields[side]) for side in ("reference", "ours")})


def measure(pair: Pair, *, script: str = "", allocator: str = "default") -> Measured:
    """Measure a pair: first the memory of each side, one after the other, then the times of both in turns."""
    pair.ours()  # the first call compiles
    got, ours_memory, ours_first_seconds = _call_with_memory(pair.ours)
    expected, reference_memory, first_seconds = _call_with_memory(pair.reference)
    parity, holds = _check(pair.parity, expected, got)
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


def _check(parity: Callable[[Any, Any], str], expected: Any, got: Any) -> tuple[str, bool]:
    """Return the description of the difference of two results, and whether it is small enough."""
    try:
        return parity(expected, got), True
    except AssertionError as error:
        return f"BROKEN: {' '.join(str(error).split())[:200]}", False


def measure_growth(growth: Growth, *, script: str = "", allocator: str = "default") -> Measured:
    """Measure the time of one more copy on both sides, in turns."""
    growth.ours(growth.copies[0])  # the first call converts networks
    got, memory, _ = _call_with_memory(lambda: growth.ours(growth.copies[0]))
    expected = growth.reference(1)
    parity, holds = _check(growth.parity, expected, got)
    used, reference_seconds = [], []
    for copies, reference_copies in zip(growth.copies, growth.reference_copies, strict=True):
        before = _children_cpu_seconds()
        seconds = _seconds(lambda copies=copies: growth.ours(copies))
        used.append((seconds, _children_cpu_seconds() - before))
        reference_seconds.append(_seconds(lambda copies=reference_copies: growth.reference(copies)))
    (few_seconds, few_cpu), (many_seconds, many_cpu) = used
    few, many = growth.copies
    more, reference_more = many - few, growth.reference_copies[1] - growth.reference_copies[0]
    seconds, cpu = (many_seconds - few_seconds) / more, (many_cpu - few_cpu) / more
    return Measured(
        script,
        f"{growth.name}, steady state",
        Side([(reference_seconds[1] - reference_seconds[0]) / reference_more], None, None),
        Side([seconds], *memory),
        f"{parity}; {1000 * cpu / growth.work:.1f} core-ms per {growth.unit}",
        holds,
        allocator,
        growth.goal,
        work=growth.work,
        unit=f"{growth.unit}s",
    )


def _children_cpu_seconds() -> float:
    """Processor time of all children that have ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_script(make_pairs: Callable[[bool], Iterator[Pair] | Iterator[Growth]]) -> None:
    """Run a benchmark script: measure its pairs and print a line for each.

    ``--quick`` uses smaller inputs, which have no goals; ``--json FILE`` stores the measurements; ``--only WORD``
    selects pairs by name.
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
            of = {"script": options.script, "allocator": options.allocator}
            found.append(measure_growth(pair, **of) if isinstance(pair, Growth) else measure(pair, **of))
            print(describe(found[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps([measured.to_dict() for measured in found]))
    if not all(measured.parity_holds for measured in found):
        raise SystemExit(1)


def describe(measured: Measured) -> str:
    """Return one line: name, times of both sides, ratio, goal, agreement, speed, memory."""
    goal = "" if measured.goal is None else f" (goal {measured.goal:g}x{'' if goal_is_met(measured) else ', MISSED'})"
    speed = f"; {measured.work / measured.ours.median_seconds:,.0f} {measured.unit}/s" if measured.work else ""
    scaled = f" (from 1/{measured.reference_scale:g})" if measured.reference_scale != 1 else ""
    memory = f"; peak {megabytes(measured.reference)} -> {megabytes(measured.ours)} MB"
    return (
        f"{measured.name} [{measured.allocator}]: {measured.reference.median_seconds:.4g} s{scaled} -> "
        f"{measured.ours.median_seconds:.4g} s, {measured.ratio:.3g}x{goal}; {measured.parity}{speed}{memory}"
    )


def goal_is_met(measured: Measured) -> bool:
    """Return whether the ratio reaches the goal; True if there is no goal."""
    return measured.goal is None or measured.ratio >= measured.goal


def megabytes(side: Side) -> str:
    """Format the peak memory of a side and its increase during the call, as ``812 (+40)``."""
    if side.peak_mb is None or side.grown_mb is None:
        return "?"
    return f"{side.peak_mb:.0f} (+{side.grown_mb:.0f})"


def _seconds(call: Callable[[], Any]) -> float:
    gc.collect()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _call_with_memory(call: Callable[[], Any]) -> tuple[Any, tuple[float | None, float | None], float]:
    """Call a function; return its result, its (peak, increase) of memory in MB, and its seconds."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # otherwise memory that the other side has freed would count
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current value
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
    """Peak of the sum of the resident memory of child processes, sampled every 50 ms."""

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
        process = psutil.Process()
        while not self._stop.wait(0.05):
            total = 0
            for child in process.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_mb = max(self.peak_mb, total / 1e6)
