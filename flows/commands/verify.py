"""``affwild2 verify``: check a submission against the test list and the videos."""

from collections.abc import Sequence

from data_contracts.challenge.layout import find_data, find_test_list
from data_contracts.challenge.submission_files import Fault
from data_contracts.challenge.submissions import check_submission, read_submission, video_named
from data_contracts.challenge.test_lists import TestList, read_test_list
from data_contracts.errors import InputError, counted
from data_contracts.files.inputs import reading_inputs, refresh_listings
from data_contracts.files.locations import Location, location
from data_contracts.store.bundles import MANIFEST, read_manifest, wrong_files
from data_contracts.store.input_accounts import InputsDetails
from data_contracts.store.store import Store
from data_contracts.video.counting import count_frames
from data_contracts.video.packets import index_video
from data_contracts.vocabulary import SIMULATED_NOTICE, TaskName
from flows.commands.parameters import VerifyParameters
from flows.engine.console import print_line

_FAULTS_SHOWN = 50


def verify(parameters: VerifyParameters) -> int:
    """Print every fault with file, line and cause; return 0 if there is none, else 1.

    Raises:
        InputError: a path or URL is wrong, or nothing exists there.
    """
    path = location(parameters.path)
    videos = location(parameters.videos) if parameters.videos else None
    refresh_listings(path)
    submission = read_submission(path, parameters.task)
    wanted = _read_list(location(parameters.test_list), submission.task) if parameters.test_list else None
    subjects = submission.subjects_by_video(wanted)
    rows, uncounted = _rows_of_videos(videos, subjects) if videos and subjects else ({}, [])
    faults = [*_changes_since_written(path), *check_submission(submission, wanted, rows)]
    if wanted and str(wanted.path) != str(parameters.test_list):
        print_line(f"test list: {wanted.path}")
    if wanted and not wanted.shows_task:
        print_line(f"note: {wanted.path}: name and content show no task; only its subjects or frames were compared")
    for fault in faults[:_FAULTS_SHOWN]:
        print_line(str(fault))
    if len(faults) > _FAULTS_SHOWN:
        print_line(f"... and {len(faults) - _FAULTS_SHOWN} more")
    for line in uncounted:
        print_line(f"not compared: {line}")
    checked = [name for name, given in (("test list", wanted), ("videos", rows)) if given]
    if submission.is_simulated:
        print_line(f"note: {path}: {SIMULATED_NOTICE}")
    against = f" against {' and '.join(checked)}" if checked else " (format only: no --test-list, no --videos)"
    print_line(f"{path}: {counted(len(faults), 'fault') if faults else 'no fault'}{against}")
    return 1 if faults or uncounted else 0


def _read_list(path: Location, task: TaskName | None) -> TestList | None:
    """Read a test list, or the only one of the task below a folder; None if the task is unknown."""
    with reading_inputs(path):
        refresh_listings(path)
        if path.is_dir():
            return read_test_list(find_test_list(path, task)) if task else None
        return read_test_list(path)


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


def _rows_of_videos(folder: Location, subjects: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Return the number of frames of the video of each subject, and a line for each subject without a count.

    Unlike ``extract``, count the frames of a whole decode.
    """
    listing = find_data(folder).video_listing
    rows: dict[str, int] = {}
    uncounted, unknown = [], []
    for subject in subjects:
        stem = video_named(subject, listing.videos)
        if stem is None:
            unknown.append(subject)
        elif stem not in rows:
            try:
                rows[stem] = _count_rows(listing.videos[stem])
            except InputError as error:
                uncounted.append(str(error))
    if unknown:
        named = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        uncounted.append(f"{folder}: found no video of {counted(len(unknown), 'subject')} ({named})")
        uncounted += InputsDetails.of_account(listing.account).format_lost()
    return rows, uncounted


def _count_rows(video: Location) -> int:
    found = count_frames(video)
    if not found.is_damaged:
        return found.frames
    # Rows for frames that cannot be decoded are not a fault.
    rows = index_video(video).frame_count
    print_line(f"note: {video} is damaged; {rows} rows are expected, as from extract")
    return rows
