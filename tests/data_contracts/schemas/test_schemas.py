import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.schemas.dataset import check_schema
from data_contracts.schemas.faces import FACES, FRAMES, SUBJECTS, VIDEOS
from data_contracts.schemas.features import features_dataset
from data_contracts.schemas.labels import LABELS
from data_contracts.schemas.outputs import outputs_dataset

DATASETS = [
    VIDEOS,
    FRAMES,
    FACES,
    SUBJECTS,
    LABELS,
    features_dataset(4, ("a", "b")),
    outputs_dataset(("va", "expr", "au")),
]


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda d: d.name)
def test_every_column_is_described_once(dataset):
    names = [column.name for column in dataset.columns]
    assert len(set(names)) == len(names)
    assert all(column.meaning for column in dataset.columns)
    assert set(dataset.key) <= set(names)
    assert set(dataset.statistics) <= set(names)


def test_columns_of_equal_names_have_equal_types():
    seen = {}
    for dataset in DATASETS:
        for column in dataset.columns:
            if column.name not in ("subject", "face"):
                assert seen.setdefault(column.name, column.type) == column.type


def test_columns_are_put_in_order_and_types_are_checked():
    table = pa.table({"subject": ["a"], "track": pa.array([0], pa.int32()), "face": pa.array([0], pa.int16())})
    table = table.append_column("frame", pa.array([1], pa.int32()))
    assert check_schema(table, SUBJECTS).schema.names == ["frame", "face", "track", "subject"]
    with pytest.raises(ValueError, match="expected type int32, got int64"):
        check_schema(table.set_column(3, "frame", pa.array([1], pa.int64())), SUBJECTS)


def test_duckdb_and_polars_read_embeddings_as_arrays(tmp_path):
    dataset = features_dataset(4, ("a", "b"))
    vectors = np.arange(8, dtype=np.float16)
    columns = [
        pa.array([1, 2], pa.int32()),
        pa.array([True, True]),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors), type=dataset.schema.field("embedding").type),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors[:4].astype("f4")), type=dataset.schema.field("logits").type),
    ]
    path = tmp_path / "features.parquet"
    pq.write_table(pa.Table.from_arrays(columns, schema=dataset.schema), path)
    with duckdb.connect() as connection:
        assert list(connection.execute(f"select embedding from '{path}' where frame = 2").fetchone()[0]) == [4, 5, 6, 7]
    assert pl.read_parquet(path)["embedding"].to_list()[1] == [4, 5, 6, 7]
