"""Find the data below a folder: the organisers' folders of any edition, or just a folder of videos."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from data_contracts.challenge.annotations import MTL_FILES
from data_contracts.challenge.crops import find_crop_folders, is_crop_folder, subject_folders
from data_contracts.challenge.editions import ABAW3_FOLDERS, challenge_of_folder, task_of_test_list
from data_contracts.challenge.videos import VideoListing, list_videos
from data_contracts.errors import InputError
from data_contracts.files.inputs import list_entries, list_folders, reading_inputs, refresh_listings
from data_contracts.files.locations import Location
from data_contracts.vocabulary import SUBJECT_SIDES, TaskName, video_of_subject


@dataclass(frozen=True)
class DataLayout:
    """The data that was found below a root, of any edition.

    Attributes:
        crops: source name -> folders of subject folders.
        annotations: task -> the challenge's folder.
        test_lists: task -> lists of subjects or frames, by name.
    """

    root: Location
    crops: dict[str, tuple[Location, ...]] = field(default_factory=dict)
    annotations: dict[TaskName, Location] = field(default_factory=dict)
    test_lists: dict[TaskName, tuple[Location, ...]] = field(default_factory=dict)

    @functools.cached_property
    def video_listing(self) -> VideoListing:
        """The videos below the root, and the account of all files there. The folders are searched on first use.

        Raises:
            InputError: S3 does not answer.
        """
        return list_videos([self.root])

    @property
    def videos(self) -> dict[str, Location]:
        """Name -> file of every video whose name is unique."""
        return self.video_listing.videos

    def annotations_of(self, task: TaskName) -> Location:
        """Return the challenge's folder of a task.

        Raises:
            InputError: there is none.
        """
        if task not in self.annotations:
            found = ", ".join(sorted(self.annotations)) or "none"
            raise InputError(
                f"{self.root}: expected annotations of {task} (a folder such as {ABAW3_FOLDERS[task]}) here or one "
                f"level down, found: {found}"
            )
        return self.annotations[task]


def find_data(root: Location) -> DataLayout:
    """Look for videos, crops, annotations and test lists below a folder.

    Raises:
        InputError: there is no such folder or no data in it, or S3 does not answer.
    """
    with reading_inputs(root):
        refresh_listings(root)
        if not root.is_dir():
            problem = "a file" if root.exists() else "nothing"
            raise InputError(f"{root}: expected a folder with videos, crops or annotations, found {problem} there")
        inside = [root, *_other_folders(root)]
        layout = DataLayout(root, find_crop_folders(root), _find_annotations(inside), _find_test_lists(inside))
    if not (layout.crops or layout.annotations or layout.videos or layout.video_listing.same_names):
        found = layout.video_listing.account.found
        raise InputError(
            f"{root}: expected videos, crops in cropped/ or cropped_aligned/, or annotations, here or in folders, "
            f"found {found or 'no'} other file{'' if found == 1 else 's'}"
        )
    return layout


def _find_annotations(folders: list[Location]) -> dict[TaskName, Location]:
    found: dict[TaskName, Location] = {}
    for folder in folders:
        task = challenge_of_folder(folder.name)
        if task is None and any((folder / name).is_file() for names in MTL_FILES.values() for name in names):
            task = "mtl"
        if task:
            found.setdefault(task, folder)
    return found


def _find_test_lists(folders: list[Location]) -> dict[TaskName, tuple[Location, ...]]:
    found: dict[TaskName, tuple[Location, ...]] = {}
    for folder in folders:
        for path in list_entries(folder):
            task = task_of_test_list(path.name)
            if task and path.is_file():
                found[task] = (*found.get(task, ()), path)
    return found


def _other_folders(root: Location) -> list[Location]:
    """Return the folders one and two levels down, except those of videos and crops, which contain very many files."""
    folders = [path for path in list_folders(root) if not (is_crop_folder(path.name) or _is_video_folder(path.name))]
    return folders + [deeper for folder in folders for deeper in list_folders(folder)]


def _is_video_folder(name: str) -> bool:
    return name.lower() == "videos"


def subjects_of_videos(layout: DataLayout) -> Mapping[str, tuple[str, ...]]:
    """Return the subjects of each video with two subjects, left first.

    A video has two subjects if annotations, test lists or crops name one of its sides (``video_left``).
    """
    with reading_inputs(layout.root):
        names = {name for folders in layout.crops.values() for name in subject_folders(folders)}
        for task, folder in layout.annotations.items():
            pattern = "*.txt" if task == "mtl" else "*/*.txt"
            names |= {path.stem for path in folder.glob(pattern)}
        lists = [path for paths in layout.test_lists.values() for path in paths]
        if "mtl" in layout.annotations:
            lists += layout.annotations["mtl"].glob("*.txt")
        for path in lists:
            names |= _names_in(path)
    sided = {video_of_subject(name) for name in names if name.endswith(SUBJECT_SIDES)}
    return {video: tuple(video + side for side in SUBJECT_SIDES) for video in sorted(sided)}


def _names_in(path: Location) -> set[str]:
    """Return the subjects in the lines of a list: ``subject`` or ``subject/00001.jpg,...``."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        return {line.split(",", 1)[0].split("/", 1)[0].strip() for line in lines}
