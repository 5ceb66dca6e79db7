"""Compare the frames of the product with those of the ffmpeg program, for every kind of video file.

    python -m tests.compare_with_ffmpeg                   # every kind of tests/video_kinds.py
    python -m tests.compare_with_ffmpeg FILE FOLDER ...   # and these files
    python -m tests.compare_with_ffmpeg --kinds '*.avi'   # only some kinds; '' selects none

The truth is every frame that the program decodes (``-fps_mode passthrough``): number, order, time and upright pixels.
The program is another build than PyAV's, with another version of the scaler, so pixels may differ by
``MAX_MEAN_DIFFERENCE`` on average. A plain decode with PyAV must have equal pixels, apart from their orientation.
Segments of each length must have the pixels of one decode from the start. The exit code is 1 if anything disagrees.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from av.codec.context import ThreadType
from av.video.stream import VideoStream
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_contracts.errors import InputError
from data_contracts.video.container import is_flush, open_video
from data_contracts.video.frames import WrongIndexError, read_segment
from data_contracts.video.index import VideoIndex
from data_contracts.video.packets import index_video
from tests.video_kinds import KINDS, write_kind

SEGMENT_FRAMES = (16, 7, 512)
MAX_MEAN_DIFFERENCE = 3.0
MAX_TIME_DIFFERENCE_SECONDS = 0.0015
_SHOWN = re.compile(r"\] n: *\d+ pts: *\S+ pts_time:(\S+) .* sar:(\d+)/(\d+) s:(\d+)x(\d+) ")
# Pixels with these ratios of width to height become square: docs/data_contracts.md.
_NEARLY_SQUARE, _MAX_ASPECT = 1.01, 10
# Frames are compared in full up to this size of the whole video, and in every second, third, ... row and column above.
_MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Picture:
    """One frame: its time, a digest of its pixels, and the pixels or every n-th of them."""

    seconds: float | None
    digest: str
    shape: tuple[int, ...]
    pixels: NDArray[np.uint8] = field(repr=False)


@dataclass
class Comparison:
    """The result of one file."""

    name: str
    codec: str = ""
    container: str = ""
    packets: int = 0
    expected_frames: int = 0
    indexed_frames: int = 0
    wrong_times: int = 0
    wrong_pixels: int = 0
    wrong_segments: int = 0
    method: str = ""
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    @property
    def agrees(self) -> bool:
        """Whether the product has the frames of the program, with their times and pixels."""
        same_count = self.expected_frames == self.indexed_frames
        return same_count and not (self.wrong_times or self.wrong_pixels or self.wrong_segments or self.failed)


def compare(path: Path, *, segment_frames: Sequence[int] = SEGMENT_FRAMES) -> Comparison:
    """Compare one file."""
    result = Comparison(path.name)
    try:
        stream = _describe(path, result)
        expected = list(decode_with_program(path, stream))
        result.expected_frames = len(expected)
        step = _step(expected)
        index, whole = _decode_with_product(path, step, result)
        plain_times, unequal = _decode_plainly(path, stream, whole)
        result.wrong_times = _count_wrong_times(expected, plain_times, index)
        result.wrong_pixels = _count_wrong_pixels(expected, whole)
        if len(plain_times) == len(expected):
            result.wrong_pixels = max(result.wrong_pixels, unequal)
        else:
            result.notes.append(f"PyAV decodes {len(plain_times)} frames")
        # A segment that is as long as the video is ``whole``.
        lengths = [n for n in segment_frames if n < index.frame_count]
        result.wrong_segments = sum(_count_wrong_segments(path, index, whole, n) for n in lengths)
    except (InputError, ValueError, OSError) as error:
        result.failed = True
        result.notes.append(str(error).replace(str(path), path.name))
    return result


def decode_with_program(path: Path, stream: int) -> Iterator[Picture]:
    """Yield the frames of a stream as the ffmpeg program decodes and rotates them."""
    with tempfile.TemporaryDirectory() as folder:
        raw, log = Path(folder, "raw"), Path(folder, "log")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-nostats", "-threads", "1", "-i", f"file:{path}"]
        command += ["-map", f"0:{stream}", "-vf", "showinfo=checksum=0,scale=flags=bilinear,format=rgb24"]
        command += ["-fps_mode", "passthrough", "-noautoscale", "-f", "rawvideo", str(raw)]
        with log.open("wb") as file:
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=file)
        if not raw.exists() or not raw.stat().st_size:
            return
        data, at = np.memmap(raw, dtype=np.uint8, mode="r"), 0
        step = max(1, round((data.size / _MAX_BYTES) ** 0.5))
        for match in _SHOWN.finditer(log.read_text(errors="replace")):
            width_px, height_px = int(match[4]), int(match[5])
            size = width_px * height_px * 3
            if at + size > data.size:
                return
            rgb = _with_square_pixels(
                data[at : at + size].reshape(height_px, width_px, 3), int(match[2]), int(match[3])
            )
            yield _picture(rgb, _seconds(match[1]), step)
            at += size


def _with_square_pixels(rgb: NDArray[np.uint8], numerator: int, denominator: int) -> NDArray[np.uint8]:
    """Lengthen one side. The program states the aspect ratio of each frame, but its filters keep that of the first."""
    aspect = numerator / denominator if numerator and denominator else 1.0
    stretch = max(aspect, 1 / aspect)
    if not _NEARLY_SQUARE < stretch <= _MAX_ASPECT:
        return rgb
    height_px, width_px = rgb.shape[:2]
    sides = (round(width_px * aspect), height_px) if aspect > 1 else (width_px, round(height_px / aspect))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return frame.reformat(*sides, interpolation="BILINEAR").to_ndarray()


def _seconds(text: str) -> float | None:
    return None if text == "NOPTS" else float(text)


def _decode_with_product(path: Path, step: int, result: Comparison) -> tuple[VideoIndex, dict[int, Picture]]:
    """Return the index and all frames. As in a run, an index that the decoder contradicts is made again by decoding."""
    index = index_video(path)
    try:
        whole = {n: _picture(rgb, None, step) for n, rgb in _read(path, index, 1, index.frame_count)}
    except WrongIndexError:
        index = index_video(path, decode=True)
        whole = {n: _picture(rgb, None, step) for n, rgb in _read(path, index, 1, index.frame_count)}
        result.notes.append("index made again")
    result.indexed_frames, result.method = index.frame_count, index.method
    if index.problem:
        result.notes.append(index.problem)
    return index, whole


def _describe(path: Path, result: Comparison) -> int:
    with open_video(path) as (container, stream):
        result.codec, result.container = stream.codec_context.codec.canonical_name, container.format.name.split(",")[0]
        try:
            result.packets = sum(not is_flush(packet) for packet in container.demux(stream))
        except OSError:
            result.notes.append("reading stopped")
        return stream.index


def _step(expected: Sequence[Picture]) -> int:
    size = sum(int(np.prod(one.shape)) for one in expected)
    return max(1, round((size / _MAX_BYTES) ** 0.5))


def _picture(rgb: NDArray[np.uint8], seconds: float | None, step: int) -> Picture:
    return Picture(seconds, sha256(rgb.tobytes()).hexdigest(), rgb.shape, rgb[::step, ::step].copy())


def _read(path: Path, index: VideoIndex, first: int, count: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for numbers, rgb in read_segment(path, index, first_frame=first, frame_count=count):
        yield from zip(numbers.tolist(), rgb, strict=True)


def _count_wrong_times(expected: Sequence[Picture], plain_times: Sequence[float | None], index: VideoIndex) -> int:
    """Count frames whose time since the first frame differs from that of the program and from that of PyAV.

    Their versions of FFmpeg differ in estimated times. A time that several frames share is not compared. Where time
    stamps restart, which the program continues with an estimate, times are compared from there on.
    """
    times, starts, wrong = [one.seconds for one in expected], 0, 0
    for number, (time, seconds) in enumerate(zip(times, index.pts_seconds.tolist(), strict=False)):
        plain = plain_times[number] if number < len(plain_times) else None
        before = plain_times[number - 1] if 0 < number < len(plain_times) else None
        if plain is not None and before is not None and plain < before:
            starts = number
        if time is None or times.count(time) > 1:
            continue
        since_start = seconds - index.pts_seconds[starts]
        candidates = [(time, times[starts]), (plain, plain_times[starts] if starts < len(plain_times) else None)]
        wrong += all(
            now is None or start is None or abs(now - start - since_start) > MAX_TIME_DIFFERENCE_SECONDS
            for now, start in candidates
        )
    return wrong


def _count_wrong_pixels(expected: Sequence[Picture], whole: dict[int, Picture]) -> int:
    """Count frames of the program that the product does not have, or with other pixels."""
    return sum(number not in whole or not _similar(one, whole[number]) for number, one in enumerate(expected, start=1))


def _similar(one: Picture, other: Picture) -> bool:
    if one.shape != other.shape:
        return False
    difference = np.abs(one.pixels.astype(np.int16) - other.pixels)
    return float(difference.mean()) <= MAX_MEAN_DIFFERENCE


def _decode_plainly(path: Path, stream: int, whole: dict[int, Picture]) -> tuple[list[float | None], int]:
    """Decode with PyAV alone. Return the time of each frame, and how many frames of the product are not equal to one.

    The program alone judges the orientation, and the pixels of frames that are cropped or scaled to square pixels.
    """
    times: list[float | None] = []
    unequal = 0
    with av.open(str(path)) as container:
        video = container.streams[stream]
        assert isinstance(video, VideoStream)
        video.thread_type = ThreadType.NONE
        for packet in container.demux(video):
            with suppress(av.FFmpegError):
                for frame in packet.decode():
                    times.append(frame.time)
                    one = whole.get(len(times))
                    unequal += one is None or not _is_same_picture(frame.to_ndarray(format="rgb24"), one)
    return times, unequal


def _is_same_picture(rgb: NDArray[np.uint8], one: Picture) -> bool:
    if one.shape not in (rgb.shape, rgb.transpose(1, 0, 2).shape):
        return True
    sides = (np.rot90(side, turns) for side in (rgb, rgb[:, ::-1]) for turns in range(4))
    return any(side.shape == one.shape and sha256(side.tobytes()).hexdigest() == one.digest for side in sides)


def _count_wrong_segments(path: Path, index: VideoIndex, whole: dict[int, Picture], length: int) -> int:
    wrong = 0
    for first in range(1, index.frame_count + 1, length):
        got = [(n, sha256(rgb.tobytes()).hexdigest()) for n, rgb in _read(path, index, first, length)]
        wrong += got != [(n, whole[n].digest) for n in range(first, first + length) if n in whole]
    return wrong


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files; of a folder, those whose suffix is not one of pictures or text."""
    for path in paths:
        yield from sorted(p for p in path.rglob("*") if p.is_file() and _may_be_video(p)) if path.is_dir() else [path]


