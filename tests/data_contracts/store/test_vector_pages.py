import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.store.vector_pages import is_long_vector, read_vectors

RANDOM = np.random.default_rng(0)


def vectors(rows, size, kind, *, missing=0.0, nullable=True):
    value = {"f2": pa.float16(), "f4": pa.float32()}[kind]
    field = pa.field("v", pa.list_(pa.field("item", value, nullable=False), size), nullable=nullable)
    flat = pa.array(RANDOM.normal(size=rows * size).astype(kind))
    absent = RANDOM.random(rows) < missing
    mask = pa.array(absent) if nullable else None
    return pa.Table.from_arrays(
        [pa.array(np.arange(rows)), pa.FixedSizeListArray.from_arrays(flat, type=field.type, mask=mask)],
        schema=pa.schema([pa.field("frame", pa.int64(), nullable=False), field]),
    )


def read_all(path, name="v"):
    """Per row group what this module reads, and what Arrow does."""
    with open(path, "rb") as file, pq.ParquetFile(file) as parquet:
        field = parquet.schema_arrow.field(name)
        groups = range(parquet.num_row_groups)
        plain = [parquet.read_row_group(g, columns=[name]).column(name).combine_chunks() for g in groups]
        return [read_vectors(file, parquet, g, field) for g in groups], plain


def write(path, table, **settings):
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True, "row_group_size": 300}
    pq.write_table(table, path, **options | settings)


@pytest.mark.parametrize("kind", ["f2", "f4"])
@pytest.mark.parametrize("missing", [0.0, 0.03, 0.5, 0.97, 1.0])
@pytest.mark.parametrize(("rows", "size"), [(1, 64), (7, 65), (299, 1280), (1000, 97)])
def test_equals_what_arrow_reads(tmp_path, kind, missing, rows, size):
    write(tmp_path / "v.parquet", vectors(rows, size, kind, missing=missing))
    ours, plain = read_all(tmp_path / "v.parquet")
    assert all(array is not None and array.type == other.type for array, other in zip(ours, plain, strict=True))
    assert ours == plain


def test_runs_of_missing_rows_and_pages_that_end_within_a_row(tmp_path):
    table = vectors(900, 200, "f2", missing=0.4)
    absent = np.repeat(RANDOM.random(60) < 0.5, 15)
    array = table["v"].combine_chunks()
    flat = pa.array(RANDOM.normal(size=900 * 200).astype("f2"))
    runs = pa.FixedSizeListArray.from_arrays(flat, type=array.type, mask=pa.array(absent))
    for column in (array, runs):
        write(tmp_path / "v.parquet", table.set_column(1, table.schema.field("v"), column), data_page_size=1000)
        ours, plain = read_all(tmp_path / "v.parquet")
        assert None not in ours and ours == plain


def test_columns_that_are_never_missing(tmp_path):
    write(tmp_path / "v.parquet", vectors(500, 128, "f4", nullable=False))
    ours, plain = read_all(tmp_path / "v.parquet")
    assert None not in ours and ours == plain


@pytest.mark.parametrize(
    "settings",
    [
        {"compression": "zstd"},
        {"data_page_version": "2.0"},
        {"write_page_checksum": False},
        {"use_dictionary": True},
        {"use_byte_stream_split": True},
    ],
)
def test_what_is_laid_out_otherwise_is_left_to_arrow(tmp_path, settings):
    write(tmp_path / "v.parquet", vectors(500, 64, "f2", missing=0.1), **settings)
    ours, plain = read_all(tmp_path / "v.parquet")
    assert ours == [None] * len(plain)


def test_no_damaged_page_is_taken_for_whole(tmp_path):
    path = tmp_path / "v.parquet"
    write(path, vectors(200, 64, "f2", missing=0.1))
    whole = path.read_bytes()
    with pq.ParquetFile(path) as parquet:
        chunk = parquet.metadata.row_group(0).column(1)
    places = RANDOM.integers(chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size, 150)
    (expected,), _ = read_all(path)
    for place in [chunk.data_page_offset + k for k in range(40)] + places.tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(RANDOM.integers(8))
        path.write_bytes(damaged)
        with open(path, "rb") as file, pq.ParquetFile(file) as parquet:
            found = read_vectors(file, parquet, 0, parquet.schema_arrow.field("v"))
        # Some bits of a header say nothing that matters here.
        assert found is None or found == expected


def test_which_columns_are_long_vectors():
    def of(value, size, nullable=False):
        return pa.field("v", pa.list_(pa.field("item", value, nullable=nullable), size))

    assert is_long_vector(of(pa.float16(), 1280)) and is_long_vector(of(pa.float32(), 64))
    for field in (of(pa.float32(), 8), of(pa.float64(), 100), of(pa.float16(), 100, nullable=True)):
        assert not is_long_vector(field)
    assert not is_long_vector(pa.field("frame", pa.int32()))
