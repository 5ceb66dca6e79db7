import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.store.row_groups import ROW_GROUP_ROWS, in_row_groups, read_row_group


@pytest.mark.parametrize("sizes", [[], [0], [64] * 100, [5000], [2048, 2048], [1, 4095, 7], [0, 3, 0]])
def test_small_tables_become_whole_groups_in_order(sizes):
    ends = np.cumsum(sizes)
    tables = [pa.table({"n": np.arange(end - size, end)}) for size, end in zip(sizes, ends, strict=True)]
    found = list(in_row_groups(tables))
    assert all(table.num_rows % ROW_GROUP_ROWS == 0 for table in found[:-1])
    assert all(table.num_rows for table in found)
    numbers = [n for table in found for n in table["n"].to_pylist()]
    assert numbers == list(range(sum(sizes)))


@pytest.mark.parametrize("columns", [None, ["frame"], ["vector"], ["vector", "frame"], ["text", "vector"]])
def test_groups_equal_arrows_with_any_columns(tmp_path, columns):
    kind = pa.list_(pa.field("item", pa.float16(), nullable=False), 70)
    vector = pa.FixedSizeListArray.from_arrays(
        pa.array(np.arange(700).astype("f2")), type=kind, mask=pa.array(np.arange(10) % 3 == 1)
    )
    schema = pa.schema(
        [
            pa.field("frame", pa.int32(), nullable=False),
            pa.field("vector", kind),
            pa.field("text", pa.string()),
        ],
        metadata={"dataset": "x"},
    )
    arrays = [pa.array(np.arange(10, dtype="i4")), vector, pa.array([*list("abcdefghi"), None])]
    path = tmp_path / "x.parquet"
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_page_checksum=True) as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=4)
    with open(path, "rb") as file, pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):
            expected = parquet.read_row_group(group, columns=columns).to_batches()
            got = read_row_group(file, parquet, group, columns)
            assert [b.schema.names for b in got] == [b.schema.names for b in expected]
            assert pa.Table.from_batches(got).equals(pa.Table.from_batches(expected))
