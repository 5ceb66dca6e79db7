"""Tables for readers: rows of units, names that are chosen among those that exist, and the libraries of tables."""

import contextlib
import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from data_contracts.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from data_contracts.store.store import Store

# pyarrow.Table, pandas.DataFrame or polars.DataFrame.
Format = Literal["arrow", "pandas", "polars"]
_NAMES_SHOWN = 12


def convert_table(table: "pa.Table", to: Format) -> Any:
    """Return a table as ``pyarrow.Table``, ``pandas.DataFrame`` or ``polars.DataFrame``.

    In pandas, integers and booleans have nullable types (``Int32``, ``boolean``), so that null stays null.

    Raises:
        InputError: unknown format.
        ModuleNotFoundError: pandas or Polars is not installed.
    """
    if to == "arrow":
        return table
    if to == "pandas":
        pandas = _import("pandas")
        return table.to_pandas(types_mapper=_nullable_types(pandas).get)
    if to == "polars":
        return _import("polars").from_arrow(table)
    raise InputError(f"to={to!r}: expected 'arrow', 'pandas' or 'polars'")


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f"{name} is not installed in this environment; install it (pip install {name}), or use to='arrow'",
            name=name,
        ) from None


def _nullable_types(pandas: Any) -> dict["pa.DataType", Any]:
    import pyarrow as pa

    return {
        pa.int8(): pandas.Int8Dtype(),
        pa.int16(): pandas.Int16Dtype(),
        pa.int32(): pandas.Int32Dtype(),
        pa.int64(): pandas.Int64Dtype(),
        pa.bool_(): pandas.BooleanDtype(),
    }


def read_rows(
    store: "Store", path: str, *, size_bytes: int | None = None, columns: Sequence[str] | None = None
) -> "pa.Table":
    """Return the rows of a Parquet file of a store or folder, with verified checksums; change nothing.

    ``size_bytes``: of a file that may be large and is read in parts; None: read it whole.

    Raises:
        InputError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        whole = contextlib.nullcontext(pa.BufferReader(store.read_bytes(path))) if size_bytes is None else None
        with (
            whole or store.files.opened(path, size_bytes or 0) as file,
            pq.ParquetFile(file, page_checksum_verification=True) as parquet,
        ):
            return parquet.read(columns=list(columns) if columns is not None else None)
    except (FileNotFoundError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
            raise
        cause = "found none" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())[:200]
        raise InputError(
            f"{store.locate(path)}: expected a complete Parquet file, {cause}; read again if a run is writing it, or "
            "run the command that wrote it again"
        ) from error


def with_column(table: "pa.Table", name: str, value: str) -> "pa.Table":
    """Return the table with a first column that has one value."""
    import pyarrow as pa

    return table.add_column(0, pa.field(name, pa.string(), nullable=False), pa.array([value] * len(table), pa.string()))


def choose_name(what: str, wanted: str | None, found: Collection[str], *, where: str) -> str:
    """Return the wanted one of some names, or the only one without a wish.

    A name may be given without its digits (``va-default`` for ``va-default-2f76ae44``), or by its beginning.

    Raises:
        InputError: none matches, or several do; the message lists them.
    """
    names = sorted(found)
    if wanted is None:
        matches = names
    else:
        matches = (
            [name for name in names if name == wanted]
            or [name for name in names if name.rsplit("-", 1)[0] == wanted]
            or [name for name in names if wanted and name.startswith(wanted)]
        )
    if len(matches) == 1:
        return matches[0]
    if wanted is None:
        problem = f"found {list_names(names)}; choose one with {what}=..." if names else f"found no {what}"
        raise InputError(f"{where}: expected one {what}, {problem}")
    problem = f"several match: {list_names(matches)}" if matches else f"found: {list_names(names)}"
    raise InputError(f"{where}: expected one {what} named {wanted!r}, {problem}")


def choose_names(what: str, wanted: str | Iterable[str] | None, found: Collection[str], *, where: str) -> list[str]:
    """Return the wanted names, in their order; all names, sorted, without a wish.

    Raises:
        InputError: a name does not exist; the message lists similar ones first.
    """
    if wanted is None:
        return sorted(found)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in found:
            similar = difflib.get_close_matches(name, sorted(found), n=3)
            others = [one for one in sorted(found) if one not in similar]
            raise InputError(
                f"{where}: expected a {what} with rows, got {name!r}; found: {list_names(similar + others)}"
            )
    return list(dict.fromkeys(names))


def list_names(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others, as text."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "") if names else "none"
