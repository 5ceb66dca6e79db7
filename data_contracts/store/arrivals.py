"""Folders in which videos arrive: which files have settled (are no longer written to).

``flows.rescore`` decides which videos are scored.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.files.inputs import file_state
from data_contracts.files.locations import Location, is_remote
from data_contracts.store.manifest import from_sealed_json, to_sealed_json
from data_contracts.store.store import Store
from data_contracts.vocabulary import normalize_name

SEEN_FOLDER = "_arriving"
# A file beyond this number is settled only when its own time is old enough.
_MAX_REMEMBERED = 10_000


@dataclass(frozen=True)
class Arrivals:
    """Videos whose files are no longer written to, and videos whose files may still be.

    Attributes:
        settled: stem -> file.
        waiting: stem -> (file, reason).
    """

    settled: dict[str, Location]
    waiting: dict[str, tuple[Location, str]]


def split_settled(
    store: Store, videos: Mapping[str, Location], *, roots: Sequence[Location], settle_seconds: float, now: float
) -> Arrivals:
    """Separate files that have settled from files that may still be written to.

    A file has settled if it was last changed at least ``settle_seconds`` ago by its own time, or if it has been seen
    unchanged for as long. The second rule is for files with a time after ``now`` (seconds since 1970), because the
    clocks of two machines differ. Files that have not settled are remembered in the store until the next call for the
    same roots. A file that is gone counts as settled; opening it raises the error. So does a file on S3, because it
    appears only when it is complete.
    """
    notes_path = _seen_path(roots)
    before = _read_seen(store, notes_path)
    seen: dict[str, list[float]] = {}
    waiting: dict[str, tuple[Location, str]] = {}
    for stem, path in videos.items():
        if is_remote(path):
            continue
        size, mtime_ns = file_state(path)
        age_seconds = now - mtime_ns / 1e9
        if size < 0 or age_seconds >= settle_seconds:
            continue
        *state, first_seen = before.get(str(path), [-1, -1, now])
        if state != [size, mtime_ns] or first_seen > now:
            first_seen = now
        seen[str(path)] = [size, mtime_ns, first_seen]
        if now - first_seen < settle_seconds or first_seen == now:
            waiting[stem] = path, _describe_change(size, age_seconds)
    if seen != before:
        _write_seen(store, notes_path, seen)
    return Arrivals({stem: path for stem, path in videos.items() if stem not in waiting}, waiting)


def _describe_change(size: int, age_seconds: float) -> str:
    ago = f"changed {age_seconds:.0f} s ago" if age_seconds >= 0 else f"changed {-age_seconds:.0f} s in the future"
    return f"{size:,} bytes, {ago}"


def _seen_path(roots: Sequence[Location]) -> str:
    name = "\n".join(sorted(ascii(path if is_remote(path) else os.path.abspath(str(path))) for path in roots))
    return f"{SEEN_FOLDER}/{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def _digest(path: str) -> str:
    return hashlib.sha256(ascii(path).encode()).hexdigest()[:16]


def _read_seen(store: Store, notes_path: str) -> dict[str, list[float]]:
    return dict((from_sealed_json(store.files.read_many([notes_path])[0]) or {}).get("seen", {}))


def _write_seen(store: Store, notes_path: str, seen: Mapping[str, list[float]]) -> None:
    if seen:
        store.write_bytes(notes_path, to_sealed_json({"seen": dict(list(seen.items())[-_MAX_REMEMBERED:])}))
    else:
        store.remove(notes_path)


def forget_seen(store: Store, stem: str) -> int:
    """Forget the files with this stem that are remembered; return their number."""
    gone = 0
    for name in store.list_folder(SEEN_FOLDER):
        notes_path = f"{SEEN_FOLDER}/{name}"
        seen = _read_seen(store, notes_path)
        kept = {path: state for path, state in seen.items() if normalize_name(Path(path).stem) != stem}
        if kept != seen:
            gone += len(seen) - len(kept)
            _write_seen(store, notes_path, kept)
    return gone


def names_seen(store: Store) -> set[str]:
    """Return the stems of all files that are remembered."""
    notes = [_read_seen(store, f"{SEEN_FOLDER}/{name}") for name in store.list_folder(SEEN_FOLDER)]
    return {normalize_name(Path(path).stem) for seen in notes for path in seen}


def count_known_skipped(store: Store, roots: Sequence[Location], paths: Sequence[str]) -> int:
    """Return how many of these paths an earlier run remembered as skipped."""
    known = set(_read_skipped(store, _skipped_path(roots)))
    return sum(_digest(path) in known for path in paths)


def remember_skipped(store: Store, roots: Sequence[Location], paths: Sequence[str]) -> None:
    """Remember the skipped files of this run, in place of those of the last run. Only digests of paths are stored."""
    notes_path = _skipped_path(roots)
    skipped = sorted(map(_digest, paths))
    if skipped == _read_skipped(store, notes_path):
        return
    if skipped:
        store.write_bytes(notes_path, to_sealed_json({"skipped": skipped}))
    else:
        store.remove(notes_path)


def _skipped_path(roots: Sequence[Location]) -> str:
    return _seen_path(roots).removesuffix(".json") + "-skipped.json"


def _read_skipped(store: Store, notes_path: str) -> list[str]:
    return list((from_sealed_json(store.files.read_many([notes_path])[0]) or {}).get("skipped", []))
