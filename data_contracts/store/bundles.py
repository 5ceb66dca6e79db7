"""Bundles: results that consist of a few files in one folder (heads, post-processings, submissions).

The manifest, written last, makes the files a bundle. Results in tables are units (``store``).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from data_contracts.details.records import Details, JsonObject
from data_contracts.store.manifest import from_sealed_json, to_sealed_json
from data_contracts.store.store import Store

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A complete folder: its fingerprint, the digests of its files, and details."""

    folder: str
    fingerprint: str
    files: dict[str, str] = field(default_factory=dict)
    details: JsonObject = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name, which identifies the bundle within its kind."""
        return self.folder.rsplit("/", 1)[-1]


def manifest_path(folder: str) -> str:
    """Return the path of the manifest of the bundle in a folder."""
    return f"{folder}/{MANIFEST}"


def write_bundle(store: Store, folder: str, files: dict[str, bytes], *, fingerprint: str, details: Details) -> Bundle:
    """Write the files, then the manifest that makes them a bundle."""
    for name, data in files.items():
        store.write_bytes(f"{folder}/{name}", data)
    digests = {name: _digest(data) for name, data in sorted(files.items())}
    bundle = Bundle(folder, fingerprint, digests, details.to_json())
    write_manifest(store, bundle)
    return bundle


def write_manifest(store: Store, bundle: Bundle) -> None:
    """Write the manifest of a bundle, or replace it."""
    store.write_bytes(manifest_path(bundle.folder), to_sealed_json(asdict(bundle)))


def read_manifest(store: Store, folder: str) -> Bundle | None:
    """Return the bundle that a folder's manifest describes, without checking its files; None without a manifest."""
    try:
        found = from_sealed_json(store.read_bytes(manifest_path(folder)))
        return None if found is None else Bundle(folder, found["fingerprint"], found["files"], found["details"])
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return None


def written_at(store: Store, bundle: Bundle) -> float:
    """Return when a bundle's manifest was written, in seconds since 1970."""
    return store.written_at(manifest_path(bundle.folder))


def find_bundle(store: Store, folder: str) -> Bundle | None:
    """Return the bundle in a folder; None if there is none, or if a file is missing or changed."""
    bundle = read_manifest(store, folder)
    return bundle if bundle and next(wrong_files(store, bundle), None) is None else None


def wrong_files(store: Store, bundle: Bundle) -> Iterator[str]:
    """Yield the names of the files of a bundle that are missing or were changed since it was written."""
    for name, digest in bundle.files.items():
        try:
            is_right = _digest(read_file(store, bundle, name)) == digest
        except FileNotFoundError:
            is_right = False
        if not is_right:
            yield name


def list_bundles(store: Store, kind: str) -> list[Bundle]:
    """Return all complete bundles of a kind (``heads``, ``postprocessing``, ``submissions``), by name."""
    found = (find_bundle(store, f"{kind}/{name}") for name in store.list_folder(kind))
    return [bundle for bundle in found if bundle]


def damaged_bundles(store: Store, kind: str, complete: Sequence[Bundle]) -> list[str]:
    """Return the names of bundles that were written but are not ``complete``: with missing or changed files."""
    names = {bundle.name for bundle in complete}
    others = (name for name in store.list_folder(kind) if name not in names)
    return [name for name in others if store.exists(manifest_path(f"{kind}/{name}"))]


def match_bundles(bundles: Sequence[Bundle], name: str) -> list[Bundle]:
    """Return the bundle with this name, else all whose names start with it."""
    return [b for b in bundles if b.name == name] or [b for b in bundles if name and b.name.startswith(name)]


def read_file(store: Store, bundle: Bundle, name: str) -> bytes:
    """Return the bytes of one file of a bundle."""
    return store.read_bytes(f"{bundle.folder}/{name}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
