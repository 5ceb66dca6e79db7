"""A file on S3 that is read in pieces, where its reader asks for them: videos are never copied whole.

Reading ahead grows with how far a reader has gone on without a jump, so that what is read in vain stays a fraction of
what is used. What a container's table of contents lies in is kept: every segment asks for it again.
"""

import io
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from data_contracts.errors import InputError
from data_contracts.files.locations import Location
from data_contracts.files.s3_requests import error_code

_BLOCK_BYTES = 1 << 18
# Longest piece that one request asks for: 4 MB.
_MAX_RUN_BLOCKS = 16
# Blocks that were used last, and blocks that are kept for good: 32 MB and 16 MB at most.
_RECENT_BLOCKS = 128
_KEPT_BLOCKS = 64
# Segments of one video come one after the other; a worker is at one, sometimes between two.
_OPEN_FILES = 2
_files: "OrderedDict[tuple[str, str], RangedFile]" = OrderedDict()


class RangedFile(io.RawIOBase):
    """Bytes of one version of an object: if it is replaced while it is read, reading fails.

    FFmpeg may swallow what a read raises; so the error is kept, and ``raise_if_failed`` raises it once more.
    """

    def __init__(self, raw: Any, name: str) -> None:
        super().__init__()
        self.name = name
        self.requested_bytes = 0
        self._raw, self._size, self._position = raw, int(raw.size), 0
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._kept: dict[int, bytes] = {}
        self._touched: set[int] = set()
        self._next_block, self._run_blocks = 0, 0
        self._failure: Exception | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; no request is made."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Where the next read begins, in bytes."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, fewer at the end of a block; none at the end of the file.

        Raises:
            InputError: the object was replaced since it was opened.
            OSError, botocore.exceptions.BotoCoreError: a request failed for good.
        """
        if size < 0:
            return self.readall()
        if not 0 <= self._position < self._size or size == 0:
            return b""
        number, start = divmod(self._position, _BLOCK_BYTES)
        data = self._block(number)[start : start + size]
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """All bytes from here to the end."""
        return b"".join(iter(lambda: self.read(_BLOCK_BYTES), b""))

    def keep_what_was_read(self) -> None:
        """Keep the blocks that were used since the file was rewound: every opening of a container uses them."""
        for number in sorted(self._touched):
            if len(self._kept) < _KEPT_BLOCKS and number in self._recent:
                self._kept[number] = self._recent.pop(number)

    def rewind(self) -> None:
        """Start over, as a file that was just opened."""
        self._position, self._touched = 0, set()

    @property
    def has_failed(self) -> bool:
        """Whether a request has failed for good."""
        return self._failure is not None

    def raise_if_failed(self) -> None:
        """Raise what a request has failed with, if one has."""
        if self._failure is not None:
            raise self._failure

    def _block(self, number: int) -> bytes:
        self._touched.add(number)
        if number in self._kept:
            return self._kept[number]
        if number not in self._recent:
            self._fetch(number)
        self._recent.move_to_end(number)
        return self._recent[number]

    def _fetch(self, number: int) -> None:
        self.raise_if_failed()
        self._run_blocks = self._run_blocks if number == self._next_block else 0
        count = max(1, min(self._run_blocks // 2, _MAX_RUN_BLOCKS))
        start = number * _BLOCK_BYTES
        end = min(start + count * _BLOCK_BYTES, self._size)
        try:
            self._raw.seek(start)
            data = self._raw.read(end - start)
        except Exception as error:
            self._failure = _as_said(error, self.name)
            raise self._failure from error
        self.requested_bytes += end - start
        for place in range(0, len(data), _BLOCK_BYTES):
            self._recent[number + place // _BLOCK_BYTES] = data[place : place + _BLOCK_BYTES]
        while len(self._recent) > _RECENT_BLOCKS:
            self._recent.popitem(last=False)
        self._next_block = number + count
        self._run_blocks += count


def _as_said(error: Exception, name: str) -> Exception:
    if error_code(error) not in ("PreconditionFailed", "412", "NoSuchKey", "404"):
        return error
    return InputError(
        f"{name}: expected a file that stays as it is, got: it was changed; run again when it is complete"
    )


def open_ranged(place: Location) -> RangedFile:
    """The file at a location on S3, rewound; what was read of it before, in this process, is still there.

    Raises:
        FileNotFoundError: there is no such file.
        OSError, botocore.exceptions.BotoCoreError: a request failed for good.
    """
    assert not isinstance(place, Path)
    fs = place.fs
    etag = str(fs.info(place.path, refresh=True).get("ETag"))
    found = _files.pop((str(place), etag), None)
    if found is None or found.has_failed:
        fs.invalidate_cache(place.path)
        found = RangedFile(fs.open(place.path, "rb", block_size=_BLOCK_BYTES, cache_type="none"), str(place))
    _files[str(place), etag] = found
    while len(_files) > _OPEN_FILES:
        _files.popitem(last=False)
    found.rewind()
    return found
