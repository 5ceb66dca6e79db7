"""Keys, manifests and failure notes of units: where a unit is stored, and what determines its bytes."""

import functools
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from data_contracts.details.records import JsonObject

# Characters with a meaning in paths, Hive partitions or URLs. Letters of all scripts are kept: escaped, they would
# exceed the maximum length of a file name. Hive readers ignore names with a leading dot or underscore, and "." and ".."
# would lead out of the folder.
_SPECIAL = re.compile(r"""[^\w\-.+@()\[\],~]|^[._]""")
_PREFIX = "_manifest-"
_FAILURE_PREFIX = "_failed-"
_SUFFIX = ".json"
_SEAL = "seal"
_MAX_INT64 = 2**63 - 1
_MAX_EXACT_FLOAT = 2**53


@dataclass(frozen=True, order=True)
class UnitKey:
    """Where a unit is stored: the dataset, its Hive partitions in order, and the part within them.

    Names may contain any character. They are percent-encoded in paths; Hive readers decode them.
    """

    dataset: str
    partitions: tuple[tuple[str, str], ...] = ()
    part: str = "00000"

    @property
    def folder(self) -> str:
        """The unit's folder relative to the store, without a trailing slash."""
        return "/".join([self.dataset, *(f"{key}={encode_name(value)}" for key, value in self.partitions)])

    @property
    def manifest_path(self) -> str:
        """The manifest's path relative to the store."""
        return f"{self.folder}/{_PREFIX}{encode_name(self.part)}{_SUFFIX}"

    @property
    def failure_path(self) -> str:
        """Path of the failure note, relative to the store; it exists if the unit's last try failed."""
        return f"{self.folder}/{_FAILURE_PREFIX}{encode_name(self.part)}{_SUFFIX}"

    def part_path(self, fingerprint: str) -> str:
        """Return the path of the data file relative to the store; two fingerprints never share a name."""
        return f"{self.folder}/part-{encode_name(self.part)}-{fingerprint[:8]}.parquet"

    def value(self, partition: str) -> str:
        """Return the value of a partition key.

        Raises:
            KeyError: the unit has no such partition.
        """
        return dict(self.partitions)[partition]

    @property
    def item(self) -> str:
        """The unit's video or subject; the dataset's name if it has neither."""
        values = dict(self.partitions)
        return values.get("video") or values.get("subject") or self.dataset

    def __str__(self) -> str:
        """Return a readable name, for example ``video1 part 00002``."""
        names = [value for key, value in self.partitions if key not in ("source", "backbone", "head")]
        return " ".join(names or [self.dataset]) + ("" if self.part == "00000" else f" part {self.part}")


# Every stage of a run lists the same manifests.
@functools.lru_cache(maxsize=1 << 16)
def key_of_manifest_path(path: str) -> UnitKey | None:
    """Return the unit whose manifest or failure note has this path relative to the store; None for other files."""
    *folders, name = path.split("/")
    prefix = next((p for p in (_PREFIX, _FAILURE_PREFIX) if name.startswith(p)), None)
    if prefix is None or not name.endswith(_SUFFIX) or not folders:
        return None
    if any("=" not in folder for folder in folders[1:]):
        return None
    key = key_of_folder("/".join(folders))
    return UnitKey(key.dataset, key.partitions, _decode(name[len(prefix) : -len(_SUFFIX)]))


@functools.lru_cache(maxsize=1024)
def key_of_folder(folder: str) -> UnitKey:
    """Return the dataset and partitions of a unit's or variant's folder."""
    dataset, *partitions = folder.split("/")
    pairs = (partition.split("=", 1) for partition in partitions)
    return UnitKey(dataset, tuple((key, _decode(value)) for key, value in pairs))


def is_manifest_path(path: str) -> bool:
    """Return whether a file is named like a manifest."""
    return path.rsplit("/", 1)[-1].startswith(_PREFIX) and path.endswith(_SUFFIX)


