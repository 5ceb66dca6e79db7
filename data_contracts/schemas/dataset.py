"""Datasets and their columns, and the columns that several datasets share.

The unit, value range and meaning of each column are written into the metadata of every Parquet file.
"""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column of a dataset."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    value_range: str = ""
    nullable: bool = False

    def to_arrow(self) -> pa.Field:
        """Return the Arrow field, with unit, range and meaning as field metadata."""
        described = {"meaning": self.meaning, "unit": self.unit, "range": self.value_range}
        metadata = {key: value for key, value in described.items() if value}
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


@dataclass(frozen=True)
class Dataset:
    """A table of the store.

    Attributes:
        key: columns that identify a row within its partition.
        partitions: keys of the folders of the files.
        statistics: columns whose minimum and maximum are stored per row group.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partitions: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ("frame",)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of every file of the dataset; partition keys are folders, not columns."""
        metadata = {"dataset": self.name, "meaning": self.meaning, "key": ",".join((*self.partitions, *self.key))}
        return pa.schema([column.to_arrow() for column in self.columns], metadata=metadata)


def check_schema(table: pa.Table, dataset: Dataset) -> pa.Table:
    """Return the table with the columns in the order of the dataset, and with its metadata.

    Raises:
        ValueError: a column is missing, unknown, of another type, or contains nulls although it must not.
    """
    wanted = dataset.schema
    if set(table.column_names) != set(wanted.names):
        raise ValueError(f"{dataset.name}: expected columns {wanted.names}, got {table.column_names}")
    table = table.select(wanted.names)
    for column in wanted:
        got = table.schema.field(column.name).type
        if got != column.type and not (pa.types.is_null(got) and column.nullable):
            raise ValueError(f"{dataset.name}.{column.name}: expected type {column.type}, got {got}")
        if not column.nullable and table.column(column.name).null_count:
            raise ValueError(f"{dataset.name}.{column.name}: expected a value in every row, got nulls")
    return table.cast(wanted)


FRAME = Column("frame", pa.int32(), "frame number in decoder output order; frame 1 is 00001.jpg", "frames", ">= 1")
SUBJECT = Column("subject", pa.string(), "one person in one video: video stem, or stem + _left / _right")
PERSON = Column("person", pa.int32(), "number of the person in the video, by first appearance", "", ">= 1")
HAS_FACE = Column("has_face", pa.bool_(), "whether the frame shows the subject's face; other values are null if not")
