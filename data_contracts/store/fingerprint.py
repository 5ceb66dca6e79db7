"""Stable fingerprints of everything that changes bytes: inputs, parameters, weights, code versions."""

import dataclasses
import hashlib
import json
from typing import Any

from data_contracts.files.locations import Location

VARIANT_DIGITS = 8
_BLOCK_BYTES = 1 << 20


def fingerprint(**parts: Any) -> str:
    """sha256 (64 hex digits) of the canonical JSON of ``parts``.

    Dataclasses count as their fields; tuples as lists; the order of keys does not matter.

    Raises:
        TypeError: a part is of a type that has no canonical JSON (an array, a set, a path).
    """
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, and no NaN; equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_as_plain)


def _as_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"no canonical JSON for {type(value).__name__}: {value!r}")


def digest_of_file(path: Location) -> str:
    """sha256 (64 hex digits) of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def variant_name(name: str, full_fingerprint: str) -> str:
    """A readable name plus eight digits of its fingerprint: two settings never share a folder."""
    return f"{name}-{full_fingerprint[:VARIANT_DIGITS]}"
