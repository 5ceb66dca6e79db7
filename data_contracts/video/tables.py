"""How many frames the tables of an MP4 file claim: 16 bytes may claim billions, and FFmpeg makes room for each at once.

Only boxes' headers and a few numbers are read here. What the frames are is the business of ``video_packets``.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import IO

_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
_HEADER_BYTES = 8
_MAX_DEPTH = 8


def claimed_frames(source: str | PathLike[str] | IO[bytes], *, fragments: bool) -> int:
    """The largest number of frames that one table claims; 0 of files that are no MP4. A file object is left rewound.

    Sound whose samples FFmpeg keeps by the chunk does not count: seconds of it have as many as hours of video.
    ``fragments``: go through the whole file, for those that have tables all over it; else up to the second of these.

    Raises:
        OSError: the disk or the network failed.
    """
    if isinstance(source, str | PathLike):
        with open(source, "rb") as file:
            return _largest(file, fragments)
    try:
        return _largest(source, fragments)
    finally:
        source.seek(0)


@dataclass
class _Track:
    """What the tables of one track say."""

    claimed: int = 0
    is_sound: bool = False
    lasts_one_each: bool = False

    @property
    def frames(self) -> int:
        # libavformat/mov.c, mov_build_index: of such sound an entry is made for each chunk, not for each sample.
        return 0 if self.is_sound and self.lasts_one_each else self.claimed


def _largest(file: IO[bytes], fragments: bool) -> int:
    tracks, pieces = [_Track()], 0
    for kind, place in _boxes(file, 0, file.seek(0, os.SEEK_END), 0):
        pieces += kind == b"moof"
        if pieces > 1 and not fragments:
            break
        if kind == b"trak":
            tracks.append(_Track())
        elif kind == b"hdlr" and (handler := _read(file, place + 8)) in (b"soun", b"vide"):
            tracks[-1].is_sound = handler == b"soun"
        elif kind == b"stts":
            tracks[-1].lasts_one_each = _number(file, place + 4) == _number(file, place + 12) == 1
        elif kind in (b"stsz", b"stz2"):
            tracks[-1].claimed = max(tracks[-1].claimed, _number(file, place + 8))
        elif kind == b"trun":
            tracks[0].claimed = max(tracks[0].claimed, _number(file, place + 4))
    return max(track.frames for track in tracks)


def _boxes(file: IO[bytes], start: int, end: int, depth: int) -> Iterator[tuple[bytes, int]]:
    """(kind, place of its content) of every box between two places, and of those within."""
    while start + _HEADER_BYTES <= end:
        size, kind, content = _number(file, start), _read(file, start + 4), start + _HEADER_BYTES
        if size == 1:
            size = _number(file, content, size_bytes=8)
            content += 8
        size = end - start if size == 0 else size
        if size < content - start:
            return
        yield kind, content
        if kind in _BOXES and depth < _MAX_DEPTH:
            yield from _boxes(file, content, min(start + size, end), depth + 1)
        start += size


def _number(file: IO[bytes], place: int, *, size_bytes: int = 4) -> int:
    return int.from_bytes(_read(file, place, size_bytes))


def _read(file: IO[bytes], place: int, size_bytes: int = 4) -> bytes:
    file.seek(place)
    data = file.read(size_bytes)
    # Of a file on S3, a read ends with its block.
    return data + file.read(size_bytes - len(data))
