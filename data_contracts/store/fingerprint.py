"""Stable fingerprints of everything that determines bytes: inputs, parameters, weights, code versions."""

import dataclasses
import hashlib
import json
from typing import Any

from data_contracts.files.locations import Location

VARIANT_DIGITS = 8
_VALUE_BEFORE = "value_before"
_BLOCK_BYTES = 1 << 20


def fingerprint(**parts: Any) -> str:
    """Return the sha256 (64 hex digits) of the canonical JSON of ``parts``.

    Dataclasses become their fields (see ``added_field``), tuples become lists. The order of keys does not matter.

    Raises:
        TypeError: a part has a type without canonical JSON (an array, a set, a path).
    """
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def added_field(default: Any, *, before: Any) -> Any:
    """A field added to a dataclass whose fingerprints name existing variants.

    ``before`` is the value that reproduces the behaviour from before the field existed. A field with this value is left
    out of the fingerprint, so that existing variants keep their names. ``default`` may be another value.
    """
    return dataclasses.field(default=default, metadata={_VALUE_BEFORE: before})


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no NaN; equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_as_plain)


def _as_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: part for field, part in fields if not _is_as_before(field, part)}
    raise TypeError(f"no canonical JSON for {type(value).__name__}: {value!r}")


def _is_as_before(field: "dataclasses.Field[Any]", value: Any) -> bool:
    # 1 == True == 1.0, but their JSON differs.
    before = field.metadata.get(_VALUE_BEFORE, dataclasses.MISSING)
    return type(value) is type(before) and bool(value == before)


def digest_of_file(path: Location) -> str:
    """Return the sha256 (64 hex digits) of a file, which is read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def variant_name(name: str, full_fingerprint: str) -> str:
    """Return a readable name with eight digits of the fingerprint, so that two settings never share a folder."""
    return f"{name}-{full_fingerprint[:VARIANT_DIGITS]}"
