"""Processor time of ``score --annotate`` as a ratio to ``score`` alone, per frame size, within one run.

The clip with one face is scaled to each size. Processor time of all processes is counted, because annotating runs on as
many cores as scoring. Two lengths are measured; their difference has no start-up.
"""

import sys
import tempfile
from pathlib import Path

from clips import open_clips, read_pictures, write_clip
from command_watch import run_counted

SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
_FRAMES = (60, 420)


def processor_seconds(*arguments: object) -> float:
    """Return the processor time of one ``affwild2 score``, with all its processes."""
    command = [sys.executable, "-m", "flows.commands.command_line", "score", *map(str, arguments), "--workers", "1"]
    return run_counted(command).cpu_seconds


def ms_per_frame(clips: list[Path], *options: object) -> float:
    """Return the processor time of a frame in milliseconds, from a short and a long clip."""
    short, long = (processor_seconds(clip, "--out", clip.with_suffix(""), *options) for clip in clips)
    return 1000 * (long - short) / (_FRAMES[1] - _FRAMES[0])


def main() -> None:
    """Measure each size, and print the ratios."""
    with tempfile.TemporaryDirectory() as folder, open_clips(frames=_FRAMES[1], small_only=True) as clips:
        root, source = Path(folder), clips["one face, 360p"]
        # The first run on a machine converts networks.
        processor_seconds(source, "--out", root / "warm-up")
        print("| frame size | score, ms per frame | annotating, ms per frame | ratio |\n|---|---:|---:|---:|")
        for name, size in SIZES.items():
            files = [root / f"{name}-{count}.mp4" for count in _FRAMES]
            for file, count in zip(files, _FRAMES, strict=True):
                write_clip(file, read_pictures(source), count=count, size=size)
            # The second run of a clip only annotates.
            score_ms, annotate_ms = ms_per_frame(files), ms_per_frame(files, "--annotate")
            print(f"| {name} | {score_ms:.1f} | {annotate_ms:.1f} | {1 + annotate_ms / score_ms:.2f} |", flush=True)


if __name__ == "__main__":
    main()
