"""Processor time of ``score --annotate`` as a ratio to ``score`` alone, per frame size, within one run.

The clip with one face is scaled to each size. Processor time of all processes is counted, because annotating runs on as
many cores as scoring; a rerun that finds everything ready measures the start-up, which is subtracted.
"""

import sys
import tempfile
from pathlib import Path

from clips import open_clips, read_pictures, write_clip
from command_watch import run_counted

SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
_FRAMES = 120


def processor_seconds(*arguments: object) -> float:
    """Return the processor time of one ``affwild2 score``, with all its processes."""
    command = [sys.executable, "-m", "flows.commands.command_line", "score", *map(str, arguments), "--workers", "1"]
    return run_counted(command).cpu_seconds


def main() -> None:
    """Measure each size, and print the ratios."""
    with tempfile.TemporaryDirectory() as folder, open_clips(frames=_FRAMES, small_only=True) as clips:
        root, table_started = Path(folder), False
        print("| frame size | score, ms per frame | annotating, ms per frame | ratio |\n|---|---:|---:|---:|")
        for name, size in SIZES.items():
            clip, out = root / f"{name}.mp4", root / name
            write_clip(clip, read_pictures(clips["one face, 360p"]), count=_FRAMES, size=size)
            if not table_started:
                # The first run on a machine converts networks.
                processor_seconds(clip, "--out", root / "warm-up")
                table_started = True
            scored = processor_seconds(clip, "--out", out)
            idle = processor_seconds(clip, "--out", out)
            annotated = processor_seconds(clip, "--out", out, "--annotate") - idle
            score_ms, annotate_ms = (1000 * seconds / _FRAMES for seconds in (scored - idle, annotated))
            print(f"| {name} | {score_ms:.1f} | {annotate_ms:.1f} | {1 + annotate_ms / score_ms:.2f} |", flush=True)


if __name__ == "__main__":
    main()
