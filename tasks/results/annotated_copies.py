"""Annotated copies of videos in a folder of predictions, and the record of what they were made from."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from data_contracts.details.records import Record
from data_contracts.errors import StoreError
from data_contracts.files.inputs import NO_FILE, FileState, file_state
from data_contracts.files.locations import location
from data_contracts.store.manifest import from_sealed_json, to_sealed_json
from data_contracts.store.store import Store
from data_contracts.vocabulary import ANNOTATED_SUFFIX

# In the folder of predictions: hash of the inputs of each copy, and the state of its file.
ANNOTATED_RECORD = ".affwild2_annotated.json"


@dataclass(frozen=True, kw_only=True)
class AnnotatedCopy(Record):
    """Hash of everything that a copy was made from, and the state of its file when it was written."""

    made_from: str
    file: FileState | None


def annotated_file(video: str) -> str:
    """Return the name of the annotated copy of a video."""
    return f"{video}{ANNOTATED_SUFFIX}"


def read_annotated(target: Store) -> dict[str, AnnotatedCopy]:
    """Read the record of each annotated copy in a folder, by video; empty if there is none."""
    values = from_sealed_json(target.files.read_many([ANNOTATED_RECORD])[0]) or {}
    return {video: AnnotatedCopy.from_json(one) for video, one in values.items()}


def write_annotated(target: Store, record: Mapping[str, AnnotatedCopy]) -> None:
    """Write the records of a folder, or remove them with the last one."""
    if record:
        target.write_alone(ANNOTATED_RECORD, to_sealed_json({video: one.to_json() for video, one in record.items()}))
    else:
        target.remove(ANNOTATED_RECORD)


def add_annotated(target: Store, video: str, made_from: str) -> None:
    """Record a copy that a worker has written.

    Raises:
        StoreError: the file is not there, because the worker writes to another disk.
    """
    state = file_state(location(target.locate(annotated_file(video))))
    if state == NO_FILE:
        raise StoreError(
            f"{target.locate(annotated_file(video))}: expected the file that a worker wrote, found none; choose "
            "an --out that this machine and the workers share"
        )
    write_annotated(target, read_annotated(target) | {video: AnnotatedCopy(made_from=made_from, file=state)})


def drop_annotated(target: Store, videos: Collection[str]) -> None:
    """Remove the records of some videos."""
    record = read_annotated(target)
    kept = {video: one for video, one in record.items() if video not in videos}
    if len(kept) < len(record):
        write_annotated(target, kept)
