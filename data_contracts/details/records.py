"""Records: JSON objects with known keys, which dataclasses describe. Details are the records in manifests.

A field with a default may be missing in manifests of earlier versions, which then count as having the default.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Protocol, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from data_contracts.errors import InputError
from data_contracts.files.inputs import FileState

JsonObject = dict[str, Any]
_LEFT_OUT = "left out"
_Value = TypeVar("_Value")
# A field that is left out of the JSON while it has its default.
LeftOut = Annotated[_Value, _LEFT_OUT]


class HasDetails(Protocol):
    """A manifest of a unit or a bundle."""

    @property
    def details(self) -> JsonObject:
        """The facts as JSON values."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object with known keys."""

    def to_json(self) -> JsonObject:
        """Return the JSON values."""
        return {
            one.name: _to_json(value)
            for one, _, is_left_out in _fields_of(type(self))  # type: ignore[arg-type]  # mypy looks at __hash__ of instances
            if (value := getattr(self, one.name)) != one.default or not is_left_out
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the record that ``to_json`` of this or an earlier version wrote. Unknown keys are ignored.

        Raises:
            InputError: a key without a default is missing.
        """
        known = {}
        for one, read, _ in _fields_of(cls):  # type: ignore[arg-type]
            value = values.get(one.name, MISSING)
            if value is not MISSING:
                known[one.name] = read(value) if read and value is not None else value
            elif one.default is MISSING:
                raise InputError(
                    f"manifest: expected {one.name} among its details, got {', '.join(sorted(values)) or 'none'}; "
                    "it was written by another version of affwild2: use that one, or a new store"
                )
        return cls(**known)


@functools.cache
def _fields_of(record: type[Record]) -> "list[tuple[Field[Any], Callable[[Any], Any] | None, bool]]":
    """Return each field, the function that reads its JSON value (None: identity), and whether it may be left out."""
    hints = get_type_hints(record, include_extras=True)
    return [(one, _reader(hints[one.name]), _LEFT_OUT in get_args(hints[one.name])) for one in fields(record)]


def _reader(hint: Any) -> Callable[[Any], Any] | None:
    if get_origin(hint) is Annotated:
        return _reader(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
        return _reader(hint)
    if get_origin(hint) is tuple:
        read = _reader(get_args(hint)[0])
        return (lambda values: tuple(one if one is None else read(one) for one in values)) if read else tuple
    if hint is FileState:
        return lambda values: FileState(*values)
    return hint.from_json if isinstance(hint, type) and issubclass(hint, Record) else None


def _to_json(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_to_json(one) for one in value]
    return value


@dataclass(frozen=True, kw_only=True)
class Details(Record):
    """Facts that every manifest may hold.

    Attributes:
        problems: a line for every part of the input that was lost while the rest of it was used.
        has_unread_files: a file could not be opened, although it was listed. The next run computes the unit again.
    """

    problems: LeftOut[tuple[str, ...]] = ()
    has_unread_files: LeftOut[bool] = False

    @classmethod
    def of(cls, manifest: HasDetails) -> Self:
        """Return the facts in the manifest of a unit or a bundle.

        Raises:
            InputError: see ``from_json``.
        """
        return cls.from_json(manifest.details)

    def with_problems(self, problems: Sequence[str]) -> Self:
        """Return the same facts with these problems, if there are any."""
        return replace(self, problems=tuple(problems)) if problems else self


def problems_of(manifest: HasDetails) -> Sequence[str]:
    """Return a line for every part of a unit's input that was lost."""
    lines: Sequence[str] = manifest.details.get("problems", ())
    return lines


def has_unread_files(manifest: HasDetails) -> bool:
    """Return whether a file of a unit's input could not be opened."""
    return bool(manifest.details.get("has_unread_files"))
