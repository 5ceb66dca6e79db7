"""Read files of features that other programs computed: Parquet, CSV or npz, a row per subject and frame.

Every reader yields blocks of rows, so that memory does not depend on the size of the file.
"""

import contextlib
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.errors import InputError

SUFFIXES = (".parquet", ".pq", ".csv", ".npz")
_KEYS = ("subject", "frame")
# Lists of numbers; columns of single numbers are the other way to write the same.
_EMBEDDING, _SCORES = "embedding", "scores"
# Beginning of the names of columns of single numbers that are scores.
_SCORE = "score_"
# pandas names a column of row numbers so.
_INDEX = "__index_level_"
_BLOCK_ROWS = 4096
_CSV_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class FeatureRows:
    """A block of rows: subject [n], frame int64 [n], and values float32 [n, D + C], the embedding before the scores.

    Values are NaN where the file has none, and have no columns if they were not asked for.
    """

    subject: pa.Array
    frame: np.ndarray
    values: np.ndarray


class FeatureFile(ABC):
    """An open file. ``embedding_size``: D; ``score_names``: names of the C scores."""

    embedding_size: int
    score_names: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """Read the columns of a file."""
        self.path = path

    @abstractmethod
    def rows(self, *, with_values: bool) -> Iterator[FeatureRows]:
        """Yield all rows in blocks, in the order of the file.

        Raises:
            InputError: the content is not what the columns promise.
        """

    def wrong(self, expected: str, found: object, hint: str = "correct it and import it again") -> InputError:
        """Return the error of this file."""
        return InputError(f"{self.path}: expected {expected}, got {' '.join(str(found).split())[:300]}; {hint}")


