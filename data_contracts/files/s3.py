"""Files of a store on S3. Every write appears whole or not at all.

Imports s3fs, which takes most of a second.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import IO, NamedTuple

from data_contracts.errors import StoreError
from data_contracts.files.inputs import FileState, object_state
from data_contracts.files.locations import S3_PREFIX, check_inside
from data_contracts.files.s3_client import (
    RetryingS3FileSystem,
    check_reachable,
    error_code,
    explain_errors,
    read_each,
    s3_options,
    short_timeout,
)

# The condition of a conditional write is not met, or another process writes the file at this moment.
_CONDITION_CODES = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412")
# Larger files are read in pieces of this size, smaller ones in one request.
_PIECE_BYTES = 1 << 20
_NOTE = "affwild2-note"


class ObjectHead(NamedTuple):
    """ETag of a file, its age by the server's clock, and the note that was written with it."""

    etag: str
    age_seconds: float
    note: str


class S3Files:
    """Files below ``s3://BUCKET/PREFIX``; ``path`` is relative to it. ``LocalFiles`` describes the common methods.

    Every method raises ``StoreError`` if a request fails permanently, and ``InputError`` if ``path`` leads out.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._root = self.url.removeprefix(S3_PREFIX)
        # Without cached listings: other processes write to the store.
        self._fs = RetryingS3FileSystem(use_listings_cache=False, **s3_options())

    def check_reachable(self) -> None:
        """Check that the bucket answers, with a shorter timeout than for other requests."""
        bucket = self._root.split("/", 1)[0]
        check_reachable(self._fs, bucket, f"{self.url}: expected a store in a bucket that answers", kind=StoreError)

    @contextlib.contextmanager
    def short_timeout(self) -> Iterator[None]:
        """Limit retries in the block to half a minute."""
        with short_timeout(self._fs):
            yield

    def locate(self, path: str) -> str:
        return f"{self.url}/{check_inside(path)}"

    @contextlib.contextmanager
    def replacing(self, path: str) -> Iterator[IO[bytes]]:
        """Send the content in one request at the end of the block."""
        buffer = io.BytesIO()
        yield buffer
        with self._explained("a store that can be written", path):
            self._fs.pipe_file(self._key(path), buffer.getvalue())

    @contextlib.contextmanager
    def replacing_path(self, path: str) -> Iterator[str]:
        """Send the file, which is in the folder for temporary files until then, at the end of the block."""
        with tempfile.TemporaryDirectory(prefix="affwild2-") as folder:
            temporary = os.path.join(folder, "file")
            yield temporary
            with self._explained("a store that can be written", path):
                self._fs.put_file(temporary, self._key(path))

    def read(self, path: str) -> bytes:
        with self._explained("a store that can be read", path, may_be_missing=True):
            # With max_concurrency=1, s3fs does not ask for the size first.
            return bytes(self._fs.cat_file(self._key(path), max_concurrency=1))

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Read files in parallel."""
        keys = [self._key(path) for path in paths]
        with self._explained("a store that can be read", paths[0] if paths else ""):
            found = read_each(self._fs, keys)
        return [data if isinstance(data, bytes) else b"" for data in found]

    @contextlib.contextmanager
    def opened(self, path: str, size_bytes: int) -> Iterator[IO[bytes]]:
        """Read a small file in one request, and a large one in pieces."""
        if size_bytes <= _PIECE_BYTES:
            yield io.BytesIO(self.read(path))
            return
        with (
            self._explained("a store that can be read", path, may_be_missing=True),
            self._fs.open(self._key(path), "rb", block_size=_PIECE_BYTES, cache_type="readahead") as file,
        ):
            yield file

    def exists(self, path: str) -> bool:
        with self._explained("a store that can be read", path):
            return bool(self._fs.exists(self._key(path)))

    def written_at(self, path: str) -> float:
        """Return the time of the server's clock."""
        with self._explained("a store that can be read", path):
            try:
                return float(self._fs.info(self._key(path))["LastModified"].timestamp())
            except FileNotFoundError:
                return 0.0

    def list_folder(self, path: str) -> list[str]:
        with self._explained("a store that can be listed", path):
            try:
                entries = self._fs.ls(self._key(path), detail=False)
            except FileNotFoundError:
                return []
        return [entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries]

    def iter_states(self, folder: str) -> Iterator[tuple[str, FileState]]:
        with self._explained("a store that can be listed", folder):
            found = self._fs.find(self._key(folder), detail=True)
        for path, entry in found.items():
            yield path[len(self._root) + 1 :], object_state(entry)

    def remove_folder(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained("a store that can be written", path, True):
            # One by one: removing many files with one call would take brackets in a name for a pattern.
            for key in self._fs.find(self._key(path)):
                self._fs.rm_file(key)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained("a store that can be written", path, True):
            self._fs.rm_file(self._key(path))

    # -- the lock file, which several processes write ------------------------------------------------------------------

    def replace_if(self, path: str, note: str, *, etag: str | None) -> str | None:
        """Write a file only if it still has the given ETag (None: only if there is no such file).

        ``note`` (ASCII) becomes the content and the metadata, which ``head`` returns.

        Returns:
            The new ETag; None if the condition was not met and nothing was written.
        """
        condition = {"mode": "create"} if etag is None else {"IfMatch": etag}
        with self._explained("a store that can be written", path):
            try:
                answer = self._fs.pipe_file(self._key(path), note.encode() + b"\n", Metadata={_NOTE: note}, **condition)
            except OSError as error:
                if error_code(error) in _CONDITION_CODES:
                    return None
                raise
        return str(answer["ETag"])

    def head(self, path: str) -> ObjectHead | None:
        """Return what is known of a file without reading it; None if there is no such file."""
        bucket, key = self._key(path).split("/", 1)
        try:
            with self._explained("a store that can be read", path, may_be_missing=True):
                found = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        headers = {name.lower(): value for name, value in found["ResponseMetadata"]["HTTPHeaders"].items()}
        age_seconds = (parsedate_to_datetime(headers["date"]) - found["LastModified"]).total_seconds()
        return ObjectHead(str(found["ETag"]), age_seconds, found.get("Metadata", {}).get(_NOTE, ""))

    def _key(self, path: str) -> str:
        return f"{self._root}/{check_inside(path)}".rstrip("/")

    @contextlib.contextmanager
    def _explained(self, expected: str, path: str, may_be_missing: bool = False) -> Iterator[None]:
        try:
            with explain_errors(f"store: expected {expected} at {self.locate(path)}", kind=StoreError):
                yield
        except StoreError as error:
            if may_be_missing and isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise
