"""Refuse videos that are larger than the limits of the settings: files that were made to exhaust a machine.

The limits apply to the claims of a file and to the decoded frames.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from typing import IO

from data_contracts.errors import InvalidFileError
from data_contracts.settings import VIDEO_LIMITS, read_settings

_CONTAINER_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
_HEADER_BYTES = 8
_MAX_DEPTH = 8


def check_bytes(name: str, size_bytes: int) -> None:
    """Raise ``InputError`` if the file ``name`` is larger than the limit."""
    limit = read_settings().video_limits.gigabytes
    if size_bytes > limit * 1e9:
        raise _too_large(name, f"a file of at most {limit:g} GB", f"{size_bytes / 1e9:,.1f} GB")


def check_frames(name: str, count: int) -> None:
    """Raise ``InputError`` if the video ``name`` has, or claims to have, more frames than the limit."""
    limit = read_settings().video_limits.frames
    if count > limit:
        raise _too_large(name, f"at most {limit:,.0f} frames", f"{count:,} or more")


def check_duration(name: str, seconds: float) -> None:
    """Raise ``InputError`` if the video ``name`` is longer than the limit."""
    limit = read_settings().video_limits.hours
    if seconds > limit * 3600:
        raise _too_large(name, f"a video of at most {limit:g} hours", f"{seconds / 3600:,.1f} hours")


def max_pixels() -> float:
    """Return the maximum number of pixels per frame."""
    return read_settings().video_limits.pixels


def frame_too_large(name: str, width_px: int, height_px: int) -> InvalidFileError:
    """Return the error for a frame that is larger than the limit."""
    return _too_large(name, f"frames of at most {max_pixels():,.0f} pixels", f"{width_px} x {height_px}")


def _too_large(name: str, expected: str, got: str) -> InvalidFileError:
    return InvalidFileError(
        f"{name}: expected {expected}, got {got}; leave it out, or set {VIDEO_LIMITS} (docs/security.md)"
    )


def claimed_frames(source: str | PathLike[str] | IO[bytes], *, all_fragments: bool) -> int:
    """Return the largest number of frames that one table of an MP4 file claims; 0 for other files.

    16 bytes may claim billions of frames, and FFmpeg allocates memory for all of them when it opens the file. Audio
    whose samples FFmpeg indexes by chunk does not count: seconds of it have as many samples as hours of video.

    ``all_fragments``: search the whole file, because a fragmented file has tables everywhere; else stop at the second
    fragment.

    Raises:
        OSError: the disk or the network failed.
    """
    with open(source, "rb") if isinstance(source, str | PathLike) else nullcontext(source) as file:
        return _largest_claim(file, all_fragments)


@dataclass
class _Track:
    """Values from the tables of one track."""

    claimed: int = 0
    is_audio: bool = False
    lasts_one_each: bool = False

    @property
    def frames(self) -> int:
        # libavformat/mov.c, mov_build_index: such audio has an index entry per chunk, not per sample.
        return 0 if self.is_audio and self.lasts_one_each else self.claimed


def _largest_claim(file: IO[bytes], all_fragments: bool) -> int:
    tracks, fragments = [_Track()], 0
    for kind, offset in _boxes(file, 0, file.seek(0, os.SEEK_END), 0):
        fragments += kind == b"moof"
        if fragments > 1 and not all_fragments:
            break
        if kind == b"trak":
            tracks.append(_Track())
        elif kind == b"hdlr" and (handler := _read(file, offset + 8)) in (b"soun", b"vide"):
            tracks[-1].is_audio = handler == b"soun"
        elif kind == b"stts":
            tracks[-1].lasts_one_each = _number(file, offset + 4) == _number(file, offset + 12) == 1
        elif kind in (b"stsz", b"stz2"):
            tracks[-1].claimed = max(tracks[-1].claimed, _number(file, offset + 8))
        elif kind == b"trun":
            tracks[0].claimed = max(tracks[0].claimed, _number(file, offset + 4))
    return max(track.frames for track in tracks)


def _boxes(file: IO[bytes], start: int, end: int, depth: int) -> Iterator[tuple[bytes, int]]:
    """Yield (type, offset of the content) of every box between two offsets, including nested boxes."""
    while start + _HEADER_BYTES <= end:
        header, content = _read(file, start, 2 * _HEADER_BYTES), start + _HEADER_BYTES
        size, kind = int.from_bytes(header[:4]), header[4:8]
        if size == 1:
            size, content = int.from_bytes(header[8:]), content + 8
        size = size or end - start
        if size < content - start:
            return
        yield kind, content
        if kind in _CONTAINER_BOXES and depth < _MAX_DEPTH:
            yield from _boxes(file, content, min(start + size, end), depth + 1)
        start += size


def _number(file: IO[bytes], offset: int) -> int:
    return int.from_bytes(_read(file, offset))


def _read(file: IO[bytes], offset: int, size_bytes: int = 4) -> bytes:
    file.seek(offset)
    return file.read(size_bytes)
