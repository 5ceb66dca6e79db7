"""Find the data below a folder: the organisers' folders of any edition, or just a folder of videos."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from data_contracts.challenge.annotations import subjects_named
from data_contracts.challenge.crops import find_crop_folders, is_crop_folder, source_of_crop_folder, subject_folders
from data_contracts.challenge.editions import ABAW3_FOLDERS
from data_contracts.challenge.names import match_names
from data_contracts.challenge.releases import find_releases
from data_contracts.challenge.test_lists import names_in_list
from data_contracts.challenge.videos import VideoListing, list_videos
from data_contracts.errors import InputError
from data_contracts.files.inputs import reading_inputs, refresh_listings
from data_contracts.files.locations import Location
from data_contracts.vocabulary import SUBJECT_SIDES, TaskName, normalize_name, video_of_subject


@dataclass(frozen=True)
class DataLayout:
    """The data that was found below a root, of any edition.

    Attributes:
        crops: source name -> folders of subject folders.
        annotations: task -> candidates for the challenge's folder.
        test_lists: task -> candidates for the list of subjects or frames.
        archives: zip files, which are not read.
        unreadable: a line for each folder that cannot be read.
    """

    root: Location
    crops: dict[str, tuple[Location, ...]] = field(default_factory=dict)
    annotations: dict[TaskName, tuple[Location, ...]] = field(default_factory=dict)
    test_lists: dict[TaskName, tuple[Location, ...]] = field(default_factory=dict)
    archives: tuple[Location, ...] = ()
    unreadable: tuple[str, ...] = ()

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
            InputError: there is none, or there are several.
        """
        found = self.annotations.get(task, ())
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(map(str, found))
            raise InputError(
                f"{self.root}: expected one folder of annotations of {task}, found {len(found)}: {listed}; pass the "
                "one to use with --annotations"
            )
        if self.unreadable:
            raise InputError(self.unreadable[0])
        others = ", ".join(sorted(self.annotations)) or "none"
        archives = ", ".join(path.name for path in self.archives)
        unpack = f"; unpack the zip files that contain them ({archives})" if archives else ""
        raise InputError(
            f"{self.root}: expected annotations of {task} (a folder such as {ABAW3_FOLDERS[task]}) here or below, "
            f"found annotations of: {others}{unpack}"
        )

    def test_list_of(self, task: TaskName) -> Location:
        """Return the test list of a task.

        Raises:
            InputError: there is none, or there are several.
        """
        found = self.test_lists.get(task, ())
        if len(found) == 1:
            return found[0]
        listed = ", ".join(map(str, found)) or "none"
        raise InputError(
            f"{self.root}: expected one test list of {task} here or below, found: {listed}; pass the path of the list "
            "with --test-list"
        )


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
        releases = find_releases(root, is_other_data=_is_videos_or_crops)
        layout = DataLayout(
            root,
            find_crop_folders(root),
            releases.annotations,
            releases.test_lists,
            releases.archives,
            releases.unreadable,
        )
    is_empty = not (layout.crops or layout.annotations or layout.videos or layout.video_listing.same_names)
    if is_empty and (source := source_of_crop_folder(root.absolute().name)):
        return replace(layout, crops={source: (root,)})
    if is_empty:
        raise InputError(
            f"{root}: expected videos, crops in cropped/ or cropped_aligned/, or annotations, here or in folders "
            f"below, found none{layout.video_listing.account.describe_first()}"
        )
    return layout


def find_test_list(folder: Location, task: TaskName) -> Location:
    """Return the only test list of a task below a folder.

    Raises:
        InputError: there is none, or there are several.
    """
    return DataLayout(
        folder, test_lists=find_releases(folder, is_other_data=_is_videos_or_crops).test_lists
    ).test_list_of(task)


def _is_videos_or_crops(folder: Location) -> bool:
    """Return whether a folder may contain very many files, and no annotations."""
    return is_crop_folder(folder.name) or folder.name.lower() == "videos"


def subjects_of_videos(layout: DataLayout) -> Mapping[str, tuple[str, ...]]:
    """Return the subjects of each video with two subjects, left first.

    A video has two subjects if annotations, test lists or crops name one of its sides (``video_left``). The subjects of
    a known video are spelled like the video.

    Raises:
        InputError: a folder or list that could name subjects cannot be read.
    """
    with reading_inputs(layout.root):
        names = {name for folders in layout.crops.values() for name in subject_folders(folders)}
        for task, folders in layout.annotations.items():
            names = names.union(*(subjects_named(folder, task=task) for folder in folders))
        lists = [path for paths in layout.test_lists.values() for path in paths]
        names = names.union(*map(names_in_list, lists))
    sided = {normalize_name(video_of_subject(name)) for name in names if name.endswith(SUBJECT_SIDES)}
    spelled = match_names(sided, layout.videos)
    videos = sorted({spelled.get(video, video) for video in sided})
    return {video: tuple(video + side for side in SUBJECT_SIDES) for video in videos}