def open_feature_file(path: Path) -> FeatureFile:
    """Open a file by its suffix.

    Raises:
        InputError: there is no such file, it has another format, or columns are missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a file of features, found none; check the path")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: expected a file named like one of {', '.join(SUFFIXES)}; convert or rename it")
    kind = _NpzFile if suffix == ".npz" else _CsvFile if suffix == ".csv" else _ParquetFile
    return kind(path)


class _Table(FeatureFile):
    """Columns ``subject`` and ``frame``, and either lists of numbers or a column per number."""

    def _check_names(self, names: Sequence[str]) -> None:
        if twice := [name for name, count in Counter(name.strip() for name in names).items() if count > 1]:
            raise self.wrong("columns with different names", f"several named {twice[0]!r}", "rename or remove them")

    def _choose_columns(self, schema: pa.Schema) -> None:
        names = {name.strip(): name for name in schema.names}
        if missing := [name for name in _KEYS if name not in names]:
            raise self.wrong(
                "the columns subject and frame, and columns of numbers",
                f"no {' and no '.join(missing)} among {', '.join(map(repr, schema.names[:8]))}",
            )
        self._keys = [names[name] for name in _KEYS]
        self._has_lists = _EMBEDDING in names and _is_list(schema.field(names[_EMBEDDING]).type)
        rest = [name for name in schema.names if name not in self._keys]
        if index := [name for name in rest if not name.strip() or name.startswith(_INDEX)]:
            place = schema.names.index(index[0]) + 1
            raise self.wrong(
                "a name for every column",
                f"{repr(index[0]) if index[0].strip() else 'none'} for column {place}",
                "remove it; pandas writes numbers of rows without index=False",
            )
        if self._has_lists:
            self._values = [names[name] for name in (_EMBEDDING, _SCORES) if name in names]
            others = [name for name in rest if name not in self._values]
            wrong = [name for name in self._values if not _is_list(schema.field(name).type)] or others
        else:
            scores = [name for name in rest if name.strip().startswith(_SCORE)]
            self._values = [*(name for name in rest if name not in scores), *scores]
            wrong = [name for name in self._values if not _is_number(schema.field(name).type)]
            self.score_names = tuple(name.strip().removeprefix(_SCORE) for name in scores)
            self.embedding_size = len(rest) - len(scores)
        if wrong:
            what = "only the columns subject, frame, embedding and scores" if self._has_lists else "columns of numbers"
            raise self.wrong(what, f"{wrong[0]!r} ({schema.field(wrong[0]).type})", "remove this column")
        if not self._has_lists and not self.embedding_size:
            raise self.wrong("columns of numbers besides subject and frame", "none")

    def _to_rows(self, batch: pa.RecordBatch, *, with_values: bool) -> FeatureRows:
        subject, frame = (batch.column(name) for name in self._keys)
        try:
            subject, frame = subject.cast(pa.string()), frame.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise self.wrong("names of subjects and whole numbers of frames", error) from error
        if subject.null_count or frame.null_count:
            raise self.wrong("a subject and a frame in every row", "an empty one")
        columns = [batch.column(name) for name in self._values] if with_values else []
        if self._has_lists:
            parts = [
                self._to_vectors(column, size)
                for column, size in zip(columns, (self.embedding_size, len(self.score_names)), strict=False)
            ]
        else:
            parts = [np.asarray(pc.fill_null(column.cast(pa.float32()), np.nan))[:, None] for column in columns]
        values = np.concatenate(parts, axis=1) if parts else np.empty((len(frame), 0), np.float32)
        return FeatureRows(subject, frame.to_numpy(), values)

    def _to_vectors(self, column: pa.Array, size: int) -> np.ndarray:
        lengths = pc.fill_null(pc.list_value_length(column), size)
        if wrong := [one for one in pc.unique(lengths).to_pylist() if one != size]:
            raise self.wrong(f"lists of {size:,} numbers, as in the first row", f"one of {wrong[0]:,}")
        found = np.full((len(column), size), np.nan, np.float32)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        flat = pc.fill_null(column.drop_null().flatten().cast(pa.float32()), np.nan)
        found[valid] = flat.to_numpy(zero_copy_only=False).reshape(-1, size)
        return found


class _ParquetFile(_Table):
    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        super().__init__(path)
        with self._reading():
            self._file = pq.ParquetFile(path, memory_map=True)
            self._check_names(self._file.schema_arrow.names)
            self._choose_columns(self._file.schema_arrow)
            if self._has_lists:
                first = next(self._file.iter_batches(1, columns=self._values), None)
                sizes = [len(column[0].as_py() or ()) for column in first.columns] if first and len(first) else [0]
                if not sizes[0]:
                    raise self.wrong("a list of numbers in the first row", "none")
                self.embedding_size = sizes[0]
                self.score_names = tuple(map(str, range(sizes[1]))) if len(sizes) > 1 else ()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise self.wrong("a Parquet file", error) from error

    def rows(self, *, with_values: bool) -> Iterator[FeatureRows]:
        """Yield the rows of a few row groups at a time."""
        columns = [*self._keys, *(self._values if with_values else [])]
        with self._reading():
            for batch in self._file.iter_batches(_BLOCK_ROWS, columns=columns):
                yield self._to_rows(batch, with_values=with_values)


class _CsvFile(_Table):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._opened({}) as reader:
            schema = reader.schema
        self._check_names(schema.names)
        # Types are inferred from the first block alone, where numbers may look like whole numbers or be missing.
        is_text = {name for name in schema.names if pa.types.is_string(schema.field(name).type)}
        types = {name: pa.string() if name in is_text else pa.float32() for name in schema.names}
        types |= {name: pa.string() for name in schema.names if name.strip() == "subject"}
        types |= {name: pa.int64() for name in schema.names if name.strip() == "frame"}
        self._types = types
        self._choose_columns(pa.schema(types))

    @contextlib.contextmanager
    def _opened(self, types: dict[str, pa.DataType], columns: Sequence[str] = ()) -> Iterator[pa.RecordBatchReader]:
        from pyarrow import csv

        convert = csv.ConvertOptions(column_types=types, include_columns=list(columns))
        try:
            with csv.open_csv(
                self.path, read_options=csv.ReadOptions(block_size=_CSV_BLOCK_BYTES), convert_options=convert
            ) as reader:
                yield reader
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise self.wrong("a CSV file in UTF-8 with a header and numbers", error) from error

    def rows(self, *, with_values: bool) -> Iterator[FeatureRows]:
        """Yield the rows of 8 MB of text at a time."""
        columns = [*self._keys, *(self._values if with_values else [])]
        with self._opened({name: self._types[name] for name in columns}, columns) as reader:
            for batch in reader:
                yield self._to_rows(batch, with_values=with_values)


class _NpzFile(FeatureFile):
    """Arrays ``subject`` [n], ``frame`` [n], ``embedding`` [n, D] and, as an option, ``scores`` [n, C]."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._shapes: dict[str, tuple[int, ...]] = {}
        with self._opened() as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            for name in (*_KEYS, _EMBEDDING, *([_SCORES] if _SCORES in names else [])):
                if name not in names:
                    found = ", ".join(sorted(names)[:8])
                    raise self.wrong("the arrays subject, frame and embedding, and scores if there are some", found)
                with archive.open(f"{name}.npy") as file:
                    self._shapes[name], _ = self._read_header(file, name)
        if len({shape[0] for shape in self._shapes.values()}) > 1:
            raise self.wrong("arrays with one row per frame", self._shapes)
        if not self._shapes[_EMBEDDING][1]:
            raise self.wrong("an array embedding with a column per number", self._shapes[_EMBEDDING])
        self.embedding_size = self._shapes[_EMBEDDING][1]
        self.score_names = tuple(map(str, range(self._shapes[_SCORES][1]))) if _SCORES in self._shapes else ()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise self.wrong("a file that numpy.savez wrote", error) from error

    def _read_header(self, file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(file)
        except ValueError as error:
            raise self.wrong(f"an array {name}", error) from error
        kinds = {"subject": "U", "frame": "iu"}.get(name, "fiu")
        dimensions = 1 if name in _KEYS else 2
        if dtype.kind not in kinds or len(shape) != dimensions or (is_fortran and dimensions == 2):
            found = f"{dtype} {shape}{' in Fortran order' * is_fortran}"
            what = {"U": "text", "iu": "whole numbers", "fiu": "numbers, a row per frame in C order"}[kinds]
            raise self.wrong(f"an array {name} of {what}", found)
        return shape, dtype

    def rows(self, *, with_values: bool) -> Iterator[FeatureRows]:
        """Yield a few thousand rows at a time, also of compressed archives."""
        names = [name for name in self._shapes if with_values or name in _KEYS]
        with self._opened() as archive, contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in names}
            dtypes = {name: self._read_header(file, name)[1] for name, file in files.items()}
            for first in range(0, self._shapes["frame"][0], _BLOCK_ROWS):
                count = min(_BLOCK_ROWS, self._shapes["frame"][0] - first)
                block = {name: self._read(files[name], name, dtypes[name], count) for name in names}
                values = [block[name].astype(np.float32) for name in names if name not in _KEYS]
                yield FeatureRows(
                    pa.array(block["subject"].tolist(), pa.string()),
                    block["frame"].astype(np.int64),
                    np.concatenate(values, axis=1) if values else np.empty((count, 0), np.float32),
                )

    def _read(self, file: IO[bytes], name: str, dtype: np.dtype, count: int) -> np.ndarray:
        shape = (count, *self._shapes[name][1:])
        size = int(np.prod(shape)) * dtype.itemsize
        data = file.read(size)
        if len(data) != size:
            raise self.wrong(f"{self._shapes[name]} values of {name}", "an array that ends before")
        return np.frombuffer(data, dtype).reshape(shape)


def _is_list(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and _is_number(kind.value_type)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))
