"""JSON that says of itself whether it is as it was written: a manifest edited by hand must not be believed."""

import hashlib
import json
from typing import Any

_SEAL = "seal"


def to_sealed_json(values: dict[str, Any]) -> bytes:
    """UTF-8 JSON, one field a line, with a digest of all other fields."""
    return json.dumps(values | {_SEAL: _digest(values)}, indent=1, sort_keys=True).encode() + b"\n"


def from_sealed_json(data: bytes) -> dict[str, Any] | None:
    """The values, or None if the bytes are not such a JSON, or not as they were written."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    seal = values.pop(_SEAL, None)
    return values if seal == _digest(values) else None


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
