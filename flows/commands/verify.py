"""``affwild2 verify``: check a submission against the test list and the videos."""

from data_contracts.challenge.layout import find_data
from data_contracts.challenge.submissions import Fault, verify_submission
from data_contracts.challenge.test_lists import read_test_list
from data_contracts.errors import InputError, counted
from data_contracts.files.inputs import reading_inputs, refresh_listings
from data_contracts.files.locations import Location, location
from data_contracts.store.bundles import MANIFEST, read_manifest, wrong_files
from data_contracts.store.details import InputsDetails
from data_contracts.store.store import Store
from data_contracts.video.counting import count_frames
from data_contracts.video.packets import index_video
from flows.commands.parameters import VerifyParameters
from flows.engine.console import print_line

_FAULTS_SHOWN = 50


def verify(parameters: VerifyParameters) -> int:
    """Print every fault with file, line and cause; return 0 if there is none, else 1.

    Raises:
        InputError: a path or URL is wrong, or nothing exists there.
    """
    path = location(parameters.path)
    test_list = location(parameters.test_list) if parameters.test_list else None
    videos = location(parameters.videos) if parameters.videos else None
    for place in (path, test_list):
        if place is not None:
            refresh_listings(place)
    rows = _rows_of_videos(videos) if videos else None
    faults = _changes_since_written(path)
    faults += verify_submission(path, task=parameters.task, test_list=test_list, expected_rows=rows)
    if test_list and not read_test_list(test_list).shows_task:
        print_line(f"note: {test_list}: name and content show no task; only its subjects or frames were compared")
    for fault in faults[:_FAULTS_SHOWN]:
        print_line(str(fault))
    if len(faults) > _FAULTS_SHOWN:
        print_line(f"... and {len(faults) - _FAULTS_SHOWN} more")
    checked = [name for name, given in (("test list", test_list), ("videos", videos)) if given]
    against = f" against {' and '.join(checked)}" if checked else " (format only: no --test-list, no --videos)"
    print_line(f"{path}: {counted(len(faults), 'fault') if faults else 'no fault'}{against}")
    return 1 if faults else 0


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
    return [
        Fault(name, 0, "expected the content that submit wrote, got another") for name in wrong_files(store, bundle)
    ]


def _rows_of_videos(folder: Location) -> dict[str, int]:
    """Return the number of frames of each video. Unlike ``extract``, count the frames of a whole decode."""
    rows = {}
    listing = find_data(folder).video_listing
    for line in InputsDetails.of_account(listing.account).format_lost():
        print_line(f"frames not counted: {line}")
    for name, files in listing.same_names.items():
        print_line(f"frames not counted: {files[0]}: several videos have the name {name}, also {files[1]}; rename one")
    for stem, video in listing.videos.items():
        try:
            counted_frames = count_frames(video)
            rows[stem] = counted_frames.frames
            if counted_frames.is_damaged:
                # Rows for frames that cannot be decoded are not a fault.
                rows[stem] = index_video(video).frame_count
                print_line(f"note: {video} is damaged; {rows[stem]} rows are expected, as from extract")
        except InputError as error:
            print_line(f"frames not counted: {error}")
    return rows
