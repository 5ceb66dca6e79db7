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
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
_FILES_PER_BLOCK = 65_536


@dataclass
class Block:
    """Files of some folders of one variant. A block holds all files of a folder or none.

    Attributes:
        variant: folder of the variant.
        manifests: path, size and version of each manifest.
        parts: path and size of each data file.
        failures: paths of failure notes.
    """

    variant: str
    manifests: pa.Table
    parts: pa.Table
    failures: list[str] = field(default_factory=list)


@dataclass
class _Known:
    """Units of a variant that this process has read: path -> (size and version of the manifest, key, manifest).

    Attributes:
        index_rows: number of rows of the stored index; None if it was not read.
        indexed: paths of the units that have a valid row in it.
    """

    units: dict[str, tuple[tuple[int, str | None], UnitKey, Manifest | None]] = field(default_factory=dict)
    index_rows: int | None = None
    indexed: set[str] = field(default_factory=set)


class ManifestIndex:
    """Reads the manifests of a store, from the index where it is valid, else from their files.

    ``may_write``: whether indexes are written. True only while this process holds the store's lock.
    """

    def __init__(self, files: "LocalFiles | S3Files") -> None:
        self.may_write = False
        self._files = files
        self._known: dict[str, _Known] = {}

    def list_blocks(self, folder: str) -> Iterator[Block]:
        """List all files below a folder, block by block. The blocks of a variant follow one another."""
        builder: _BlockBuilder | None = None
        last_folder, is_unit_folder = "", False
        for path, (size_bytes, version) in self._files.iter_states(folder):
            where, _, name = path.rpartition("/")
            if where != last_folder:
                if not _is_utf8(where):
                    continue
                variant = variant_of(where)
                # Files of a folder may be listed before and after its subfolders.
                is_nested = where.startswith(last_folder) or last_folder.startswith(where)
                if builder and (builder.variant != variant or (builder.is_full and not is_nested)):
                    yield builder.finish()
                    builder = None
                builder = builder or _BlockBuilder(variant)
                last_folder, is_unit_folder = where, all("=" in part for part in where.split("/")[1:])
            if builder and is_unit_folder and (name.isascii() or _is_utf8(name)):
                builder.add(path, name, size_bytes, version)
        if builder:
            yield builder.finish()

    def read_units(self, folder: str) -> Iterator[tuple[Block, list[tuple[UnitKey, Manifest]]]]:
        """Yield all complete units below a folder, block by block.

        A unit is complete if its data file has the size that the manifest states.
        """
        for variant, blocks in itertools.groupby(self.list_blocks(folder), lambda block: block.variant):
            known = self._known.setdefault(variant, _Known())
            is_whole_variant = variant == folder or variant.startswith(f"{folder}/")
            index = None
            if is_whole_variant and known.index_rows is None:
                # Later listings need no index: every unit with a valid row is known then.
                index = self._read_index(variant, _SCHEMA.names)
                known.index_rows = index.num_rows
            found: set[str] = set()
            for block in blocks:
                columns = [block.manifests.column(name).to_pylist() for name in _LISTED.names]
                listed = dict(zip(columns[0], zip(columns[1], columns[2], strict=True), strict=True))
                self._update(known, block, listed, index)
                found.update(listed)
                sizes = dict(zip(*(block.parts.column(name).to_pylist() for name in _PARTS.names), strict=True))
                units = (known.units[path][1:] for path in listed if path in known.units)
                yield block, [(k, m) for k, m in units if m and sizes.get(f"{k.folder}/{m.part}") == m.part_bytes]
            for path in [path for path in known.units if path not in found and path.startswith(f"{folder}/")]:
                del known.units[path]
                known.indexed.discard(path)
            if is_whole_variant and self.may_write:
                self._write_if_useful(variant, known)

    def read_tables(self, folder: str, columns: Sequence[str]) -> Iterator[tuple[Block, pa.Table]]:
        """Yield the same units as tables with these columns of the index, block by block.

        No object per unit is created, so that the memory does not grow with the number of units.
        """
        names = [name for name in _SCHEMA.names if name in {*_NEEDED, *columns}]
        for variant, blocks in itertools.groupby(self.list_blocks(folder), lambda block: block.variant):
            index = self._read_index(variant, names)
            for block in blocks:
                valid, unknown = _match(block.manifests, index)
                table = pa.concat_tables([valid, self._read_as_table(unknown, names)])
                yield block, _complete(table, block.parts).select(columns)

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
            self._known.pop(variant, None)
            index = self._read_index(variant, _SCHEMA.names)
            is_named = pa.array([variant in variants] * index.num_rows, pa.bool_())
            for mark in marks:
                is_named = pc.or_(is_named, pc.match_substring(_array(index.column("path")), mark))
            # A damaged index may hold any name.
            if pc.any(is_named).as_py() or not index.num_rows:
                self._write(variant, index.filter(pc.invert(is_named)))

    def _variants_with_index(self, folder: str) -> Iterator[str]:
        names = self._files.list_folder(folder)
        if INDEX_NAME in names:
            yield folder
        for name in names:
            if name.split("=", 1)[0] in VARIANT_KEYS and "=" in name:
                yield from self._variants_with_index(f"{folder}/{name}")

    def _update(
        self, known: _Known, block: Block, listed: Mapping[str, tuple[int, str | None]], index: pa.Table | None
    ) -> None:
        """Make the units of a block known: from memory, else from the index, else from the manifests."""
        unknown = {path for path, state in listed.items() if not _is_same(known, path, state)}
        known.indexed.difference_update(unknown)
        if unknown and index is not None:
            valid, _ = _match(block.manifests, index)
            for path, state, key, manifest in _units_of(valid):
                known.units[path] = state, key, manifest
                known.indexed.add(path)
                unknown.discard(path)
        for path, data in self._read_in_blocks(sorted(unknown)):
            unit = key_of_manifest_path(path)
            # A file may change after it was listed: its state is then not the state of these bytes.
            state = listed[path] if len(data) == listed[path][0] else (-1, None)
            if unit is not None:
                known.units[path] = state, unit, Manifest.from_json(data)

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
        has_stale_rows = known.index_rows is not None and known.index_rows > len(known.indexed)
        if not has_stale_rows and missing <= max(_MISSING_MANIFESTS, _MISSING_SHARE * len(rows)):
            return
        # A run must not fail because of a cache.
        with contextlib.suppress(InputError, OSError):
            self._write(variant, _table_of(rows))
            known.index_rows, known.indexed = len(rows), {path for path, *_ in rows}

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


