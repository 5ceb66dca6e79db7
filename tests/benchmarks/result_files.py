"""Files of measured pairs: one per day, with a description of the machine, and the tables of docs/performance.md."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pairs import Measured, goal_is_met, megabytes

FOLDER = Path(__file__).parent / "results"
QUICK_FILE = FOLDER / "quick.json"
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
# A decrease of the ratio below this share of the stored value exceeds the noise of a shared machine.
NOISE = 0.6
_PACKAGES = ("numpy", "torch", "openvino", "onnxruntime", "numba", "pyarrow", "av", "keras", "scikit-learn")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")


def describe_machine() -> dict[str, Any]:
    """Describe what determines speed: processor, number formats, cores, memory, versions; no host names or paths."""
    model, flags = platform.processor() or platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() in ("flags", "Features"):
            flags = set(value.split())
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": model,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": cores,
        "memory_gb": round(gigabytes),
        "python": platform.python_version(),
        "versions": versions,
    }


def store_results(path: Path, measured: Sequence[Measured], *, date: str) -> None:
    """Store results in a file; keep its results of other benchmarks if they are from the same machine."""
    machine = describe_machine()
    rows: dict[str, Measured] = {}
    if path.exists() and json.loads(path.read_text())["machine"] == machine:
        rows = {m.key: m for m in load_results(path)}
    rows |= {m.key: m for m in measured}
    content = {
        "date": date,
        "machine": machine,
        "pairs": [m.to_dict() for m in sorted(rows.values(), key=lambda m: m.script)],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def load_results(path: Path) -> list[Measured]:
    """Load the results of a file; empty if it does not exist."""
    if not path.exists():
        return []
    return [Measured.from_dict(values) for values in json.loads(path.read_text())["pairs"]]


def find_fallen_ratios(now: Iterable[Measured], stored: Iterable[Measured]) -> list[str]:
    """Return a line for every pair whose ratio has fallen below ``NOISE`` times its stored value."""
    before = {m.key: m.ratio for m in stored}
    return [
        f"{m.key}: ratio {m.ratio:.3g}x, was {before[m.key]:.3g}x"
        for m in now
        if m.key in before and m.ratio < NOISE * before[m.key]
    ]


def render_tables(folder: Path) -> str:
    """Render the newest results of every script as Markdown, one table per kind of machine, the newest first."""
    newest: dict[str, dict[str, tuple[str, list[Measured]]]] = {}
    machines: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("????-??-??*.json")):
        content, rows = json.loads(path.read_text()), load_results(path)
        machine = machines[content["date"]] = content["machine"]
        kind = f"{machine['cores']} cores of {machine['processor']} ({', '.join(machine['flags'])})"
        found = newest.pop(kind, {})
        for script in {m.script for m in rows}:
            found[script] = content["date"], [m for m in rows if m.script == script]
        newest[kind] = found
    tables = [_table(kind, scripts, machines) for kind, scripts in reversed(newest.items())]
    return "\n\n".join(tables)


def _table(kind: str, scripts: dict[str, tuple[str, list[Measured]]], machines: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"### {kind}",
        "",
        "| benchmark | reference | ours | ratio | goal | agreement | our speed | peak MB, reference | peak MB, ours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for _, rows in sorted(scripts.values(), key=lambda entry: entry[1][0].script):
        lines += [_table_row(m) for m in rows]
    lines.append("")
    for date in sorted({date for date, _ in scripts.values()}):
        names = ", ".join(sorted(script for script, (day, _) in scripts.items() if day == date))
        lines.append(f"{_describe_day(date, machines[date])} Scripts: {names}.")
    return "\n".join(lines)


def write_page(folder: Path = FOLDER, page: Path = PAGE) -> None:
    """Replace the tables of benchmarks in the page.

    Raises:
        ValueError: as ``write_section``.
    """
    write_section(page, BEGIN, END, render_tables(folder))


def write_section(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two markers of a page.

    Raises:
        ValueError: the page does not have each marker exactly once.
    """
    old = page.read_text()
    if old.count(begin) != 1 or old.count(end) != 1:
        raise ValueError(f"{page.name}: expected the lines {begin} and {end} once each")
    before, rest = old.split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def _table_row(m: Measured) -> str:
    scaled = f" (from 1/{m.reference_scale:g})" if m.reference_scale != 1 else ""
    name = m.name + ("" if m.allocator == "default" else f", allocator {m.allocator}")
    goal = "" if m.goal is None else f"{m.goal:g}x" + ("" if goal_is_met(m) else ", missed")
    speed = f"{m.work / m.ours.median_seconds:,.0f} {m.unit}/s" if m.work else ""
    cells = (
        name,
        _duration(m.reference.median_seconds) + scaled,
        _duration(m.ours.median_seconds),
        f"**{m.ratio:.3g}x**",
        goal,
        m.parity,
        speed,
        megabytes(m.reference),
        megabytes(m.ours),
    )
    return f"| {' | '.join(cells)} |"


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _describe_day(date: str, machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{date}: {machine['memory_gb']} GB, Python {machine['python']}, {versions}."
