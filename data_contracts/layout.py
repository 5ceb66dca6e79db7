"""What lies where: the organisers' folders as ABAW3 distributes them, or just a folder of videos."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.errors import InputError
from data_contracts.vocabulary import SUBJECT_SIDES, TaskName, video_of_subject

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})
CHALLENGE_FOLDERS: dict[TaskName, str] = {
    "expr": "EXPR_Classification_Challenge",
    "va": "VA_Estimation_Challenge",
    "au": "AU_Detection_Challenge",
    "mtl": "MTL_Challenge",
}
TEST_LISTS: dict[TaskName, str] = {
    "expr": "Expression_Classification_Challenge_test_set_release.txt",
    "va": "Valence_Arousal_Estimation_Challenge_test_set_release.txt",
    "au": "Action_Unit_Detection_Challenge_test_set_release.txt",
    "mtl": "Multi_Task_Learning_Challenge_test_set_release.txt",
}
_VIDEO_FOLDERS = ("videos", "batch1", "batch2", "new_vids")
_CROP_FOLDERS = {"cropped": "cropped", "faces": "cropped", "cropped_aligned": "cropped_aligned"}
_CROP_NAME = re.compile(r"(\d{5,})\.jpe?g", re.IGNORECASE)


@dataclass(frozen=True)
class DataLayout:
    """What was found below a root.

    Attributes:
        videos: stem -> file.
        crops: source name -> folder of subject folders.
        annotations: folder that holds the challenges' folders; None if there is none.
        test_lists: task -> file.
    """

    root: Path
    videos: dict[str, Path] = field(default_factory=dict)
    crops: dict[str, Path] = field(default_factory=dict)
    annotations: Path | None = None
    test_lists: dict[TaskName, Path] = field(default_factory=dict)

    def annotations_of(self, task: TaskName) -> Path:
        """The challenge's folder of a task.

        Raises:
            InputError: there is none.
        """
        if self.annotations is None or not (self.annotations / CHALLENGE_FOLDERS[task]).is_dir():
            raise InputError(
                f"{self.root}: expected annotations in a folder {CHALLENGE_FOLDERS[task]} here or one level down, "
                "found none"
            )
        return self.annotations / CHALLENGE_FOLDERS[task]


@dataclass(frozen=True)
class CropFolder:
    """Crops of all subjects: subject -> (frame, file), ascending; and files that are not crops, by subject."""

    subjects: dict[str, list[tuple[int, Path]]]
    other_files: dict[str, int]


def find_data(root: Path) -> DataLayout:
    """Look for videos, crops, annotations and test lists below a folder.

    Raises:
        InputError: no such folder, nothing of use in it, or two videos with one stem.
    """
    if not root.is_dir():
        problem = "a file" if root.exists() else "nothing"
        raise InputError(f"{root}: expected a folder with videos, crops or annotations, found {problem} there")
    folders = [root / name for name in _VIDEO_FOLDERS if (root / name).is_dir()]
    layout = DataLayout(
        root,
        _find_videos(folders or [root]),
        {source: root / name for name, source in _CROP_FOLDERS.items() if (root / name).is_dir()},
        _find_annotations(root),
        _find_test_lists(root),
    )
    if not (layout.videos or layout.crops or layout.annotations):
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(
            f"{root}: expected videos ({kinds}) here or in videos/, or crops in cropped/, or annotations; found none"
        )
    return layout


def _find_videos(folders: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in VIDEO_SUFFIXES or path.name.startswith(".") or not path.is_file():
                continue
            if path.stem in found:
                raise InputError(f"{path}: expected one video per name, found also {found[path.stem]}; rename one")
            found[path.stem] = path
    return found


def _find_annotations(root: Path) -> Path | None:
    for folder in (root, *_subfolders(root)):
        if any((folder / name).is_dir() for name in CHALLENGE_FOLDERS.values()):
            return folder
    return root.parent if root.name in CHALLENGE_FOLDERS.values() else None


def _find_test_lists(root: Path) -> dict[TaskName, Path]:
    places = [root, *_subfolders(root)]
    places += [deeper for folder in places[1:] for deeper in _subfolders(folder) if "test" in deeper.name.lower()]
    found: dict[TaskName, Path] = {}
    for task, name in TEST_LISTS.items():
        matches = [folder / name for folder in places if (folder / name).is_file()]
        if matches:
            found[task] = matches[0]
    return found


def _subfolders(folder: Path) -> list[Path]:
    # Folders of crops hold hundreds of thousands of files and nothing that is looked for here.
    names = {*_VIDEO_FOLDERS, *_CROP_FOLDERS}
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in names)


def list_crops(folder: Path) -> CropFolder:
    """All crops ``<subject>/<frame>.jpg`` below a folder.

    Raises:
        InputError: there is no subject folder with a crop.
    """
    subjects: dict[str, list[tuple[int, Path]]] = {}
    others: dict[str, int] = {}
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        crops, other = _crops_of_subject(entry)
        if crops:
            subjects[entry.name] = sorted(crops)
        if other:
            others[entry.name] = other
    if not subjects:
        raise InputError(f"{folder}: expected folders <subject>/00001.jpg, found no crop")
    return CropFolder(subjects, others)


def _crops_of_subject(folder: Path) -> tuple[list[tuple[int, Path]], int]:
    crops, other = [], 0
    for name, path in _files(folder):
        match = _CROP_NAME.fullmatch(name)
        if match and int(match[1]) >= 1:
            crops.append((int(match[1]), path))
        else:
            other += 1
    return crops, other


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                yield entry.name, Path(entry.path)


def subjects_of_videos(layout: DataLayout) -> Mapping[str, tuple[str, ...]]:
    """Videos with two subjects, left first: those of which annotations, test lists or crops name either side."""
    names = {name for folder in layout.crops.values() for name in os.listdir(folder)}
    names |= {name for path in layout.test_lists.values() for name in _names_in(path)}
    if layout.annotations:
        names |= {path.stem for path in layout.annotations.glob("*_Challenge/*_Set/*.txt")}
        for path in layout.annotations.glob("MTL_Challenge/*.txt"):
            names |= _names_in(path)
    sided = {video_of_subject(name) for name in names if name.endswith(SUBJECT_SIDES)}
    return {video: tuple(video + side for side in SUBJECT_SIDES) for video in sorted(sided)}


def _names_in(path: Path) -> set[str]:
    """Subjects that the lines of a list name: ``subject`` or ``subject/00001.jpg,...``."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        return {line.split(",", 1)[0].split("/", 1)[0].strip() for line in lines}
