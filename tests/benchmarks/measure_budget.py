"""Processor time per frame of each part of an extraction, in all its processes, as a Markdown table.

    python measure_budget.py [--copies FEW MANY] [--frames N] [--only WORD]

Every clip is extracted as few and as many copies. The difference is the cost of frames; the rest of the time of few
copies is start-up. ``timed_parts`` measures the parts. Without ``--only``, the table is written into the page.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench_extract import BACKBONE, WORKERS, copy_clip
from bench_features import random_weights
from clips import open_clips, read_pictures
from command_watch import Counted, run_counted
from result_files import PAGE, describe_machine, write_section
from timed_parts import COMMAND, FOLDER_VARIABLE, OTHER, PARTS

BEGIN, END = "<!-- budget -->", "<!-- end of budget -->"
MODES = {"exact": ["--exact"], "following": [], "following, no crops": ["--no-crops"]}
CASES = {f"{size}, {mode}": (size, options) for size in ("360p", "1080p") for mode, options in MODES.items()}
START, WAITING, TOTAL = "other processes", "waiting", "all cores, sum"
ORDER = (*PARTS, OTHER, COMMAND, START, WAITING, TOTAL)


def measure_parts(videos: Path, *options: object) -> tuple[Counter[str], Counted]:
    """Extract all videos of a folder; return the core-seconds of each part, and of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).with_name("timed_parts.py")
        environment = os.environ | {FOLDER_VARIABLE: folder, "PYTHONPATH": str(script.parent)}
        command = [sys.executable, script, "extract", videos, "--store", Path(folder, "store"), *options]
        counted = run_counted([*map(str, command), "--workers", str(WORKERS)], environment=environment)
        parts = Counter[str]()
        for file in Path(folder).glob("*.json"):
            parts.update(json.loads(file.read_text()))
    parts[START] = counted.cpu_seconds - parts.total()
    parts[TOTAL] = WORKERS * counted.seconds
    parts[WAITING] = parts[TOTAL] - counted.cpu_seconds
    return parts, counted


def render(columns: dict[str, Counter[str]], startup: Counter[str]) -> str:
    """Render core-milliseconds per frame of each case, and core-seconds of start-up, as a table."""
    lines = [
        f"| core-ms per frame | {' | '.join(columns)} | start-up, core-seconds |",
        f"|{'---|' * (len(columns) + 2)}",
    ]
    for part in ORDER:
        cells = [*(f"{column[part]:.2f}" for column in columns.values()), f"{startup[part]:.2f}"]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the cases. Print the table; write it into the page if it has all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", nargs=2, type=int, default=(4, 16))
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    few, many = given.copies
    columns, startup, other_cores, started = {}, Counter[str](), [], time.monotonic()
    cases = {name: case for name, case in CASES.items() if given.only in name}
    with tempfile.TemporaryDirectory() as folder, open_clips(frames=given.frames) as clips:
        weights = random_weights(BACKBONE, Path(folder))
        for name, (size, options) in cases.items():
            clip, given_options = clips[f"one face, {size}"], ["--backbone", BACKBONE, "--weights", weights, *options]
            measure_parts(copy_clip(clip, Path(folder), 1), *given_options)
            (less, first), (more, second) = (
                measure_parts(copy_clip(clip, Path(folder), copies), *given_options) for copies in (few, many)
            )
            copy = {part: (more[part] - less[part]) / (many - few) for part in ORDER}
            frames = sum(1 for _ in read_pictures(clip))
            columns[name] = Counter({part: 1000 * seconds / frames for part, seconds in copy.items()})
            startup.update({part: (less[part] - few * copy[part]) / len(cases) for part in ORDER})
            other_cores += [first.other_cores, second.other_cores]
    machine, busy = describe_machine(), sum(other_cores) / len(other_cores)
    table = render(columns, startup) + (
        f"\n\n{datetime.date.today()}: {machine['cores']} cores of {machine['processor']} "
        f"({', '.join(machine['flags'])}); {few} and {many} copies of {given.frames} frames; other programs used "
        f"{busy:.1f} of the cores on average."
    )
    print(f"{table}\n{time.monotonic() - started:.0f} s")
    if not given.only:
        write_section(PAGE, BEGIN, END, table)


if __name__ == "__main__":
    main()
