"""Stable fingerprints of everything that determines bytes: inputs, parameters, weights, code versions."""

import dataclasses
import hashlib
import json
from typing import Any

from data_contracts.files.locations import Location

VARIANT_DIGITS = 8
_BLOCK_BYTES = 1 << 20


def fingerprint(**parts: Any) -> str:
    """Return the sha256 (64 hex digits) of the canonical JSON of ``parts``.

    Dataclasses become their fields, tuples become lists. The order of keys does not matter. A dataclass may have a
    method ``fingerprint_fields`` that returns other fields. Use it to leave out a field that was added later while it
    has the value that reproduces the behaviour from before: existing variants then keep their names.

    Raises:
        TypeError: a part has a type without canonical JSON (an array, a set, a path).
    """
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no NaN; equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_as_plain)


def _as_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own_fields = getattr(value, "fingerprint_fields", None)
        return own_fields() if own_fields else {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    raise TypeError(f"no canonical JSON for {type(value).__name__}: {value!r}")


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
