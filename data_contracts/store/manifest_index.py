"""An index of all manifests of a variant in one file, so that a store with many units can be read quickly.

Each variant folder (``faces/source=...``, ``videos``, ...) may contain the file ``_index.pq``: a Parquet table with one
row per manifest. A row is used only if a listing shows the manifest file with the same size and version (modification
time and inode, or ETag on S3). All other manifests are read from their files. An index that is outdated, damaged or
missing therefore costs time but never gives a wrong result. Only the process that holds the store's lock writes
indexes.

The name of the file does not end in ``.parquet``, so that readers of ``**/*.parquet`` skip it.
"""

import contextlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.details.records import problems_of
from data_contracts.errors import InputError
from data_contracts.store.manifest import (
    Manifest,
    StoredUnit,
    encode_name,
    is_failure_path,
    is_manifest_path,
    is_utf8,
    key_of_manifest_path,
)

if TYPE_CHECKING:
    from data_contracts.files.local import LocalFiles
    from data_contracts.files.s3 import S3Files

INDEX_NAME = "_index.pq"
# Partition keys that name a variant. They come before the partition keys of its units.
VARIANT_KEYS = ("source", "backbone", "head", "task")
_LISTED = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("version", pa.string())])
_SCHEMA = pa.schema(
    [
        *_LISTED,
        ("part", pa.string()),
        ("part_bytes", pa.int64()),
        ("rows", pa.int64()),
        ("seconds", pa.float64()),
        ("fingerprint", pa.string()),
        # Null if it equals the fingerprint.
        ("identity", pa.string()),
        ("counts", pa.string()),
        ("details", pa.string()),
        # JSON list of the problems in details; null if there are none.
        ("problems", pa.string()),
    ]
)
_PARTS = pa.schema([("path", pa.string()), ("size_bytes", pa.int64())])
_NEEDED = (*_LISTED.names, "part", "part_bytes")
# Read this number of manifests, or this share of a variant, from their files rather than write the index again.
_MISSING_MANIFESTS, _MISSING_SHARE = 256, 0.01
_MANIFESTS_PER_BATCH = 4096
_FILES_PER_BLOCK = 65_536


