"""Folders in which videos arrive: their videos, and which files have settled (are no longer written to).

``flows.rescore`` decides which videos are scored.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.errors import InputError
from data_contracts.files.inputs import file_state, is_file_or_broken_link, reading_inputs, refresh_listings
from data_contracts.files.locations import Location, is_remote
from data_contracts.store.manifest import from_sealed_json, to_sealed_json
from data_contracts.store.store import Store
from data_contracts.vocabulary import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from upath import UPath

SEEN_FOLDER = "_arriving"
# A file beyond this number is settled only when its own time is old enough.
_MAX_REMEMBERED = 10_000


@dataclass(frozen=True)
class VideoListing:
    """Videos below some folders.

    Attributes:
        videos: stem -> file.
        twins: stem -> files that share this stem. They are not in ``videos``.
        unreadable: one line per folder that could not be listed, with the cause.
    """

    videos: dict[str, Location] = field(default_factory=dict)
    twins: dict[str, tuple[Location, ...]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def list_videos(places: Sequence[Location], *, leave_out: Collection[str] = ()) -> VideoListing:
    """List video files: files in ``places``, and files in the folders of ``places`` and their subfolders.

    Hidden files and folders, and the folders in ``leave_out``, are skipped. A broken link counts as a video; opening it
    raises the error. A folder may be empty; on S3, a prefix without files counts as an empty folder.

    Raises:
        InputError: a path does not exist, is a folder that cannot be listed, or is a file that is no video; or S3 does
            not answer.
    """
    found: dict[str, dict[str, Location]] = {}
    unreadable: list[str] = []
    for place in places:
        with reading_inputs(place):
            refresh_listings(place)
            for file in _videos_at(place, leave_out, unreadable):
                found.setdefault(file.stem, {})[_identity(file)] = file
    alone = {stem: next(iter(files.values())) for stem, files in found.items() if len(files) == 1}
    twins = {stem: tuple(sorted(files.values(), key=str)) for stem, files in found.items() if len(files) > 1}
    return VideoListing(dict(sorted(alone.items())), dict(sorted(twins.items())), unreadable)


def _identity(file: Location) -> str:
    return str(file) if is_remote(file) else os.path.realpath(str(file))


def _videos_at(place: Location, leave_out: Collection[str], unreadable: list[str]) -> Iterator[Location]:
    if isinstance(place, Path) and place.is_dir():
        try:
            with os.scandir(place):
                pass
        except OSError as error:
            raise InputError(f"{place}: expected a folder that can be read, got: {error.strerror}") from error
        yield from _videos_below(place, {os.path.realpath(path) for path in leave_out}, unreadable)
    elif isinstance(place, Path) and not place.exists():
        raise InputError(f"{place}: expected a folder of videos or a video file, found nothing there")
    elif place.suffix.lower() in VIDEO_SUFFIXES and place.is_file():
        yield place
    elif not isinstance(place, Path):
        yield from _videos_under(place, leave_out)
    else:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"{place}: expected a folder of videos or a video file ({kinds}), got another file")


def _videos_under(prefix: "UPath", leave_out: Collection[str]) -> Iterator[Location]:
    """Yield the videos below a prefix on S3."""
    root = prefix.path.rstrip("/") + "/"
    skipped = tuple(place.removeprefix("s3://").rstrip("/") + "/" for place in leave_out)
    for name in prefix.fs.find(prefix.path):
        relative = name.removeprefix(root)
        is_hidden = any(part.startswith(".") for part in relative.split("/"))
        if not (is_hidden or name.startswith(skipped)) and Path(name).suffix.lower() in VIDEO_SUFFIXES:
            yield prefix / relative


def _videos_below(folder: Path, skipped: Collection[str], unreadable: list[str]) -> Iterator[Location]:
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
            if path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".") and is_file_or_broken_link(path):
                yield path


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
        kept = {path: state for path, state in seen.items() if Path(path).stem != stem}
        if kept != seen:
            gone += len(seen) - len(kept)
            _write_seen(store, notes_path, kept)
    return gone


def names_seen(store: Store) -> set[str]:
    """Return the stems of all files that are remembered."""
    notes = [_read_seen(store, f"{SEEN_FOLDER}/{name}") for name in store.list_folder(SEEN_FOLDER)]
    return {Path(path).stem for seen in notes for path in seen}