class _BlockBuilder:
    """Collects the files of a block in columns."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self._manifests, self._parts = _Rows(_LISTED), _Rows(_PARTS)
        self._failures: list[str] = []

    @property
    def is_full(self) -> bool:
        return self._manifests.count + self._parts.count >= _FILES_PER_BLOCK

    def add(self, path: str, name: str, size_bytes: int, version: Any) -> None:
        if name.endswith(".parquet"):
            self._parts.add(path, size_bytes)
        elif is_manifest_path(name):
            text = "-".join(map(str, version)) if isinstance(version, tuple) else version or None
            self._manifests.add(path, size_bytes, text)
        elif is_failure_path(name):
            self._failures.append(path)

    def finish(self) -> Block:
        return Block(self.variant, self._manifests.finish(), self._parts.finish(), self._failures)


class _Rows:
    """Collects rows into a table; Python objects of a few rows exist at a time."""

    def __init__(self, schema: pa.Schema) -> None:
        self.count = 0
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, *row: Any) -> None:
        self._rows.append(row)
        self.count += 1
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


def _complete(table: pa.Table, parts: pa.Table) -> pa.Table:
    """Return the rows whose data file exists with the size that the manifest states."""
    folders = pc.replace_substring_regex(table.column("path"), "/[^/]*$", "")
    paths = pc.binary_join_element_wise(folders, table.column("part"), "/")
    at = pc.index_in(paths, value_set=_array(parts.column("path")))
    sizes = _array(parts.column("size_bytes")).take(at)
    return table.filter(pc.fill_null(pc.equal(sizes, table.column("part_bytes")), False))


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
