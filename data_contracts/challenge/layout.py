"""Find the data below a folder: the organisers' folders of any edition, or just a folder of videos."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from data_contracts.challenge.annotations import MTL_FILES
from data_contracts.challenge.editions import ABAW3_FOLDERS, challenge_of_folder, task_of_test_list
from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount, is_harmless
from data_contracts.files.inputs import (
    FileState,
    is_file_or_broken_link,
    list_entries,
    list_many,
    reading_inputs,
    refresh_listings,
)
from data_contracts.files.locations import Location
from data_contracts.vocabulary import MAX_FRAME, SUBJECT_SIDES, VIDEO_SUFFIXES, TaskName, video_of_subject

# The organisers publish videos and crops in batches. Releases since ABAW5 add fifty more videos and their crops.
_BATCH = r"batch_?\d+|new_?vid(?:eo)?s|(?:cropped_(?:aligned_)?)?new_50_vids"
_VIDEO_FOLDER = re.compile(rf"videos|{_BATCH}", re.IGNORECASE)
_BATCH_FOLDER = re.compile(_BATCH, re.IGNORECASE)
_CROP_FOLDERS = {
    "cropped": "cropped",
    "faces": "cropped",
    "cropped_new_50_vids": "cropped",
    "cropped_aligned": "cropped_aligned",
    "cropped_aligned_new_50_vids": "cropped_aligned",
}
_CROP_NAME = re.compile(r"(\d{5,9})\.jpe?g", re.IGNORECASE)


@dataclass(frozen=True)
class DataLayout:
    """The data that was found below a root, of any edition.

    Attributes:
        videos: stem -> file.
        crops: source name -> folders of subject folders.
        annotations: task -> the challenge's folder.
        test_lists: task -> lists of subjects or frames, by name.
        accounts: what was found, used and skipped, by kind of input.
    """

    root: Location
    videos: dict[str, Location] = field(default_factory=dict)
    crops: dict[str, tuple[Location, ...]] = field(default_factory=dict)
    annotations: dict[TaskName, Location] = field(default_factory=dict)
    test_lists: dict[TaskName, tuple[Location, ...]] = field(default_factory=dict)
    accounts: dict[str, InputAccount] = field(default_factory=dict)

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


class Crop(NamedTuple):
    """The face crop of a subject in one frame: path or URL, and the state of the file."""

    frame: int
    path: str
    state: FileState


@dataclass(frozen=True)
class CropFolder:
    """Crops of all subjects, sorted by frame, and the number of other files, both by subject."""

    subjects: dict[str, list[Crop]]
    other_files: dict[str, int]


def find_data(root: Location) -> DataLayout:
    """Look for videos, crops, annotations and test lists below a folder.

    Raises:
        InputError: there is no such folder or no data in it, two videos have the same stem, or S3 does not answer.
    """
    with reading_inputs(root):
        refresh_listings(root)
        if not root.is_dir():
            problem = "a file" if root.exists() else "nothing"
            raise InputError(f"{root}: expected a folder with videos, crops or annotations, found {problem} there")
        account = InputAccount("videos", root)
        inside = [root, *_other_folders(root)]
        layout = DataLayout(
            root,
            _find_videos(_video_folders(root), account) or _find_videos([root], account),
            _find_crops(root),
            _find_annotations(inside),
            _find_test_lists(inside),
            {account.kind: account},
        )
    if not (layout.videos or layout.crops or layout.annotations):
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(
            f"{root}: expected videos ({kinds}) here or in videos/, or crops in cropped/, or annotations; found none"
        )
    return layout


def _folders_in(folder: Location) -> list[Location]:
    try:
        return [path for path in list_entries(folder) if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: expected a folder that can be read, got: {error.strerror}") from error


def _video_folders(root: Location) -> list[Location]:
    folders = [path for path in _folders_in(root) if _VIDEO_FOLDER.fullmatch(path.name) and not _is_crops(path)]
    return folders + [path for folder in folders for path in _folders_in(folder) if _BATCH_FOLDER.fullmatch(path.name)]


def _is_crops(folder: Location) -> bool:
    return folder.name.lower() in _CROP_FOLDERS


def _find_crops(root: Location) -> dict[str, tuple[Location, ...]]:
    found: dict[str, tuple[Location, ...]] = {}
    for folder in filter(_is_crops, _folders_in(root)):
        batches = [path for path in _folders_in(folder) if _BATCH_FOLDER.fullmatch(path.name)]
        source = _CROP_FOLDERS[folder.name.lower()]
        found[source] = (*found.get(source, ()), folder, *batches)
    return found


def _find_videos(folders: list[Location], account: InputAccount) -> dict[str, Location]:
    found: dict[str, Location] = {}
    for folder in folders:
        for path in list_entries(folder):
            if path.suffix.lower() not in VIDEO_SUFFIXES:
                continue
            if is_harmless(path.name):
                account.skip(path)
                continue
            if not is_file_or_broken_link(path):
                continue
            if path.stem in found:
                raise InputError(f"{path}: expected one video per name, found also {found[path.stem]}; rename one")
            found[path.stem] = path
            account.use()
    return found


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
    folders = [path for path in _folders_in(root) if not (_is_crops(path) or _VIDEO_FOLDER.fullmatch(path.name))]
    return folders + [deeper for folder in folders for deeper in _folders_in(folder)]


def list_crops(folders: Sequence[Location]) -> CropFolder:
    """List all crops ``<subject>/<frame>.jpg`` below folders.

    Raises:
        InputError: there is no subject folder with a crop, or a subject has crops in two folders.
    """
    subjects: dict[str, list[Crop]] = {}
    others: dict[str, int] = {}
    with reading_inputs(folders[0]):
        found = _subject_folders(folders)
        listed = list_many(found.values())
    for (name, folder), files in zip(found.items(), listed, strict=True):
        crops, other = _crops_among(folder, files)
        if crops:
            subjects[name] = sorted(crops)
        if other:
            others[name] = other
    if not subjects:
        raise InputError(f"{folders[0]}: expected folders <subject>/00001.jpg, found no crop")
    return CropFolder(subjects, others)


def _subject_folders(folders: Sequence[Location]) -> dict[str, Location]:
    found: dict[str, Location] = {}
    for folder in folders:
        for entry in _folders_in(folder):
            if entry in folders:
                continue
            if entry.name in found:
                raise InputError(
                    f"{entry}: expected the crops of a subject in one folder, found also {found[entry.name]}"
                )
            found[entry.name] = entry
    return dict(sorted(found.items()))


def _crops_among(folder: Location, files: Mapping[str, FileState]) -> tuple[list[Crop], int]:
    crops, other = [], 0
    for name, state in files.items():
        match = _CROP_NAME.fullmatch(name)
        if match and 1 <= int(match[1]) <= MAX_FRAME:
            crops.append(Crop(int(match[1]), f"{folder}/{name}", state))
        else:
            other += 1
    return crops, other


def subjects_of_videos(layout: DataLayout) -> Mapping[str, tuple[str, ...]]:
    """Return the subjects of each video with two subjects, left first.

    A video has two subjects if annotations, test lists or crops name one of its sides (``video_left``).
    """
    with reading_inputs(layout.root):
        names = {name for folders in layout.crops.values() for name in _subject_folders(folders)}
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
