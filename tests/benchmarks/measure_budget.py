"""Processor time per frame of each part of an extraction, in all its processes, as a Markdown table.

    python measure_budget.py [--copies FEW MANY] [--frames N] [--only WORD]

Every clip is extracted as few and as many copies. The difference is the cost of frames; the rest of the time of few
copies is start-up. ``timed_parts`` measures the parts. Networks are converted before.
"""

import argparse
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
from timed_parts import COMMAND, FOLDER_VARIABLE, OTHER, PARTS

MODES = {"exact": ["--exact"], "following": [], "following, no crops": ["--no-crops"]}
CASES = {f"{size}, {mode}": (size, options) for size in ("360p", "1080p") for mode, options in MODES.items()}
START, WAITING, TOTAL = "other processes", "waiting", "sum: all cores"
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


def main() -> None:
    """Measure each case, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", nargs=2, type=int, default=(4, 16))
    parser.add_argument("--frames", type=int, default=360)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    few, many = given.copies
    columns, startup, others, started = {}, {}, [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder, open_clips(frames=given.frames) as clips:
        weights = random_weights(BACKBONE, Path(folder))
        for case, (size, mode_options) in CASES.items():
            if given.only not in case:
                continue
            clip = clips[f"one face, {size}"]
            options = ["--backbone", BACKBONE, "--weights", weights, *mode_options]
            measure_parts(copy_clip(clip, Path(folder), 1), *options)
            parts, counted = zip(
                *(measure_parts(copy_clip(clip, Path(folder), copies), *options) for copies in (few, many)), strict=True
            )
            frames = (many - few) * sum(1 for _ in read_pictures(clip))
            columns[case] = {part: 1000 * (parts[1][part] - parts[0][part]) / frames for part in ORDER}
            startup[case] = {part: (many * parts[0][part] - few * parts[1][part]) / (many - few) for part in ORDER}
            others += [one.other_cores for one in counted]
    print(f"| core-ms per frame | {' | '.join(columns)} | start-up, core-seconds |\n|{'---|' * (len(columns) + 2)}")
    for part in ORDER:
        cells = [f"{column[part]:.2f}" for column in columns.values()]
        print("|", " | ".join([part, *cells, f"{sum(s[part] for s in startup.values()) / len(startup):.2f}"]), "|")
    busy = sum(others) / len(others)
    print(f"\n{few} and {many} copies; other programs used {busy:.1f} cores; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