def _may_be_video(path: Path) -> bool:
    return path.suffix.lower() not in {".csv", ".jpg", ".md", ".png", ".txt"}


def _print(console: Console, results: Sequence[Comparison]) -> int:
    headings = ("kind", "codec", "container", "packets", "ffmpeg", "indexed", "times", "pixels", "segments", "method")
    table = Table(*headings, "notes", box=None)
    for one in results:
        counts = (one.packets, one.expected_frames, one.indexed_frames)
        wrong = (one.wrong_times, one.wrong_pixels, one.wrong_segments)
        cells = [one.codec, one.container, *map(str, counts), *map(str, wrong), one.method, "; ".join(one.notes)]
        table.add_row(one.name, *cells, style=None if one.agrees else "bold red")
    console.print("Wrong times, pixels and segments; packets, frames of ffmpeg, frames indexed:")
    console.print(table)
    wrong_kinds = [one.name for one in results if not one.agrees]
    console.print(f"{len(results)} kinds, {len(wrong_kinds)} disagree: {', '.join(wrong_kinds) or 'none'}")
    return 1 if wrong_kinds else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the kinds and files that the command line names."""
    parser = argparse.ArgumentParser(description="Compare the product with the ffmpeg program.")
    parser.add_argument("paths", nargs="*", type=Path, help="further files, or folders of files")
    parser.add_argument("--kinds", default="*", help="pattern of the kinds to compare")
    parser.add_argument("--keep", type=Path, help="folder for the files of the kinds")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kinds = [write_kind(name, folder) for name in KINDS if fnmatch(name, options.kinds)]
        results = [compare(path) for path in [*kinds, *_files(options.paths)]]
    return _print(Console(width=None if sys.stdout.isatty() else 220, highlight=False), results)


if __name__ == "__main__":
    sys.exit(main())
