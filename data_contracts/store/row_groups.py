"""Row groups of Parquet files: how many rows go into one, and how one is read. Files are the business of ``store``."""

from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.store.vector_pages import is_long_vector, read_vectors

ROW_GROUP_ROWS = 2048


def in_row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of ``ROW_GROUP_ROWS``: what comes in small pieces is not stored in small pieces."""
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


def read_row_group(
    file: IO[bytes], parquet: pq.ParquetFile, group: int, columns: Sequence[str] | None
) -> list[pa.RecordBatch]:
    """One row group, or some columns of it, as Arrow gives it; ``file`` is what ``parquet`` reads from."""
    schema = parquet.schema_arrow
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    vectors = {field.name: read_vectors(file, parquet, group, field) for field in wanted if is_long_vector(field)}
    if not vectors or None in vectors.values():
        return parquet.read_row_group(group, columns=columns, use_threads=False).to_batches()
    others = [field.name for field in wanted if field.name not in vectors]
    table = parquet.read_row_group(group, columns=others, use_threads=False)
    arrays = [vectors[n] if n in vectors else table.column(n).combine_chunks() for n in wanted.names]
    return [pa.RecordBatch.from_arrays(arrays, schema=wanted.with_metadata(schema.metadata))]
