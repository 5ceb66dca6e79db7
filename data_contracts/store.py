"""The store: one URL under which every dataset lies in Hive-style partitions of Parquet.

Here is how files become visible whole or not at all, and how units are found again. What is in them is the business
of ``schemas``; which units there should be, of the stages.
"""

import contextlib
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import InputError
from data_contracts.manifest import Failure, Manifest, UnitKey, is_failure_path, key_of_manifest_path
from data_contracts.schemas import Dataset, check_schema

ROW_GROUP_ROWS = 2048
_LOCAL_PROTOCOLS = ("file", "local")


class Store:
    """All data under one URL: a plain path, ``file://`` or ``s3://``.

    Raises:
        InputError: the URL's protocol is unknown, or a local store cannot be created.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = str(url)
        try:
            self._fs, root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError(f"store: expected a path, file:// or s3:// URL, got {self.url!r} ({error})") from error
        self._root = root.rstrip("/")
        protocols = (self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol
        self.is_local = protocols[0] in _LOCAL_PROTOCOLS

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.url,)

    def locate(self, path: str) -> str:
        """What a person would type to find ``path`` (relative to the store)."""
        return f"{self._root}/{path}" if self.is_local else f"{self.url.rstrip('/')}/{path}"

    # -- whole files -------------------------------------------------------------------------------------------------

    def write_bytes(self, path: str, data: bytes) -> None:
        """Put a file in its place at once: a reader sees the old one or the new one, never a part."""
        with self._replacing(path) as file:
            file.write(data)

    def read_bytes(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return bytes(self._fs.cat_file(f"{self._root}/{path}"))

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return bool(self._fs.exists(f"{self._root}/{path}"))

    def list_folder(self, path: str) -> list[str]:
        """Sorted names of what lies directly in a folder; empty if there is no such folder."""
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(f"{self._root}/{path}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{path}")

    # -- units -------------------------------------------------------------------------------------------------------

    def write_unit(
        self,
        key: UnitKey,
        dataset: Dataset,
        tables: Iterable[pa.Table],
        *,
        fingerprint: str,
    ) -> tuple[str, int, int]:
        """Write a unit's data, table by table, without making it exist: ``finish_unit`` does that.

        Returns:
            (part's file name, its bytes, its rows), for the manifest.

        Raises:
            ValueError: a table does not have the dataset's schema.
        """
        path = key.part_path(fingerprint)
        rows = 0
        with self._replacing(path) as file:
            with pq.ParquetWriter(
                file,
                dataset.schema,
                compression="none",
                use_dictionary=[c.name for c in dataset.columns if pa.types.is_string(c.type)],
                write_statistics=list(dataset.statistics),
            ) as writer:
                for table in tables:
                    writer.write_table(check_schema(table, dataset), row_group_size=ROW_GROUP_ROWS)
                    rows += table.num_rows
            size = file.tell()
        return path.rsplit("/", 1)[-1], size, rows

    def finish_unit(self, key: UnitKey, manifest: Manifest) -> None:
        """Make a unit exist: its manifest is written last; parts and failure notes of earlier tries go."""
        self.write_bytes(key.manifest_path, manifest.to_json())
        self.remove(key.failure_path)
        stem = key.part_path(manifest.fingerprint).rsplit("/", 1)[-1].removesuffix(".parquet")[:-8]
        for name in self.list_folder(key.folder):
            is_old = name.startswith(stem) and len(name) == len(stem) + len("12345678.parquet")
            if is_old and name != manifest.part:
                self.remove(f"{key.folder}/{name}")

    def remove_unit(self, key: UnitKey, manifest: Manifest) -> None:
        """Make a unit not exist: first its manifest goes, then its data."""
        self.remove(key.manifest_path)
        self.remove(f"{key.folder}/{manifest.part}")

    def note_failure(self, key: UnitKey, failure: Failure) -> None:
        """Keep the cause of a failed try beside the place where the data would lie."""
        self.write_bytes(key.failure_path, failure.to_json())

    def manifests(self, dataset: str, **partitions: str) -> dict[UnitKey, Manifest]:
        """Manifests of all whole units of a dataset whose leading partitions have the given values.

        A unit is whole if its part is there with the size that the manifest states.
        """
        sizes = self._sizes(UnitKey(dataset, tuple(partitions.items())).folder)
        paths = [path for path in sizes if key_of_manifest_path(path) and not is_failure_path(path)]
        found: dict[UnitKey, Manifest] = {}
        for path, data in zip(paths, self._read_many(paths), strict=True):
            key, manifest = key_of_manifest_path(path), Manifest.from_json(data)
            if key and manifest and sizes.get(f"{key.folder}/{manifest.part}") == manifest.part_bytes:
                found[key] = manifest
        return dict(sorted(found.items()))

    def failures(self, dataset: str, **partitions: str) -> dict[UnitKey, Failure]:
        """Causes of all units of a dataset whose last try failed."""
        sizes = self._sizes(UnitKey(dataset, tuple(partitions.items())).folder)
        paths = [path for path in sizes if key_of_manifest_path(path) and is_failure_path(path)]
        notes = zip(paths, self._read_many(paths), strict=True)
        pairs = ((key_of_manifest_path(path), Failure.from_json(data)) for path, data in notes)
        return dict(sorted((key, failure) for key, failure in pairs if key and failure))

    def read_unit(self, key: UnitKey, manifest: Manifest, *, columns: Sequence[str] | None = None) -> pa.Table:
        """A unit's rows, or some columns of them."""
        return pa.Table.from_batches(*_batches_and_schema(self, key, manifest, columns))

    def iter_unit(
        self, key: UnitKey, manifest: Manifest, *, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """A unit's rows in batches of at most ``ROW_GROUP_ROWS``, in order, in bounded memory."""
        path = f"{self._root}/{key.folder}/{manifest.part}"
        with self._fs.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):
                yield from parquet.read_row_group(group, columns=columns, use_threads=False).to_batches()

    def schema_of(self, key: UnitKey, manifest: Manifest) -> pa.Schema:
        """Schema of a unit's file, metadata included."""
        with self._fs.open(f"{self._root}/{key.folder}/{manifest.part}", "rb") as file:
            return pq.read_schema(file)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file below a folder; paths relative to the store, sorted."""
        if self.is_local:
            return dict(sorted(_local_sizes(Path(self._root), Path(self._root, folder))))
        self._fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._fs.find(f"{self._root}/{folder}", detail=True)
        return {path[len(self._root) + 1 :]: int(entry["size"]) for path, entry in sorted(found.items())}

    def _read_many(self, paths: Sequence[str]) -> list[bytes]:
        if self.is_local:
            return [_read_if_there(Path(self._root, path)) for path in paths]
        full = [f"{self._root}/{path}" for path in paths]
        found = self._fs.cat(full, on_error="omit") if full else {}
        return [bytes(found.get(path, b"")) for path in full]

    @contextlib.contextmanager
    def _replacing(self, path: str) -> Iterator[IO[bytes]]:
        """A file to write to, that takes the place of ``path`` when the block ends well, and leaves no trace if not."""
        target = f"{self._root}/{path}"
        if not self.is_local:
            # A single PUT appears whole; an s3fs file closed by an exception would appear in part.
            buffer = io.BytesIO()
            yield buffer
            self._fs.pipe_file(target, buffer.getvalue())
            return
        folder, name = os.path.split(target)
        _make_folder(folder)
        temporary = os.path.join(folder, f".{name[:80]}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
            raise


def _batches_and_schema(
    store: Store, key: UnitKey, manifest: Manifest, columns: Sequence[str] | None
) -> tuple[list[pa.RecordBatch], pa.Schema]:
    schema = store.schema_of(key, manifest)
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
    return [batch.select(schema.names) for batch in store.iter_unit(key, manifest, columns=columns)], schema


def _local_sizes(root: Path, folder: Path) -> Iterator[tuple[str, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(FileNotFoundError):
                yield os.path.relpath(path, root), os.stat(path).st_size


def _read_if_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"store: expected a folder that can be written, got {folder} ({error.strerror}); choose another --store"
        ) from error
