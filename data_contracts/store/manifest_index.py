"""An index of all manifests of a variant, in one file, so that a store with many units is read quickly.

Each variant folder (``faces/source=...``, ``videos``, ...) may hold the file ``_index.pq``: a Parquet table with one
row per manifest. It is a cache inside the store. A row counts only if a listing shows the manifest file with the same
size and version (time of the last change and inode, or ETag on S3). An index that is out of date is therefore never
wrong: manifests without a valid row are read from their files. Only the process that holds the store's lock writes an
index. It does so if the index holds rows of removed or replaced manifests, or lacks many manifests. An index that is
damaged is ignored and written again.

The file name does not end in ``.parquet``, so that readers of ``**/*.parquet`` do not take it for data.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.errors import InputError
from data_contracts.store.details import problems_of
from data_contracts.store.manifest import (
    Manifest,
    UnitKey,
    encode_name,
    is_failure_path,
    is_manifest_path,
    key_of_manifest_path,
)

if TYPE_CHECKING:
    from data_contracts.files.local import LocalFiles
    from data_contracts.files.s3 import S3Files

INDEX_NAME = "_index.pq"
# Partition keys that name a variant. They come before the partition keys of its units.
VARIANT_KEYS = ("source", "backbone", "head", "task")
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("version", pa.string()),
        ("part", pa.string()),
        ("part_bytes", pa.int64()),
        ("rows", pa.int64()),
        ("seconds", pa.float64()),
        ("fingerprint", pa.string()),
        # Null if it equals the fingerprint.
        ("identity", pa.string()),
        ("counts", pa.string()),
        ("details", pa.string()),
        # What details says of problems, as JSON; null if there are none.
        ("problems", pa.string()),
    ]
)
_LISTED = pa.schema([_SCHEMA.field(name) for name in ("path", "size_bytes", "version")])
_PARTS = pa.schema([_SCHEMA.field(name) for name in ("path", "size_bytes")])
_NEEDED = ("path", "size_bytes", "version", "part", "part_bytes")
# An index is written again if it lacks more manifests than this number and this share: reading fewer takes no time.
_MISSING_MANIFESTS, _MISSING_SHARE = 256, 0.01
_READ_AT_A_TIME = 4096
_ROWS_AT_A_TIME = 16_384


@dataclass
class Listing:
    """Files of one variant, or of one folder within it.

    Attributes:
        variant: folder of the variant.
        folder: folder that was listed: the variant's or one below it.
        manifests: path, size and version of each manifest.
        parts: path and size of each data file.
        failures: paths of failure notes.
        index_bytes: size of the variant's index; None if it has none, or if it was not listed.
    """

    variant: str
    folder: str
    manifests: pa.Table
    parts: pa.Table
    failures: list[str] = field(default_factory=list)
    index_bytes: int | None = None


@dataclass
class _Known:
    """Units of a variant that this process has read: path -> (size and version of the manifest, key, manifest).

    ``indexed``: paths with a valid row in the index. ``has_stale_rows``: whether the index has other rows.
    """

    units: dict[str, tuple[tuple[int, str | None], UnitKey, Manifest | None]] = field(default_factory=dict)
    indexed: set[str] = field(default_factory=set)
    has_stale_rows: bool = False
    is_index_read: bool = False


class ManifestIndex:
    """Reads the manifests of a store, from the index where it is valid, else from their files.

    ``may_write``: whether indexes are written. True only while this process holds the store's lock.
    """

    def __init__(self, files: "LocalFiles | S3Files") -> None:
        self.may_write = False
        self._files = files
        self._known: dict[str, _Known] = {}

    def list_variants(self, folder: str) -> Iterator[Listing]:
        """List all files below a folder, one variant at a time."""
        builder: _ListingBuilder | None = None
        variant = last_folder = None
        is_unit_folder = False
        for path, (size_bytes, version) in self._files.iter_states(folder):
            where, _, name = path.rpartition("/")
            if where != last_folder:
                if not _is_utf8(where):
                    continue
                last_folder, is_unit_folder = where, all("=" in part for part in where.split("/")[1:])
                variant = variant_of(where)
                if builder is None or builder.variant != variant:
                    if builder is not None:
                        yield builder.finish()
                    builder = _ListingBuilder(variant, folder if len(folder) > len(variant) else variant)
            if is_unit_folder and builder is not None and (name.isascii() or _is_utf8(name)):
                builder.add(path, name, size_bytes, version)
        if builder is not None:
            yield builder.finish()

    def read_units(self, listing: Listing) -> list[tuple[UnitKey, Manifest]]:
        """Return all complete units of a listing: those whose data file has the stated size."""
        known = self._known.setdefault(listing.variant, _Known())
        columns = [listing.manifests.column(name).to_pylist() for name in _LISTED.names]
        listed = dict(zip(columns[0], zip(columns[1], columns[2], strict=True), strict=True))
        self._drop_removed(known, listed, listing.folder)
        if not known.is_index_read and listing.index_bytes is not None:
            self._load_index(known, listing)
        unknown = [path for path, state in listed.items() if not _is_same(known, path, state)]
        if unknown:
            known.has_stale_rows = known.has_stale_rows or not known.indexed.isdisjoint(unknown)
            known.indexed.difference_update(unknown)
        for path, data in self._read_in_blocks(unknown):
            key = key_of_manifest_path(path)
            # A file may change after it was listed: its state is then not that of these bytes.
            state = listed[path] if len(data) == listed[path][0] else (-1, None)
            if key is not None:
                known.units[path] = state, key, Manifest.from_json(data)
        if self.may_write and listing.folder == listing.variant:
            self._write_if_useful(listing.variant, known)
        sizes = dict(zip(*(listing.parts.column(name).to_pylist() for name in _PARTS.names), strict=True))
        found = (known.units[path][1:] for path in listed if path in known.units)
        return [(k, m) for k, m in found if m and sizes.get(f"{k.folder}/{m.part}") == m.part_bytes]

    def read_table(self, listing: Listing, columns: Collection[str]) -> pa.Table:
        """Return the same units as a table with these columns of the index, without an object per unit."""
        names = [name for name in _SCHEMA.names if name in {*_NEEDED, *columns}]
        index = self._read_index(listing, names)
        valid, unknown = _match(listing.manifests, index if index is not None else _empty(names))
        read = self._read_as_table(unknown, names)
        table = pa.concat_tables([valid, read])
        folders = pc.replace_substring_regex(table.column("path"), "/[^/]*$", "")
        parts = pc.binary_join_element_wise(folders, table.column("part"), "/")
        at = pc.index_in(parts, value_set=_array(listing.parts.column("path")))
        sizes = listing.parts.column("size_bytes").take(at)
        is_complete = pc.fill_null(pc.equal(sizes, table.column("part_bytes")), False)
        return table.filter(is_complete).select(list(columns))

    def remove_names(self, names: Collection[str], variants: Collection[str], datasets: Iterable[str]) -> None:
        """Remove rows from all indexes of these datasets.

        Args:
            names: videos and subjects whose rows are removed.
            variants: variants all of whose rows are removed.

        Raises:
            StoreError: an index cannot be written.
        """
        marks = [f"={encode_name(name)}/" for name in names]
        for variant in (found for dataset in datasets for found in self._variants_with_index(dataset)):
            index = self._read_index(
                Listing(variant, variant, _LISTED.empty_table(), _PARTS.empty_table(), [], 0), _SCHEMA.names
            )
            if index is None or variant in variants:
                self._files.remove(f"{variant}/{INDEX_NAME}")
                self._known.pop(variant, None)
                continue
            is_named = pa.array([False] * index.num_rows)
            for mark in marks:
                is_named = pc.or_(is_named, pc.match_substring(_array(index.column("path")), mark))
            if pc.any(is_named).as_py():
                self._write(variant, index.filter(pc.invert(is_named)))
                self._known.pop(variant, None)

    def _variants_with_index(self, folder: str) -> Iterator[str]:
        names = self._files.list_folder(folder)
        if INDEX_NAME in names:
            yield folder
        for name in names:
            if name.split("=", 1)[0] in VARIANT_KEYS and "=" in name:
                yield from self._variants_with_index(f"{folder}/{name}")

    @staticmethod
    def _drop_removed(known: _Known, listed: Collection[str], folder: str) -> None:
        removed = [path for path in known.units if path not in listed and path.startswith(f"{folder}/")]
        for path in removed:
            del known.units[path]
            if path in known.indexed:
                known.indexed.discard(path)
                known.has_stale_rows = True

    def _load_index(self, known: _Known, listing: Listing) -> None:
        known.is_index_read = True
        index = self._read_index(listing, _SCHEMA.names)
        if index is None:
            # Damaged: to be replaced.
            known.has_stale_rows = True
            return
        valid, _ = _match(listing.manifests, index)
        known.has_stale_rows = valid.num_rows < index.num_rows
        for path, state, key, manifest in _units_of(valid):
            known.units[path] = state, key, manifest
            known.indexed.add(path)

    def _read_index(self, listing: Listing, columns: Sequence[str]) -> pa.Table | None:
        if listing.index_bytes is None:
            return None
        try:
            with (
                self._files.opened(f"{listing.variant}/{INDEX_NAME}", listing.index_bytes) as file,
                pq.ParquetFile(file, page_checksum_verification=True) as parquet,
            ):
                return parquet.read(columns=list(columns)) if parquet.schema_arrow.equals(_SCHEMA) else None
        except InputError:
            raise
        except (OSError, pa.ArrowException, ValueError):
            return None

    def _read_in_blocks(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for first in range(0, len(paths), _READ_AT_A_TIME):
            block = paths[first : first + _READ_AT_A_TIME]
            yield from zip(block, self._files.read_many(block), strict=True)

    def _read_as_table(self, unknown: pa.Table, names: Sequence[str]) -> pa.Table:
        tables = [_empty(names)]
        for batch in unknown.to_batches(max_chunksize=_READ_AT_A_TIME):
            paths, sizes, versions = (batch.column(name).to_pylist() for name in _LISTED.names)
            read = zip(paths, sizes, versions, self._files.read_many(paths), strict=True)
            units = ((path, (size, version), Manifest.from_json(data)) for path, size, version, data in read)
            tables.append(_table_of((path, state, m) for path, state, m in units if m).select(names))
        return pa.concat_tables(tables)

    def _write_if_useful(self, variant: str, known: _Known) -> None:
        rows = [(path, state, m) for path, (state, _, m) in known.units.items() if m and state[1] is not None]
        missing = len(rows) - len(known.indexed)
        if not known.has_stale_rows and missing <= max(_MISSING_MANIFESTS, _MISSING_SHARE * len(rows)):
            return
        # A run must not fail because of a cache.
        with contextlib.suppress(InputError, OSError):
            self._write(variant, _table_of(rows))
            known.indexed, known.has_stale_rows, known.is_index_read = {path for path, *_ in rows}, False, True

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


class _ListingBuilder:
    """Collects the files of a variant in columns."""

    def __init__(self, variant: str, folder: str) -> None:
        self.variant, self._folder = variant, folder
        self._index = f"{variant}/{INDEX_NAME}"
        self._manifests, self._parts = _Rows(_LISTED), _Rows(_PARTS)
        self._failures: list[str] = []
        self._index_bytes: int | None = None

    def add(self, path: str, name: str, size_bytes: int, version: Any) -> None:
        if name.endswith(".parquet"):
            self._parts.add(path, size_bytes)
        elif is_manifest_path(name):
            text = "-".join(map(str, version)) if isinstance(version, tuple) else version or None
            self._manifests.add(path, size_bytes, text)
        elif is_failure_path(name):
            self._failures.append(path)
        elif path == self._index:
            self._index_bytes = size_bytes

    def finish(self) -> Listing:
        manifests, parts = self._manifests.finish(), self._parts.finish()
        return Listing(self.variant, self._folder, manifests, parts, self._failures, self._index_bytes)


class _Rows:
    """Collects rows into a table; Python objects of a few rows exist at a time."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, *row: Any) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROWS_AT_A_TIME:
            self._flush()

    def finish(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self._batches, self._schema)

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else ([] for _ in self._schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._batches.append(pa.record_batch(arrays, self._schema))
        self._rows.clear()


def variant_of(folder: str) -> str:
    """Return the folder of the variant that a folder belongs to: the dataset and the partitions that name a setting."""
    dataset, *partitions = folder.split("/")
    kept = [dataset]
    for partition in partitions:
        if partition.split("=", 1)[0] not in VARIANT_KEYS:
            break
        kept.append(partition)
    return "/".join(kept)


def _match(listed: pa.Table, known: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the known rows whose manifest is listed with the same state, and the listed files without such a row."""
    at = pc.index_in(_array(listed.column("path")), value_set=_array(known.column("path")))
    is_same = pa.scalar(True)
    for name in ("size_bytes", "version"):
        is_same = pc.and_(is_same, pc.equal(_array(known.column(name)).take(at), _array(listed.column(name))))
    is_same = pc.fill_null(is_same, False)
    return known.take(at.filter(is_same)), listed.filter(pc.invert(is_same))


def _array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _empty(names: Sequence[str]) -> pa.Table:
    return _SCHEMA.empty_table().select(list(names))


def _is_same(known: _Known, path: str, state: tuple[int, str | None]) -> bool:
    return state[1] is not None and path in known.units and known.units[path][0] == state


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _table_of(units: Iterable[tuple[str, tuple[int, str | None], Manifest]]) -> pa.Table:
    rows = _Rows(_SCHEMA)
    for path, state, manifest in units:
        problems = problems_of(manifest)
        rows.add(
            path,
            *state,
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
    return rows.finish()


def _units_of(table: pa.Table) -> Iterator[tuple[str, tuple[int, str | None], UnitKey, Manifest]]:
    for row in table.to_reader(max_chunksize=_READ_AT_A_TIME):
        for path, size, version, part, part_bytes, rows, seconds, digest, identity, counts, details, _ in zip(
            *(column.to_pylist() for column in row.columns), strict=True
        ):
            key = key_of_manifest_path(path)
            if key is not None:
                manifest = Manifest(
                    fingerprint=digest,
                    identity=digest if identity is None else identity,
                    part=part,
                    part_bytes=part_bytes,
                    rows=rows,
                    counts=json.loads(counts),
                    seconds=seconds,
                    details=json.loads(details),
                )
                yield path, (size, version), key, manifest
