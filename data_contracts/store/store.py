"""The store: all datasets below one URL, in Hive-style partitions of Parquet files.

This module writes units so that they appear complete or not at all, and finds and reads them. ``schemas`` defines their
columns. The stages decide which units to compute.
"""

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.errors import InputError
from data_contracts.files.credentials import check_no_credentials
from data_contracts.files.inputs import FileState
from data_contracts.files.local import UNFINISHED, files_at
from data_contracts.files.locations import Location, location
from data_contracts.schemas.dataset import Dataset, check_schema
from data_contracts.store.manifest import Failure, Manifest, StoredUnit, UnitKey, key_of_manifest_path
from data_contracts.store.manifest_index import ManifestIndex, variant_of

# Rows per Parquet row group: small enough to read one subject without its neighbours.
ROW_GROUP_ROWS = 2048


class Store:
    """All data under one URL: a plain path, ``file://`` or ``s3://``.

    Raises:
        InputError: the URL is none of these, or it holds credentials.
        StoreError: (from every method) a request to S3 failed permanently.
    """

    def __init__(self, url: str | Location) -> None:
        self.url = str(url)
        check_no_credentials(self.url, what="store")
        place = location(url)
        self.is_local = isinstance(place, Path)
        self.files = files_at(place)
        self.index = ManifestIndex(self.files)
        self._listed_failures: set[str] = set()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.url,)

    def locate(self, path: str) -> str:
        """Return the absolute path or URL of ``path``, which is relative to the store."""
        return self.files.locate(path)

    @property
    def root(self) -> str:
        """The root of the store as an absolute path or URL."""
        return self.locate("").rstrip("/")

    def check_reachable(self) -> None:
        """Check, before any work, that the store's bucket answers.

        Raises:
            StoreError: wrong bucket, credentials or address.
        """
        self.files.check_reachable()

    # -- whole files -------------------------------------------------------------------------------------------------

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file atomically: a reader sees the old or the new content, never a part of it."""
        with self.files.replacing(path) as file:
            file.write(data)

    def write_alone(self, path: str, data: bytes) -> None:
        """Write a file atomically, and leave no folder of unfinished files among those of the user."""
        self.write_bytes(path, data)
        if self.is_local:
            with contextlib.suppress(OSError):
                os.rmdir(self.locate(UNFINISHED))

    def read_bytes(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self.files.read(path)

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder."""
        return self.files.exists(path)

    def written_at(self, path: str) -> float:
        """Return when a file was last written, in seconds since 1970 (whole seconds on S3); 0 if it is missing."""
        return self.files.written_at(path)

    def list_folder(self, path: str) -> list[str]:
        """Return the sorted names of the entries of a folder; empty if there is no such folder."""
        return sorted(self.files.list_folder(path))

    def files_below(self, folder: str) -> dict[str, FileState]:
        """Return the state of every file below a folder, by path relative to the store, sorted."""
        return dict(sorted(self.files.iter_states(folder)))

    def remove_folder(self, path: str) -> None:
        """Remove a folder with its content, if it exists."""
        self.files.remove_folder(path)

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        self.files.remove(path)

    # -- units -------------------------------------------------------------------------------------------------------

    def write_unit(
        self,
        key: UnitKey,
        dataset: Dataset,
        tables: Iterable[pa.Table],
        *,
        fingerprint: str,
    ) -> tuple[str, int, int]:
        """Write a unit's data file, table by table. The unit exists only after ``finish_unit``.

        Returns:
            (name, size in bytes, rows) of the data file, for the manifest.

        Raises:
            ValueError: a table does not have the dataset's schema.
        """
        path = key.part_path(fingerprint)
        rows = 0
        with self.files.replacing(path) as file:
            with pq.ParquetWriter(
                file,
                dataset.schema,
                compression="none",
                use_dictionary=[c.name for c in dataset.columns if pa.types.is_string(c.type)],
                write_statistics=list(dataset.statistics),
                write_page_checksum=True,
            ) as writer:
                for table in _in_row_groups(check_schema(table, dataset) for table in tables):
                    writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                    rows += table.num_rows
            size = file.tell()
        return path.rsplit("/", 1)[-1], size, rows

    def finish_unit(self, key: UnitKey, manifest: Manifest) -> None:
        """Write a unit's manifest, which makes it exist; remove the failure note of earlier tries."""
        self.write_bytes(key.manifest_path, manifest.to_json())
        self.remove(key.failure_path)

    def remove_unit(self, key: UnitKey, manifest: Manifest) -> None:
        """Remove a unit: first its manifest, then its data file."""
        self.remove(key.manifest_path)
        self.remove(f"{key.folder}/{manifest.part}")

    def note_failure(self, key: UnitKey, failure: Failure) -> None:
        """Write the cause of a failed try into the unit's folder."""
        self.write_bytes(key.failure_path, failure.to_json())

    def manifests(self, dataset: str, **partitions: str) -> dict[UnitKey, Manifest]:
        """Return the manifests of all complete units of a dataset whose leading partitions have the given values.

        A unit is complete if its data file exists with the size that the manifest states.
        """
        return self.manifests_and_orphans(dataset, **partitions)[0]

    def manifests_and_orphans(self, dataset: str, **partitions: str) -> tuple[dict[UnitKey, Manifest], list[str]]:
        """Return the manifests of ``manifests``, and the paths of all data files that none of them names."""
        folder = UnitKey(dataset, tuple(partitions.items())).folder
        units: list[StoredUnit] = []
        orphans: list[str] = []
        for block, found in self.index.read_units(folder):
            units += found
            self._listed_failures.update(block.failures)
            named = {f"{key.folder}/{manifest.part}" for key, manifest in found}
            orphans += [path for path, _ in block.parts if path not in named]
        return dict(sorted(units, key=lambda unit: (unit[0].partitions, unit[0].part))), orphans

    def failures(self, dataset: str, **partitions: str) -> dict[UnitKey, Failure]:
        """Return the failure notes of all units of a dataset whose last try failed."""
        blocks = self.index.list_blocks(UnitKey(dataset, tuple(partitions.items())).folder)
        return dict(sorted(self.read_failures([path for block in blocks for path in block.failures]).items()))

    def listed_failures(self) -> dict[UnitKey, Failure]:
        """Return the failure notes of all variants whose units this object has listed, without listing them again."""
        return self.read_failures(sorted(self._listed_failures))

    def read_failures(self, paths: Sequence[str]) -> dict[UnitKey, Failure]:
        """Return the failure notes at these paths. Missing and damaged notes are left out."""
        notes = zip(paths, self.files.read_many(paths), strict=True)
        pairs = ((key_of_manifest_path(path), Failure.from_json(data)) for path, data in notes)
        return {key: failure for key, failure in pairs if key and failure}

    def update_index(self, keys: Iterable[UnitKey]) -> None:
        """Update the indexes of the variants of these units, if this process holds the lock and it saves time later."""
        for variant in sorted({variant_of(key.folder) for key in keys}):
            for _ in self.index.read_tables(variant):
                pass

    def remove_from_indexes(self, names: Collection[str], *, labels: Iterable[UnitKey]) -> None:
        """Remove the rows of videos and subjects, and of whole label sets, from all indexes.

        Call it before the units themselves are removed, so that a call that is interrupted can be repeated.
        """
        variants = {variant_of(key.folder) for key in labels}
        self.index.remove_names(names, variants, [name for name in self.list_folder("") if not name.startswith(".")])

    def failure_of(self, key: UnitKey) -> Failure | None:
        """Return the failure note of a unit; None if its last try did not fail."""
        (data,) = self.files.read_many([key.failure_path])
        return Failure.from_json(data)

    def read_unit(self, key: UnitKey, manifest: Manifest, *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a unit's rows, or some of their columns.

        Raises:
            InputError: as ``iter_unit``.
        """
        batches = list(self.iter_unit(key, manifest, columns=columns))
        schema = self.schema_of(key, manifest)
        names = schema.names if columns is None else list(columns)
        schema = pa.schema([schema.field(name) for name in names], metadata=schema.metadata)
        return pa.Table.from_batches([batch.select(names) for batch in batches], schema)

    def iter_unit(
        self, key: UnitKey, manifest: Manifest, *, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield a unit's rows in order, in batches of at most ``ROW_GROUP_ROWS``.

        Raises:
            InputError: the data file is missing, damaged, or does not match its manifest. The manifest is then removed,
                so that the next run computes the unit again.
        """
        with self._reading(key, manifest) as parquet:
            missing = set(columns or ()) - set(parquet.schema_arrow.names)
            if missing or parquet.metadata.num_rows != manifest.rows:
                what = f"no column {', '.join(sorted(missing))}" if missing else f"{parquet.metadata.num_rows} rows"
                raise _DamagedError(f"expected {manifest.rows} rows as its manifest says, got {what}")
            for group in range(parquet.num_row_groups):
                yield from parquet.read_row_group(group, columns=columns, use_threads=False).to_batches()

    def schema_of(self, key: UnitKey, manifest: Manifest) -> pa.Schema:
        """Return the schema of a unit's data file, with its metadata.

        Raises:
            InputError: as ``iter_unit``.
        """
        with self._reading(key, manifest) as parquet:
            return parquet.schema_arrow

    def distrust_unit(self, key: UnitKey, cause: str) -> InputError:
        """Remove the manifest of a unit whose data is wrong, and return the error to raise."""
        with contextlib.suppress(OSError):
            self.remove(key.manifest_path)
        where = self.locate(key.folder)
        return InputError(f"{where}: {cause}; run the same command again to recompute it")

    @contextlib.contextmanager
    def _reading(self, key: UnitKey, manifest: Manifest) -> Iterator[pq.ParquetFile]:
        try:
            with (
                self.files.opened(f"{key.folder}/{manifest.part}", manifest.part_bytes) as file,
                pq.ParquetFile(file, page_checksum_verification=True) as parquet,
            ):
                yield parquet
        except (_DamagedError, FileNotFoundError, pa.ArrowException) as error:
            raise self.distrust_unit(key, f"{manifest.part}: {_one_line(error)}") from error
        except OSError as error:
            # Arrow reports a wrong checksum as an OSError without an errno.
            if error.errno is not None or type(error) is not OSError:
                raise
            raise self.distrust_unit(key, f"{manifest.part}: {_one_line(error)}") from error


def _in_row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Regroup rows into tables of a multiple of ``ROW_GROUP_ROWS``; the last table may be smaller."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count >= ROW_GROUP_ROWS:
            joined, whole = pa.concat_tables(waiting), count - count % ROW_GROUP_ROWS
            yield joined.slice(0, whole)
            waiting, count = [joined.slice(whole)], count - whole
    if count:
        yield pa.concat_tables(waiting)


class _DamagedError(Exception):
    """A unit's data file does not match its manifest."""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
