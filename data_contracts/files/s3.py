"""Files of a store on S3: whole or not at all. A request that fails for good is a ``StoreError`` of one line.

How requests are made and repeated is the business of ``s3_requests``.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import IO, NamedTuple

from data_contracts.errors import StoreError
from data_contracts.files.locations import FileState
from data_contracts.files.s3_requests import (
    cat_each,
    check_reachable,
    error_code,
    less_patiently,
    s3_options,
    said_in_a_line,
)
from data_contracts.files.store_paths import within

# The file is not as the request wants it, or others write it at this moment.
_OTHERWISE = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412")
# Up to here, a file is read in one request; larger ones in pieces of this size.
_PIECE_BYTES = 1 << 20


_NOTE = "affwild2-note"


class Look(NamedTuple):
    """A file's ETag, its age by the server's own clock, and the note that was written with it."""

    etag: str
    age_seconds: float
    note: str


class S3Files:
    """Files below ``s3://BUCKET/PREFIX``; ``path`` is relative to it. ``local_files`` has the same for disks.

    Every method raises ``StoreError`` where a request fails for good, and ``InputError`` of a path that leads out.
    """

    def __init__(self, url: str) -> None:
        options = s3_options()
        from data_contracts.files.s3_patience import PatientS3FileSystem

        self.url = url.rstrip("/")
        self._root = self.url.removeprefix("s3://")
        # Others write there: what was listed a second ago may not be so any more.
        self._fs = PatientS3FileSystem(use_listings_cache=False, **options)

    def check_reachable(self) -> None:
        """That the bucket answers, asked before any work: less patiently than later."""
        bucket = self._root.split("/", 1)[0]
        check_reachable(self._fs, bucket, f"{self.url}: expected a store in a bucket that answers", kind=StoreError)

    @contextlib.contextmanager
    def less_patiently(self) -> Iterator[None]:
        """While the block runs, half a minute is enough to know that the server does not answer."""
        with less_patiently(self._fs):
            yield

    def locate(self, path: str) -> str:
        """What a person would type to find ``path``."""
        return f"{self.url}/{within(path)}"

    @contextlib.contextmanager
    def replacing(self, path: str) -> Iterator[IO[bytes]]:
        """A file to write to, that takes the place of ``path`` when the block ends well, and leaves no trace if not.

        It is sent when the block ends: a request appears whole or not at all.
        """
        buffer = io.BytesIO()
        yield buffer
        with self._said("a store that can be written", path):
            self._fs.pipe_file(self._key(path), buffer.getvalue())

    def read(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self._said("a store that can be read", path, may_be_missing=True):
            # One request, however large: the file's size is not asked for first.
            return bytes(self._fs.cat_file(self._key(path), max_concurrency=1))

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """The bytes of each, read many at a time; none for one that is gone."""
        keys = [self._key(path) for path in paths]
        with self._said("a store that can be read", paths[0] if paths else ""):
            found = cat_each(self._fs, keys)
        return [answer if isinstance(answer, bytes) else b"" for answer in found]

    @contextlib.contextmanager
    def opened(self, path: str, size_bytes: int) -> Iterator[IO[bytes]]:
        """A file of that size to read pieces of.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if size_bytes <= _PIECE_BYTES:
            yield io.BytesIO(self.read(path))
            return
        with (
            self._said("a store that can be read", path, may_be_missing=True),
            self._fs.open(self._key(path), "rb", block_size=_PIECE_BYTES, cache_type="readahead") as file,
        ):
            yield file

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        with self._said("a store that can be read", path):
            return bool(self._fs.exists(self._key(path)))

    def written_at(self, path: str) -> float:
        """When a file was last written, in seconds since 1970 by the server's clock; 0 if it is not there."""
        with self._said("a store that can be read", path):
            try:
                return float(self._fs.info(self._key(path))["LastModified"].timestamp())
            except FileNotFoundError:
                return 0.0

    def list_folder(self, path: str) -> list[str]:
        """Names of what lies directly in a folder, in any order; none if there is no such folder."""
        with self._said("a store that can be listed", path):
            try:
                entries = self._fs.ls(self._key(path), detail=False)
            except FileNotFoundError:
                return []
        return [entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries]

    def states(self, folder: str) -> dict[str, FileState]:
        """State of every file below a folder, by path."""
        with self._said("a store that can be listed", folder):
            found = self._fs.find(self._key(folder), detail=True)
        return {
            path[len(self._root) + 1 :]: FileState(int(entry["size"]), entry.get("ETag"))
            for path, entry in found.items()
        }

    def remove_folder(self, path: str) -> None:
        """Remove a folder with all that is in it; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError), self._said("a store that can be written", path, True):
            # One by one: whoever removes many at a time takes brackets in a name for a pattern, and hits others.
            for key in self._fs.find(self._key(path)):
                self._fs.rm_file(key)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError), self._said("a store that can be written", path, True):
            self._fs.rm_file(self._key(path))

    # -- one small file that several write -----------------------------------------------------------------------------

    def replace_if(self, path: str, data: bytes, *, etag: str | None, note: str) -> str | None:
        """Write a file only if it still has that ETag (None: only if there is none).

        Args:
            note: kept with the file, for ``look``.

        Returns:
            Its new ETag; None if it was not as wanted, and nothing was written.
        """
        bucket, key = self._key(path).split("/", 1)
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        with self._said("a store that can be written", path):
            try:
                answer = self._fs.call_s3(
                    "put_object", Bucket=bucket, Key=key, Body=data, Metadata={_NOTE: note}, **condition
                )
            except OSError as error:
                if error_code(error) in _OTHERWISE:
                    return None
                raise
        return str(answer["ETag"])

    def look(self, path: str) -> "Look | None":
        """What is known of a file without reading it; None if there is none."""
        bucket, key = self._key(path).split("/", 1)
        try:
            with self._said("a store that can be read", path, may_be_missing=True):
                found = self._fs.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        headers = {name.lower(): value for name, value in found["ResponseMetadata"]["HTTPHeaders"].items()}
        age = (parsedate_to_datetime(headers["date"]) - found["LastModified"]).total_seconds()
        return Look(str(found["ETag"]), age, found.get("Metadata", {}).get(_NOTE, ""))

    def _key(self, path: str) -> str:
        return f"{self._root}/{within(path)}".rstrip("/")

    @contextlib.contextmanager
    def _said(self, expected: str, path: str, may_be_missing: bool = False) -> Iterator[None]:
        try:
            with said_in_a_line(f"store: expected {expected} at {self.locate(path)}", kind=StoreError):
                yield
        except StoreError as error:
            if may_be_missing and isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise
