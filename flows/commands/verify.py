"""``affwild2 verify``: check a submission against the test list and the videos."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from data_contracts.challenge.layout import find_data, find_test_list
from data_contracts.challenge.submission_files import Fault
from data_contracts.challenge.submissions import check_submission, read_submission, video_named
from data_contracts.challenge.test_lists import TestList, read_test_list
from data_contracts.details.submissions import SubmissionDetails
from data_contracts.errors import InputError, counted, first_names
from data_contracts.files.inputs import reading_inputs, refresh_listings
from data_contracts.files.locations import Location, location
from data_contracts.store.bundles import MANIFEST, read_manifest, wrong_files
from data_contracts.store.input_accounts import InputsDetails
from data_contracts.store.store import Store
from data_contracts.video.counting import count_frames
from data_contracts.video.packets import index_video
from data_contracts.vocabulary import SIMULATED_NOTICE, TaskName
from flows.commands.parameters import VerifyParameters
from flows.engine.console import print_line, print_result
from models.engines.progress import track

_FAULTS_SHOWN = 50


@dataclass(frozen=True)
class Verification:
    """The faults of a submission, and what it was compared with.

    Attributes:
        task: None if the headers of the files do not show it.
        is_valid: there is no fault, and everything was compared.
        test_list: path of the test list that was read; None without one.
        compared_with: "test list", "videos", both, or nothing: then only the format was checked.
        not_compared: a line for each video or group of subjects whose frames could not be counted.
        notes: lines about what may surprise.
    """

    command: ClassVar[str] = "verify"
    path: str
    task: TaskName | None
    is_valid: bool
    is_simulated: bool
    test_list: str | None
    compared_with: list[str]
    faults: list[Fault]
    not_compared: list[str]
    notes: list[str]


def verify(parameters: VerifyParameters) -> int:
    """Print every fault with file, line and cause; return 0 if there is none, else 1.

    Raises:
        InputError: a path or URL is wrong, or nothing exists there.
    """
    found = check(parameters)
    if not print_result(found):
        _print_faults(found, parameters.test_list)
    return 0 if found.is_valid else 1


def _print_faults(found: Verification, test_list: str | None) -> None:
    if found.test_list and found.test_list != str(test_list):
        print_line(f"test list: {found.test_list}")
    for note in found.notes:
        print_line(f"note: {note}")
    for fault in found.faults[:_FAULTS_SHOWN]:
        print_line(str(fault), level=logging.WARNING)
    if len(found.faults) > _FAULTS_SHOWN:
        print_line(f"... and {len(found.faults) - _FAULTS_SHOWN} more", level=logging.WARNING)
    for line in found.not_compared:
        print_line(f"not compared: {line}", level=logging.WARNING)
    against = " and ".join(found.compared_with)
    against = f" against {against}" if against else " (format only: no --test-list, no --videos)"
    count = counted(len(found.faults), "fault") if found.faults else "no fault"
    print_line(f"{found.path}: {count}{against}", is_result=True)


def check(parameters: VerifyParameters) -> Verification:
    """Compare a submission with its format, and with the test list and the videos if they are given.

    Raises:
        InputError: a path or URL is wrong, or nothing exists there.
    """
    path = location(parameters.path)
    videos = location(parameters.videos) if parameters.videos else None
    refresh_listings(path)
    submission = read_submission(path, parameters.task)
    wanted = _read_list(location(parameters.test_list), submission.task) if parameters.test_list else None
    subjects = submission.subjects_by_video(wanted)
    rows = _rows_of_videos(videos, subjects) if videos and subjects else _Rows()
    faults = [*_changes_since_written(path), *check_submission(submission, wanted, rows.of_subjects)]
    notes = rows.notes
    notes += _labels_of_head(path)
    if wanted and not wanted.shows_task:
        notes.append(f"{wanted.path}: name and content show no task; only its subjects or frames were compared")
    if submission.is_simulated:
        notes.append(f"{path}: {SIMULATED_NOTICE}")
    return Verification(
        path=str(path),
        task=submission.task,
        is_valid=not (faults or rows.uncounted),
        is_simulated=submission.is_simulated,
        test_list=str(wanted.path) if wanted else None,
        compared_with=[name for name, given in (("test list", wanted), ("videos", rows.of_subjects)) if given],
        faults=faults,
        not_compared=rows.uncounted,
        notes=notes,
    )


def _read_list(path: Location, task: TaskName | None) -> TestList | None:
    """Read a test list, or the only one of the task below a folder; None if the task is unknown."""
    with reading_inputs(path):
        refresh_listings(path)
        if path.is_dir():
            return read_test_list(find_test_list(path, task)) if task else None
        return read_test_list(path)


def _labels_of_head(path: Location) -> list[str]:
    """Return a line with the labels that the head was fitted on, if ``submit`` wrote the folder or the zip file."""
    place = path.absolute()
    with reading_inputs(path):
        folder = place if (place / MANIFEST).exists() else place.parent
        if not (folder / MANIFEST).exists():
            return []
    bundle = read_manifest(Store(folder.parent), folder.name)
    if bundle is None or "edition" not in bundle.details or not (details := SubmissionDetails.of(bundle)).labels:
        return []
    return [f"{details.task} head {details.head} was {details.format_labels()}"]


def _changes_since_written(path: Location) -> list[Fault]:
    """Return a fault for each file that differs from the manifest, if the path is a folder that ``submit`` wrote."""
    folder = path.absolute()
    with reading_inputs(path):
        if not (folder / MANIFEST).exists():
            return []
    store = Store(folder.parent)
    bundle = read_manifest(store, folder.name)
    if bundle is None:
        return [Fault(MANIFEST, 0, "expected the manifest that submit wrote, got a changed or damaged file")]
    got = {name: "got another" if (folder / name).exists() else "found none" for name in wrong_files(store, bundle)}
    return [Fault(name, 0, f"expected the file that submit wrote, {what}") for name, what in got.items()]


@dataclass
class _Rows:
    """Number of frames of the video of each subject, a line for each without a count, and lines about damage."""

    of_subjects: dict[str, int] = field(default_factory=dict)
    uncounted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _rows_of_videos(folder: Location, subjects: Sequence[str]) -> _Rows:
    """Count the frames of the video of each subject. Unlike ``extract``, count the frames of a whole decode."""
    listing = find_data(folder).video_listing
    rows, unknown = _Rows(), []
    for subject in track(subjects, "counting the frames of videos: {} subjects"):
        stem = video_named(subject, listing.videos)
        if stem is None:
            unknown.append(subject)
        elif stem not in rows.of_subjects:
            try:
                rows.of_subjects[stem] = _count_rows(listing.videos[stem], rows.notes)
            except InputError as error:
                rows.uncounted.append(str(error))
    if unknown:
        rows.uncounted.append(
            f"{folder}: found no video of {counted(len(unknown), 'subject')} ({first_names(unknown)})"
        )
        rows.uncounted += InputsDetails.of_account(listing.account).format_lost()
    return rows


def _count_rows(video: Location, notes: list[str]) -> int:
    found = count_frames(video)
    if not found.is_damaged:
        return found.frames
    # Rows for frames that cannot be decoded are not a fault.
    rows = index_video(video).frame_count
    notes.append(f"{video} is damaged; {rows} rows are expected, as from extract")
    return rows