@dataclass
class Block:
    """Listed files of some folders of one variant. A block contains all files of a folder or none.

    Attributes:
        variant: folder of the variant.
        manifests: (path, size in bytes, version) of each manifest.
        parts: (path, size in bytes) of each data file.
        failures: paths of failure notes.
    """

    variant: str
    manifests: list[tuple[str, int, str | None]] = field(default_factory=list)
    parts: list[tuple[str, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, path: str, size_bytes: int, version: Any) -> None:
        """Add a file; ignore files that do not belong to units."""
        if path.endswith(".parquet"):
            self.parts.append((path, size_bytes))
        elif is_manifest_path(path):
            text = "-".join(map(str, version)) if isinstance(version, tuple) else version or None
            self.manifests.append((path, size_bytes, text))
        elif is_failure_path(path):
            self.failures.append(path)


@dataclass
class _Cached:
    """Rows of a variant in memory: its stored index, and rows that were read from manifests and are not in it yet."""

    stored: pa.Table
    added: pa.Table


class ManifestIndex:
    """Reads the manifests of a store, from the index where it is valid, otherwise from their files.

    ``may_write``: whether indexes are written. True only while this process holds the store's lock.
    """

    def __init__(self, files: "LocalFiles | S3Files") -> None:
        self.may_write = False
        self._files = files
        self._cache: dict[str, _Cached] = {}

    def list_blocks(self, folder: str) -> Iterator[Block]:
        """List all files below a folder, block by block. The blocks of a variant follow one another."""
        block: Block | None = None
        last_folder = ""
        for where, files in itertools.groupby(self._files.iter_states(folder), lambda file: file[0].rpartition("/")[0]):
            if not is_utf8(where):
                continue
            variant = variant_of(where)
            # Files of a folder may be listed before and after its subfolders.
            is_nested = where.startswith(last_folder) or last_folder.startswith(where)
            is_full = block and len(block.manifests) + len(block.parts) >= _FILES_PER_BLOCK
            if block and (block.variant != variant or (is_full and not is_nested)):
                yield block
                block = None
            block = block or Block(variant)
            last_folder = where
            if all("=" in partition for partition in where.split("/")[1:]):
                for path, (size_bytes, version) in files:
                    if is_utf8(path):
                        block.add(path, size_bytes, version)
        if block:
            yield block

    def read_units(self, folder: str) -> Iterator[tuple[Block, list[StoredUnit]]]:
        """Yield all complete units below a folder, block by block.

        A unit is complete if its data file has the size that the manifest states.
        """
        for block, table in self.read_tables(folder):
            yield block, list(_units_of(table))

    def read_tables(self, folder: str, columns: Sequence[str] | None = None) -> Iterator[tuple[Block, pa.Table]]:
        """Yield the complete units below a folder as rows of the index, block by block.

        Args:
            columns: the columns to return. None returns all, keeps them in memory for the next call, and writes the
                index if this saves time later.
        """
        names = [name for name in _SCHEMA.names if columns is None or name in {*_NEEDED, *columns}]
        for variant, blocks in itertools.groupby(self.list_blocks(folder), lambda block: block.variant):
            is_whole_variant = variant == folder or variant.startswith(f"{folder}/")
            cached = self._cache.get(variant) if columns is None else None
            if cached is None:
                stored = self._read_index(variant, names) if is_whole_variant else _empty(names)
                cached = _Cached(stored, _empty(names))
            still_stored, added = [_empty(names)], [_empty(names)]
            for block in blocks:
                from_index, rest = _match(_to_table(block.manifests, _LISTED), cached.stored)
                from_memory, rest = _match(rest, cached.added)
                from_files = self._read_manifests(rest, names)
                table = pa.concat_tables([from_index, from_memory, from_files])
                yield block, _complete(table, _to_table(block.parts, _PARTS)).select(columns or names)
                if columns is None:
                    still_stored.append(from_index)
                    added += [from_memory, from_files]
            if columns is None and is_whole_variant:
                self._cache[variant] = _Cached(cached.stored, pa.concat_tables(added))
                if self.may_write:
                    self._write_if_useful(variant, pa.concat_tables(still_stored))

    def remove_names(self, names: Collection[str], variants: Collection[str], datasets: Iterable[str]) -> None:
        """Remove rows from all indexes of these datasets.

        Args:
            names: videos and subjects whose rows are removed.
            variants: folders of variants all of whose rows are removed.

        Raises:
            StoreError: an index cannot be written.
        """
        marks = [f"={encode_name(name)}/" for name in names]
        for variant in (found for dataset in datasets for found in self._variants_with_index(dataset)):
            self._cache.pop(variant, None)
            index = self._read_index(variant, _SCHEMA.names)
            paths = index["path"].to_pylist()
            is_kept = [variant not in variants and not any(mark in path for mark in marks) for path in paths]
            # An empty table stands for a damaged index, which may contain any name.
            if not all(is_kept) or not paths:
                self._write(variant, index.filter(pa.array(is_kept, pa.bool_())))

    def _variants_with_index(self, folder: str) -> Iterator[str]:
        names = self._files.list_folder(folder)
        if INDEX_NAME in names:
            yield folder
        for name in names:
            if name.split("=", 1)[0] in VARIANT_KEYS and "=" in name:
                yield from self._variants_with_index(f"{folder}/{name}")

    def _read_index(self, variant: str, columns: Sequence[str]) -> pa.Table:
        """Return the index of a variant; an empty table if there is none, or if it is damaged."""
        try:
            with (
                self._files.opened(f"{variant}/{INDEX_NAME}", 0) as file,
                pq.ParquetFile(file, page_checksum_verification=True) as parquet,
            ):
                if parquet.schema_arrow.equals(_SCHEMA):
                    return parquet.read(columns=list(columns), use_threads=False)
        except InputError:
            raise
        except (OSError, pa.ArrowException, ValueError):
            pass
        return _empty(columns)

    def _read_manifests(self, listed: pa.Table, columns: Sequence[str]) -> pa.Table:
        tables = [_empty(columns)]
        for batch in listed.to_batches(max_chunksize=_MANIFESTS_PER_BATCH):
            paths, sizes, versions = (column.to_pylist() for column in batch.columns)
            rows = []
            for path, size, version, data in zip(paths, sizes, versions, self._files.read_many(paths), strict=True):
                manifest = Manifest.from_json(data)
                if manifest and key_of_manifest_path(path):
                    # The file may have changed after the listing: without a version, its row is never used again.
                    rows.append((path, size, version if len(data) == size else None, *_fields_of(manifest)))
            tables.append(_to_table(rows, _SCHEMA).select(columns))
        return pa.concat_tables(tables)

    def _write_if_useful(self, variant: str, still_stored: pa.Table) -> None:
        """Write the index if it has outdated rows or lacks many manifests."""
        cached = self._cache[variant]
        added = cached.added.filter(cached.added["version"].is_valid())
        missing_share = _MISSING_SHARE * (still_stored.num_rows + added.num_rows)
        is_outdated = still_stored.num_rows < cached.stored.num_rows
        if is_outdated or added.num_rows > max(_MISSING_MANIFESTS, missing_share):
            # A run must not fail because of a cache.
            with contextlib.suppress(InputError, OSError):
                index = pa.concat_tables([still_stored, added])
                self._write(variant, index)
                self._cache[variant] = _Cached(index, _empty(_SCHEMA.names))

    def _write(self, variant: str, table: pa.Table) -> None:
        path = f"{variant}/{INDEX_NAME}"
        if not table.num_rows:
            self._files.remove(path)
            return
        with self._files.replacing(path) as file:
            pq.write_table(
                table,
                file,
                compression="zstd",
                use_dictionary=["counts", "details", "problems"],
                column_encoding={"path": "DELTA_BYTE_ARRAY", "part": "DELTA_BYTE_ARRAY"},
                write_statistics=False,
                write_page_checksum=True,
                row_group_size=1 << 20,
            )


def variant_of(folder: str) -> str:
    """Return the folder of the variant that a folder belongs to: the dataset and the partitions that name a setting."""
    dataset, *partitions = folder.split("/")
    named = itertools.takewhile(lambda partition: partition.split("=", 1)[0] in VARIANT_KEYS, partitions)
    return "/".join([dataset, *named])


def _match(listed: pa.Table, known: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the known rows whose manifest is listed with the same state, and the listed files without such a row."""
    at = pc.index_in(listed["path"], value_set=known["path"])
    is_same = pa.scalar(True)
    for name in ("size_bytes", "version"):
        is_same = pc.and_(is_same, pc.equal(known[name].take(at), listed[name]))
    is_same = pc.fill_null(is_same, False)
    return known.take(at.filter(is_same)), listed.filter(pc.invert(is_same))


def _complete(table: pa.Table, parts: pa.Table) -> pa.Table:
    """Return the rows whose data file exists with the size that the manifest states."""
    folders = pc.replace_substring_regex(table["path"], "/[^/]*$", "")
    at = pc.index_in(pc.binary_join_element_wise(folders, table["part"], "/"), value_set=parts["path"])
    return table.filter(pc.fill_null(pc.equal(parts["size_bytes"].take(at), table["part_bytes"]), False))


def _empty(columns: Sequence[str]) -> pa.Table:
    return _SCHEMA.empty_table().select(list(columns))


def _to_table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _fields_of(manifest: Manifest) -> tuple[Any, ...]:
    """Return the columns of a manifest from ``part`` on."""
    problems = problems_of(manifest)
    return (
        manifest.part,
        manifest.part_bytes,
        manifest.rows,
        manifest.seconds,
        manifest.fingerprint,
        None if manifest.identity == manifest.fingerprint else manifest.identity,
        json.dumps(manifest.counts),
        json.dumps(manifest.details),
        json.dumps(problems) if problems else None,
    )


def _units_of(table: pa.Table) -> Iterator[StoredUnit]:
    for batch in table.to_batches(max_chunksize=_MANIFESTS_PER_BATCH):
        for row in batch.to_pylist():
            key = key_of_manifest_path(row["path"])
            if key is not None:
                manifest = Manifest(
                    fingerprint=row["fingerprint"],
                    identity=row["fingerprint"] if row["identity"] is None else row["identity"],
                    part=row["part"],
                    part_bytes=row["part_bytes"],
                    rows=row["rows"],
                    counts=json.loads(row["counts"]),
                    seconds=row["seconds"],
                    details=json.loads(row["details"]),
                )
                yield StoredUnit(key, manifest)
