"""Growth of cost with the input: each extraction against a smaller one whose time is multiplied.

A ratio of 1 is linear. Many short videos, a long video, 4K, several faces. Bundled network, two workers, with start-up
on both sides.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_extract import run_extract
from clips import moving_portraits, write_clip
from pairs import Pair, run_script

QUICK = False
_SHORT_FRAMES = 100
_GOAL = 0.9


@dataclass(frozen=True)
class Shape:
    """A kind of input: number of files, frames per file, size in pixels, number of faces."""

    files: int
    frames: int
    width: int = 640
    height: int = 360
    faces: int = 1

    def write(self, folder: Path) -> Path:
        """Write the files into a new folder and return it."""
        target = folder / f"{self.files}x{self.frames}-{self.width}x{self.height}-{self.faces}"
        target.mkdir()
        first = target / "clip0.mp4"
        size = (self.width, self.height) if self.width != 640 else None
        write_clip(first, moving_portraits(self.faces), count=self.frames, size=size)
        for number in range(1, self.files):
            shutil.copy(first, target / f"clip{number}.mp4")
        return target


def make_extraction(folder: Path, shape: Shape) -> Callable[[], np.ndarray]:
    """Return a call that extracts all files and returns the features of the first."""
    videos = shape.write(folder)
    return lambda: run_extract(videos, backbone="emotion_lite0", weights=None, exact=False, subject="clip0")


def make_pairs(quick: bool) -> Iterator[Pair]:
    """Yield pairs of a smaller and a larger input."""
    shapes = {
        "60 short videos of 100 frames, against 20": (Shape(20, _SHORT_FRAMES), Shape(60, _SHORT_FRAMES), 3.0),
        "3 minutes of 360p, against 1 minute": (Shape(1, 1500), Shape(1, 4500), 3.0),
        "2160p, against 1080p, per pixel": (Shape(4, 60, 1920, 1080), Shape(4, 60, 3840, 2160), 4.0),
        "five faces at 1080p, against one, per face": (Shape(4, 60, 1920, 1080), Shape(4, 60, 1920, 1080, 5), 5.0),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, (small, large, scale)) in enumerate(shapes.items()):
            folder = Path(scratch, str(number))
            folder.mkdir()
            yield Pair(
                name,
                make_extraction(folder, small),
                make_extraction(folder, large),
                lambda expected, got: f"{len(expected)} and {len(got)} rows of the first file",
                goal=_GOAL,
                rounds=1,
                reference_rounds=1,
                reference_scale=scale,
                work=large.files * large.frames,
                unit="frames",
            )


if __name__ == "__main__":
    run_script(make_pairs)
