"""Columns of long vectors read from Parquet pages without a step per number.

A general reader takes every number of a list for one that might be missing or begin a new row, which costs many times
the copying. Here whole pages are copied, and only rows are looked at. What is not laid out as expected is left to the
general reader: compressed, dictionaries, other pages, a checksum that is missing or does not fit.
"""

import zlib
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LEAST_VECTOR = 64
_KINDS = {pa.float16(): ("FIXED_LEN_BYTE_ARRAY", np.float16), pa.float32(): ("FLOAT", np.float32)}
_DATA_PAGE, _PLAIN = 0, 0


def is_long_vector(field: pa.Field) -> bool:
    """Whether a column is worth reading this way: a list of many float16 or float32, none of them null."""
    kind = field.type
    if not pa.types.is_fixed_size_list(kind) or kind.list_size < LEAST_VECTOR:
        return False
    return kind.value_type in _KINDS and not kind.value_field.nullable


def read_vectors(file: IO[bytes], parquet: pq.ParquetFile, group: int, field: pa.Field) -> pa.Array | None:
    """A column of one row group as Arrow's reader would give it; None if that has to read it."""
    place = [c.path.split(".")[0] for c in map(parquet.schema.column, range(len(parquet.schema)))].index(field.name)
    chunk, rows = parquet.metadata.row_group(group).column(place), parquet.metadata.row_group(group).num_rows
    physical, kind = _KINDS[field.type.value_type]
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page or chunk.physical_type != physical or not rows:
        return None
    file.seek(chunk.data_page_offset)
    try:
        found = _read_chunk(file.read(chunk.total_compressed_size), parquet.schema.column(place), kind)
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return None
    if found is None:
        return None
    values, missing = found
    return _assemble(values, missing, rows, field)


def _assemble(values: np.ndarray, missing: np.ndarray, rows: int, field: pa.Field) -> pa.Array | None:
    """``values`` of the rows that are there; ``missing``: how many of them come before each null row."""
    size = field.type.list_size
    if len(values) != (rows - len(missing)) * size or (missing % size).any() or (len(missing) and not field.nullable):
        return None
    mask = None
    if len(missing):
        present = np.ones(rows, bool)
        present[missing // size + np.arange(len(missing))] = False
        whole = np.zeros((rows, size), values.dtype)
        whole[present] = values.reshape(-1, size)
        values, mask = whole.reshape(-1), pa.array(~present)
    flat = pa.Array.from_buffers(field.type.value_type, len(values), [None, pa.py_buffer(values)])
    return pa.FixedSizeListArray.from_arrays(flat, type=field.type, mask=mask)


def _read_chunk(data: bytes, column: Any, kind: type) -> tuple[np.ndarray, np.ndarray] | None:
    """All numbers of a column chunk, and how many of them come before each null row."""
    top, view, at = column.max_definition_level, memoryview(data), 0
    parts: list[np.ndarray] = []
    missing: list[np.ndarray] = []
    count = 0
    while at < len(data):
        header, at = _read_struct(data, at)
        page = header.get(5)
        size = header[3]
        body = view[at : at + size]
        at += size
        is_plain = header[1] == _DATA_PAGE and isinstance(page, dict) and page[2] == _PLAIN
        if not is_plain or zlib.crc32(body) != header.get(4, -1) & 0xFFFFFFFF or 4 not in header:
            return None
        assert isinstance(page, dict)
        start = 4 + int.from_bytes(body[:4], "little")  # past the levels that say where rows begin: every so many
        end = start + 4 + int.from_bytes(body[start : start + 4], "little")
        levels, counts = _runs(bytes(body[start + 4 : end]), top.bit_length(), page[1])
        numbers: np.ndarray = np.frombuffer(body[end:], kind)
        if not np.isin(levels, (0, top)).all() or counts[levels == top].sum() != len(numbers):
            return None
        before = np.cumsum(np.where(levels == top, counts, 0)) + count
        missing.append(np.repeat(before[levels == 0], counts[levels == 0]))
        parts.append(numbers)
        count += len(numbers)
    return np.concatenate(parts), np.concatenate(missing)


def _runs(data: bytes, width: int, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels in Parquet's mixture of runs and packed groups of eight, as (level, how often) one after the other."""
    levels: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    at, left = 0, total
    while at < len(data) and left > 0:
        head, at = _read_varint(data, at)
        if head & 1:
            size = (head >> 1) * width
            bits = np.unpackbits(np.frombuffer(data, np.uint8, size, at), bitorder="little").reshape(-1, width)
            packed = (bits << np.arange(width, dtype=np.uint8)).sum(axis=1)[:left]
            levels.append(packed)
            counts.append(np.ones(len(packed), np.int64))
            at, left = at + size, left - len(packed)
        else:
            levels.append(np.array([data[at]]))
            counts.append(np.array([min(head >> 1, left)]))
            at, left = at + 1, left - (head >> 1)
    if left > 0:
        raise ValueError("expected a level for every value, got fewer")
    return np.concatenate(levels).astype(np.int64), np.concatenate(counts)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _read_struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct in Thrift's compact protocol: field number -> whole number, bytes, boolean or struct."""
    found: dict[int, Any] = {}
    number = 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 0x0F
        at += 1
        if step:
            number += step
        else:
            value, at = _read_varint(data, at)
            number = (value >> 1) ^ -(value & 1)
        if kind in (1, 2):
            found[number] = kind == 1
        elif kind in (4, 5, 6):
            value, at = _read_varint(data, at)
            found[number] = (value >> 1) ^ -(value & 1)
        elif kind == 8:
            size, at = _read_varint(data, at)
            found[number], at = data[at : at + size], at + size
        elif kind == 12:
            found[number], at = _read_struct(data, at)
        else:
            raise ValueError(f"expected a number, bytes or a struct, got type {kind}")
    return found, at + 1
