"""Processor time of ``score`` with temporal heads, as a ratio to that with the perceptron of recipe ``default``.

Usage: python tests/benchmarks/measure_temporal.py [--rounds 3]

Scores the same clip with heads of three seeds that were fitted on the data of ``affwild2 demo``, in turns, and prints
the median of the rounds. Processor time of all processes is counted; it depends less on other programs than time does.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from clips import open_clips
from command_watch import Counted, run_counted

KINDS = ("default", "tcn", "transformer")
FRAMES = 472


def affwild2(*arguments: object) -> Counted:
    """Run a command with all its processes."""
    return run_counted([sys.executable, "-m", "flows.commands.command_line", *map(str, arguments)])


def score_clip(clip: Path, store: Path, kind: str) -> Counted:
    """Score a clip that the store does not know."""
    with tempfile.TemporaryDirectory() as folder:
        copy, out = Path(folder, "store"), Path(folder, "out")
        shutil.copytree(store, copy)
        counted = affwild2("score", clip, "--store", copy, "--head", f"va-{kind}", "--out", out, "--workers", 1)
        (table,) = out.glob("*.csv")
        if len(table.read_text().splitlines()) < FRAMES / 2:
            raise RuntimeError(f"{kind}: expected the rows of {FRAMES} frames in {table.name}")
        return counted


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with open_clips(frames=FRAMES, small_only=True) as clips, tempfile.TemporaryDirectory() as folder:
        clip, demo = clips["one face, 360p"], Path(folder, "demo")
        affwild2("demo", "--out", demo)
        for kind in KINDS:
            affwild2("fit", "va", "--store", demo / "store", "--annotations", demo / "data", "--recipe", kind)
        # The first run on a machine converts networks.
        score_clip(clip, demo / "store", KINDS[0])
        found: dict[str, list[Counted]] = {kind: [] for kind in KINDS}
        for number in range(given.rounds):
            # Every round begins with another head.
            for at in range(len(KINDS)):
                kind = KINDS[(number + at) % len(KINDS)]
                found[kind].append(score_clip(clip, demo / "store", kind))
    print("| head | processor time, s | of each round | ratio | other programs, cores |\n|---|---:|---|---:|---:|")
    medians = {kind: statistics.median(one.cpu_seconds for one in rounds) for kind, rounds in found.items()}
    for kind, rounds in found.items():
        each = ", ".join(f"{one.cpu_seconds:.1f}" for one in rounds)
        other = max(one.other_cores for one in rounds)
        ratio = medians[kind] / medians["default"]
        print(f"| `{kind}` | {medians[kind]:.1f} | {each} | {ratio:.3f} | {other:.1f} |")


if __name__ == "__main__":
    main()
