"""Failure notes of videos that were deleted: without the file, no later run would replace or remove them."""

import os
from collections.abc import Collection, Mapping, Sequence

from data_contracts.details.datasets import VideoDetails
from data_contracts.files.locations import Location, is_remote, location
from data_contracts.store.manifest import Failure, UnitKey
from data_contracts.store.store import Store
from data_contracts.vocabulary import video_of_subject
from tasks.extract.index_videos import details_of_videos


def remove_notes_of_deleted(store: Store, present: Collection[Location]) -> None:
    """Remove the failure notes of videos that do not exist any more, and of names that only one file has left.

    ``present``: videos that certainly exist. Notes in variants that this run has not listed are kept.
    """
    notes = store.failures("videos") | store.listed_failures()
    indexed = details_of_videos(store) if notes else {}
    exist = {str(place) for place in present}
    for key, note in notes.items():
        paths = _videos_of(key, note, indexed)
        left = sum(path in exist or location(path).exists() for path in paths)
        if left < min(len(paths), 2):
            store.remove(key.failure_path)


def _videos_of(key: UnitKey, note: Failure, indexed: Mapping[str, VideoDetails]) -> Sequence[str]:
    """Return the paths of the videos that a failed unit reads; empty if they are unknown."""
    stem = video_of_subject(key.item)
    if key.dataset != "videos" and stem in indexed:
        return [indexed[stem].path]
    if key.dataset in ("videos", "faces") and note.files:
        return note.files
    # Notes of earlier versions have no paths. Messages about a file begin with its path.
    path = note.cause.partition(": expected ")[0]
    return [path] if os.path.isabs(path) or is_remote(path) else []
