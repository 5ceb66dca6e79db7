"""Videos for benchmarks: real videos if ``AFFWILD2_BENCH_VIDEOS`` names their folder, otherwise moving portraits.

The folder may contain ``one_face_360p.mp4`` and ``several_faces_1080p.mp4``. Missing files are generated.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tasks.demo.scenes import load_portraits

_VARIABLE = "AFFWILD2_BENCH_VIDEOS"
_FPS = 25
_X264 = {"crf": "23", "preset": "veryfast"}


@contextlib.contextmanager
def open_clips(*, frames: int, small_only: bool = False, keyframe_every: int = 250) -> Iterator[dict[str, Path]]:
    """Write ``one face, 360p``, ``one face, 1080p`` (the same video enlarged) and ``several faces, 1080p``.

    Yields the files by name. Each has at most ``frames`` frames. ``small_only``: only those of 360p.
    """
    options = _X264 | {"g": str(keyframe_every)}
    given = Path(os.environ.get(_VARIABLE, "/nonexistent"))
    with tempfile.TemporaryDirectory(prefix="affwild2-clips-") as folder:
        one, several = Path(folder, "one_360p.mp4"), Path(folder, "several_1080p.mp4")
        real_one, real_several = given / "one_face_360p.mp4", given / "several_faces_1080p.mp4"
        write_clip(
            one, read_pictures(real_one) if real_one.exists() else moving_portraits(1), count=frames, options=options
        )
        if small_only:
            yield {"one face, 360p": one}
            return
        large = Path(folder, "one_1080p.mp4")
        write_clip(large, read_pictures(one), count=frames, size=(1920, 1080), options=options)
        crowd = read_pictures(real_several) if real_several.exists() else moving_portraits(5)
        write_clip(several, crowd, count=frames, size=(1920, 1080), options=options)
        yield {"one face, 360p": one, "one face, 1080p": large, "several faces, 1080p": several}


def read_pictures(path: Path) -> Iterator[np.ndarray]:
    """Decode the frames of a video, RGB uint8 [h, w, 3]."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def moving_portraits(faces: int, *, width: int = 640, height: int = 360) -> Iterator[np.ndarray]:
    """Generate an endless sequence of pictures: faces from two portraits drift over a soft background."""
    random = np.random.default_rng(0)
    background = np.asarray(
        Image.fromarray(random.integers(40, 200, (9, 16, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
    )
    side = 260 if faces == 1 else 130
    small = [Image.fromarray(portrait).resize((side, side)) for portrait in load_portraits()]
    starts = [(20 + 110 * n, 40 + 90 * (n % 2)) for n in range(faces)]
    for number in range(10**9):
        picture = Image.fromarray(background)
        for n, (x, y) in enumerate(starts):
            drift = 12 * np.sin(number / 15 + n)
            picture.paste(small[n % len(small)], (int(x + drift), int(y + drift / 2)))
        yield np.asarray(picture)


def write_clip(
    path: Path,
    pictures: Iterator[np.ndarray],
    *,
    count: int,
    size: tuple[int, int] | None = None,
    options: dict[str, str] = _X264,
) -> None:
    """Encode the first ``count`` pictures as H.264, at their own size or at ``size`` (width, height)."""
    with av.open(str(path), "w") as container:
        stream = None
        for number, picture in zip(range(count), pictures, strict=False):
            if size and picture.shape[1::-1] != size:
                picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
            if stream is None:
                stream = container.add_stream("libx264", rate=_FPS, options=options)
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
                stream.time_base = Fraction(1, _FPS)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
