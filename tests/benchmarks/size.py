"""Time, memory and disk of every command on simulated data of the size of Aff-Wild2, for docs/performance.md.

    python tests/benchmarks/size.py FOLDER [--scale 1] [--only WORD ...]

FOLDER receives the simulated data and the store (about 8 GB at scale 1), and is kept: the same command runs what was
done before again, with nothing to do. ``--only``: commands that contain one of the words. Takes an hour at scale 1.
"""

import argparse
import datetime
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from command_watch import disk_mb, watch
from result_files import describe_machine, write_section

RESULTS = Path(__file__).parent / "results" / "size.json"
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- size -->", "<!-- end of size -->"
_BACKBONE = "simulated_enet_b0"
_TASKS = ("expr", "va", "au", "mtl")


def commands(folder: Path, scale: float) -> Iterator[list[str]]:
    """Yield the arguments of each command, in an order in which each has its input."""
    data, store = str(folder / "simulation/data/abaw3"), str(folder / "simulation/store")
    yield ["simulate", str(folder / "simulation"), "--scale", f"{scale:g}", "--backbone", _BACKBONE]
    for recipe, task in itertools.product(("paper", "default"), _TASKS):
        yield ["fit", task, "--store", store, "--annotations", data, "--recipe", recipe]
    for task in _TASKS:
        yield ["submit", task, "--store", store, "--test-list", data, "--head", f"simulated_{task}-paper"]
    for task in _TASKS:
        yield ["verify", f"{store}/submissions/*{task}-*/*.zip", "--task", task, "--test-list", data]
    yield ["report", "--store", store]
    yield ["status", "--store", store]
    yield ["reproduce", "--store", store, "--annotations", data, "--seeds", "1"]


def measure(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run one command; return its row."""
    folder.mkdir(parents=True, exist_ok=True)
    before = disk_mb(folder / "simulation")
    found = [sorted(map(str, Path("/").glob(word[1:]))) if "*" in word else [word] for word in arguments]
    program = str(Path(sys.executable).with_name("affwild2"))
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        watched = watch([program, *itertools.chain(*found)], temporary=Path(temporary), environment=os.environ)
    with open(folder / "output.txt", "a") as output:
        output.write(f"$ affwild2 {' '.join(arguments)}\n{watched.output}\n")
    row = asdict(watched) | {
        "command": _short(arguments, folder),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "disk_mb": disk_mb(folder / "simulation") - before,
    }
    del row["output"]
    return row


def _short(arguments: list[str], folder: Path) -> str:
    """Return the command without paths and store."""
    kept = [word for word in arguments if not word.startswith(str(folder))]
    return " ".join(word for word in kept if word not in ("--store", "--annotations", "--test-list"))


def render_table(results: dict[str, Any]) -> str:
    """Render the results as Markdown, with a sentence on how they were measured."""
    machine, rows = results["machine"], results["rows"]
    lines = [
        "| command | seconds | processor seconds | peak memory | anonymous | store | temporary files |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = (_size(row[name]) for name in ("peak_mb", "anonymous_mb", "disk_mb", "temporary_mb"))
        lines.append(
            f"| `{row['command']}` | {row['seconds']:,.0f} | {row['cpu_seconds']:,.0f} | {' | '.join(sizes)} |"
        )
    others = sum(row["other_cores"] * row["seconds"] for row in rows) / sum(row["seconds"] for row in rows)
    busy = f"other programs used {others:.1f} of the cores on average" if others > 0.1 else "nothing else ran"
    days = sorted({row["date"] for row in rows})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    lines += [
        "",
        f"{when}: {machine['cores']} cores of {machine['processor']} ({', '.join(machine['flags'])}), "
        f"{machine['memory_gb']} GB, Python {machine['python']}; {busy}.",
    ]
    return "\n".join(lines)


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def save(rows: list[dict[str, Any]], path: Path) -> None:
    """Replace the rows of the same commands in a file. If it is ``RESULTS``, write the table into the page."""
    machine, kept = describe_machine(), []
    if path.exists() and (earlier := json.loads(path.read_text()))["machine"] == machine:
        kept = earlier["rows"]
    # The line before a silence may contain paths of this machine.
    named = [{name: value for name, value in row.items() if name != "silent_after"} for row in rows]
    merged = {row["command"]: row for row in (*kept, *named)}
    results = {"machine": machine, "rows": list(merged.values())}
    path.write_text(json.dumps(results, indent=1) + "\n")
    table = render_table(results)
    print(table)
    if path == RESULTS:
        write_section(PAGE, BEGIN, END, table)


def main() -> int:
    """Measure the selected commands; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", metavar="WORD")
    options = parser.parse_args()
    folder, rows = options.folder.resolve(), []
    for arguments in commands(folder, options.scale):
        name = _short(arguments, folder)
        if options.only and not any(word in name for word in options.only):
            continue
        row = measure(arguments, folder)
        print(
            f"{name}: exit code {row['exit_code']}, {row['seconds']:.0f} s, {row['cpu_seconds']:.0f} s of processor "
            f"time, {row['peak_mb']:.0f} MB, silent for {row['silent_seconds']:.0f} s after {row['silent_after']!r}",
            flush=True,
        )
        rows.append(row)
        done = [one for one in rows if one["exit_code"] == 0]
        save(done, RESULTS if options.scale == 1 else folder / "size.json")
    return int(any(row["exit_code"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
