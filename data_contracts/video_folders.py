"""Folders into which videos arrive: what lies in them now, and which files have come to rest.

What is scored of them, and when, is the business of ``flows``.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.errors import InputError
from data_contracts.layout import VIDEO_SUFFIXES
from data_contracts.locations import file_state
from data_contracts.sealed_json import from_sealed_json, to_sealed_json
from data_contracts.store import Store

SEEN_FOLDER = "_arriving"
# A file that is not remembered waits until its own time is old enough.
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True)
class VideoListing:
    """Videos below some folders.

    Attributes:
        videos: stem -> file.
        twins: stem -> files that share it, of which none is in ``videos``.
        unreadable: folders that could not be listed, with the cause.
    """

    videos: dict[str, Path] = field(default_factory=dict)
    twins: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def list_videos(paths: Sequence[Path], *, leave_out: Collection[Path] = ()) -> VideoListing:
    """Video files, and those of all folders and their sub-folders, but for hidden ones and those in ``leave_out``.

    A folder may be empty.

    Raises:
        InputError: a path does not exist, is a folder that cannot be listed, or is a file that is no video.
    """
    found: dict[str, dict[str, Path]] = {}
    unreadable: list[str] = []
    skipped = {os.path.realpath(path) for path in leave_out}
    for path in paths:
        for file in _videos_at(path, skipped, unreadable):
            found.setdefault(file.stem, {})[os.path.realpath(file)] = file
    alone = {stem: next(iter(files.values())) for stem, files in found.items() if len(files) == 1}
    twins = {stem: tuple(sorted(files.values())) for stem, files in found.items() if len(files) > 1}
    return VideoListing(dict(sorted(alone.items())), dict(sorted(twins.items())), unreadable)


def _videos_at(path: Path, skipped: Collection[str], unreadable: list[str]) -> Iterator[Path]:
    if path.is_dir():
        try:
            with os.scandir(path):
                pass
        except OSError as error:
            raise InputError(f"{path}: expected a folder that can be read, got: {error.strerror}") from error
        yield from _videos_below(path, skipped, unreadable)
    elif not path.exists():
        raise InputError(f"{path}: expected a folder of videos or a video file, found nothing there")
    elif path.suffix.lower() not in VIDEO_SUFFIXES:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"{path}: expected a folder of videos or a video file ({kinds}), got another file")
    else:
        yield path


def _videos_below(folder: Path, skipped: Collection[str], unreadable: list[str]) -> Iterator[Path]:
    def note(error: OSError) -> None:
        unreadable.append(f"{error.filename}: {error.strerror}")

    for where, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(where, name)) not in skipped
        )
        for name in sorted(names):
            path = Path(where, name)
            if path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".") and path.is_file():
                yield path


@dataclass(frozen=True)
class Arrivals:
    """Videos (stem -> file) that have come to rest, and those that may still be written to, with what tells."""

    settled: dict[str, Path]
    waiting: dict[str, tuple[Path, str]]


def split_settled(
    store: Store, videos: Mapping[str, Path], *, roots: Sequence[Path], settle_seconds: float, now: float
) -> Arrivals:
    """Which files are at rest: last changed ``settle_seconds`` ago by their own time, or seen unchanged for as long.

    A file whose time lies ahead of ``now`` (s since 1970; clocks of two machines differ) can only show by the latter.
    What is too young to tell by its time is remembered in the store until the next call for the same roots. A file
    that is gone counts as settled: whoever opens it says so.
    """
    place = _seen_path(roots)
    before = _read_seen(store, place)
    seen: dict[str, list[float]] = {}
    waiting: dict[str, tuple[Path, str]] = {}
    for stem, path in videos.items():
        size, mtime_ns = file_state(path)
        age_seconds = now - mtime_ns / 1e9
        if size < 0 or age_seconds >= settle_seconds:
            continue
        *state, first_seen = before.get(str(path), [-1, -1, now])
        if state != [size, mtime_ns] or first_seen > now:
            first_seen = now
        seen[str(path)] = [size, mtime_ns, first_seen]
        if now - first_seen < settle_seconds or first_seen == now:
            waiting[stem] = path, _what_tells(size, age_seconds)
    if seen != before:
        _write_seen(store, place, seen)
    return Arrivals({stem: path for stem, path in videos.items() if stem not in waiting}, waiting)


def _what_tells(size: int, age_seconds: float) -> str:
    ago = f"changed {age_seconds:.0f} s ago" if age_seconds >= 0 else f"changed {-age_seconds:.0f} s in the future"
    return f"{size:,} bytes, {ago}"


def _seen_path(roots: Sequence[Path]) -> str:
    name = "\n".join(sorted(ascii(os.path.abspath(path)) for path in roots))
    return f"{SEEN_FOLDER}/{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def _read_seen(store: Store, place: str) -> dict[str, list[float]]:
    try:
        return dict((from_sealed_json(store.read_bytes(place)) or {}).get("seen", {}))
    except FileNotFoundError:
        return {}


def _write_seen(store: Store, place: str, seen: Mapping[str, list[float]]) -> None:
    if seen:
        store.write_bytes(place, to_sealed_json({"seen": dict(list(seen.items())[-_MOST_REMEMBERED:])}))
    else:
        store.remove(place)


def forget_seen(store: Store, stem: str) -> int:
    """Remove all that is remembered of files of that stem; how many there were."""
    gone = 0
    for name in store.list_folder(SEEN_FOLDER):
        place = f"{SEEN_FOLDER}/{name}"
        seen = _read_seen(store, place)
        kept = {path: state for path, state in seen.items() if Path(path).stem != stem}
        if kept != seen:
            gone += len(seen) - len(kept)
            _write_seen(store, place, kept)
    return gone