def is_failure_path(path: str) -> bool:
    """Return whether a file is named like a failure note."""
    return path.rsplit("/", 1)[-1].startswith(_FAILURE_PREFIX)


def encode_name(name: str) -> str:
    """Percent-encode a name for use in paths."""

    def encode(found: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))

    return _SPECIAL.sub(encode, name)


def _decode(name: str) -> str:
    return unquote(name, errors="surrogateescape") if "%" in name else name


@dataclass(frozen=True)
class Manifest:
    """The file that makes a unit exist. It is written after the data file, into the same folder.

    Attributes:
        fingerprint: hash of everything that determines the unit's bytes.
        identity: what later stages depend on: the fingerprint, or for a video the digest of its bytes.
        part: name of the data file.
        part_bytes: size of the data file.
        rows: number of rows in the data file.
        counts: number of rows per status.
        seconds: wall time that the unit took.
        details: facts that the plans of later stages need (``data_contracts.details``).
    """

    fingerprint: str
    identity: str
    part: str
    part_bytes: int
    rows: int
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    details: JsonObject = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the manifest as sealed JSON."""
        return to_sealed_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest | None":
        """Return the manifest; None if the bytes are not a manifest or were changed. The unit then does not exist."""
        values = from_sealed_json(data)
        try:
            manifest = None if values is None else cls(**values)
        except TypeError:
            return None
        return manifest if manifest and _has_valid_types(manifest) else None


class StoredUnit(NamedTuple):
    """A unit that exists: where it is stored, and its manifest."""

    key: UnitKey
    manifest: Manifest


def _has_valid_types(manifest: Manifest) -> bool:
    texts, numbers = (manifest.fingerprint, manifest.identity, manifest.part), (manifest.part_bytes, manifest.rows)
    seconds = manifest.seconds
    return (
        all(isinstance(text, str) and is_utf8(text) for text in texts)
        and all(type(number) is int and abs(number) <= _MAX_INT64 for number in numbers)
        and (isinstance(seconds, float) or (type(seconds) is int and abs(seconds) <= _MAX_EXACT_FLOAT))
        and isinstance(manifest.counts, dict)
        and isinstance(manifest.details, dict)
    )


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8; file names on disk may contain any bytes."""
    return text.isascii() or text.encode(errors="replace").decode() == text


@dataclass(frozen=True)
class Failure:
    """Why a unit's last try failed. The note is stored in the unit's folder.

    Attributes:
        tries: how many runs have tried this fingerprint and failed because of the unit's input. It is 0 for notes of
            earlier versions, which also counted faults of the machine.
        since: time of the first of the failed runs, counted or not, such as ``2026-11-28T03:00:00Z``.
        files: paths of the unit's input files.
    """

    fingerprint: str
    cause: str
    tries: int = 0
    since: str = ""
    files: tuple[str, ...] = ()

    def format_tries(self) -> str:
        """Return the number of tries and the time of the first one as text."""
        return f"failed {self.tries} times" + (f" since {self.since}" if self.since else "")

    def to_json(self) -> bytes:
        """Return the note as sealed JSON."""
        return to_sealed_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> "Failure | None":
        """Return the note; None if the bytes are not a note or were changed."""
        values = from_sealed_json(data)
        if values is None:
            return None
        if "since" not in values:
            values["tries"] = 0
        try:
            return cls(**values | {"files": tuple(values.get("files", ()))})
        except TypeError:
            return None


def to_sealed_json(values: JsonObject) -> bytes:
    """Encode values as UTF-8 JSON, one field per line, with a digest of all fields: edits by hand are detected."""
    return json.dumps(values | {_SEAL: _digest(values)}, indent=1, sort_keys=True).encode() + b"\n"


def from_sealed_json(data: bytes) -> JsonObject | None:
    """Return the values of sealed JSON; None if the bytes are not sealed JSON or do not match their digest."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    seal = values.pop(_SEAL, None)
    return values if seal == _digest(values) else None


def _digest(values: JsonObject) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
