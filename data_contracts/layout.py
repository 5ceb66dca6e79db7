"""What lies where: the organisers' folders as the editions distribute them, or just a folder of videos."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.annotations import MTL_FILES
from data_contracts.editions import ABAW3_FOLDERS, challenge_of_folder, task_of_test_list
from data_contracts.errors import InputError
from data_contracts.vocabulary import MAX_FRAME, SUBJECT_SIDES, TaskName, video_of_subject

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})
# The organisers hand out videos and crops in batches; releases since ABAW5 add those of fifty more videos.
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
    """What was found below a root, of whatever edition.

    Attributes:
        videos: stem -> file.
        crops: source name -> folders of subject folders.
        annotations: task -> the challenge's folder.
        test_lists: task -> lists of subjects or frames, by name.
    """

    root: Path
    videos: dict[str, Path] = field(default_factory=dict)
    crops: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    annotations: dict[TaskName, Path] = field(default_factory=dict)
    test_lists: dict[TaskName, tuple[Path, ...]] = field(default_factory=dict)

    def annotations_of(self, task: TaskName) -> Path:
        """The challenge's folder of a task.

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
    inside = [root, *_folders_of(root)]
    layout = DataLayout(
        root,
        _find_videos(_video_folders(root)) or _find_videos([root]),
        _find_crops(root),
        _find_annotations(inside),
        _find_test_lists(inside),
    )
    if not (layout.videos or layout.crops or layout.annotations):
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(
            f"{root}: expected videos ({kinds}) here or in videos/, or crops in cropped/, or annotations; found none"
        )
    return layout


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: expected a folder that can be read, got: {error.strerror}") from error


def _video_folders(root: Path) -> list[Path]:
    folders = [path for path in _folders_in(root) if _VIDEO_FOLDER.fullmatch(path.name) and not _is_crops(path)]
    return folders + [path for folder in folders for path in _folders_in(folder) if _BATCH_FOLDER.fullmatch(path.name)]


def _is_crops(folder: Path) -> bool:
    return folder.name.lower() in _CROP_FOLDERS


def _find_crops(root: Path) -> dict[str, tuple[Path, ...]]:
    found: dict[str, tuple[Path, ...]] = {}
    for folder in filter(_is_crops, _folders_in(root)):
        batches = [path for path in _folders_in(folder) if _BATCH_FOLDER.fullmatch(path.name)]
        source = _CROP_FOLDERS[folder.name.lower()]
        found[source] = (*found.get(source, ()), folder, *batches)
    return found


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


def _find_annotations(folders: list[Path]) -> dict[TaskName, Path]:
    found: dict[TaskName, Path] = {}
    for folder in folders:
        task = challenge_of_folder(folder.name)
        if task is None and any((folder / name).is_file() for names in MTL_FILES.values() for name in names):
            task = "mtl"
        if task:
            found.setdefault(task, folder)
    return found


def _find_test_lists(folders: list[Path]) -> dict[TaskName, tuple[Path, ...]]:
    found: dict[TaskName, tuple[Path, ...]] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            task = task_of_test_list(path.name)
            if task and path.is_file():
                found[task] = (*found.get(task, ()), path)
    return found


def _folders_of(root: Path) -> list[Path]:
    """Folders one and two levels down, but for those of videos and crops: these hold very many files."""
    folders = [path for path in _folders_in(root) if not (_is_crops(path) or _VIDEO_FOLDER.fullmatch(path.name))]
    return folders + [deeper for folder in folders for deeper in _folders_in(folder)]


def list_crops(folders: Sequence[Path]) -> CropFolder:
    """All crops ``<subject>/<frame>.jpg`` below some folders.

    Raises:
        InputError: there is no subject folder with a crop, or a subject's crops lie in two folders.
    """
    subjects: dict[str, list[tuple[int, Path]]] = {}
    others: dict[str, int] = {}
    for name, entry in _subject_folders(folders).items():
        crops, other = _crops_of_subject(entry)
        if crops:
            subjects[name] = sorted(crops)
        if other:
            others[name] = other
    if not subjects:
        raise InputError(f"{folders[0]}: expected folders <subject>/00001.jpg, found no crop")
    return CropFolder(subjects, others)


def _subject_folders(folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
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


def _crops_of_subject(folder: Path) -> tuple[list[tuple[int, Path]], int]:
    crops, other = [], 0
    for name, path in _files(folder):
        match = _CROP_NAME.fullmatch(name)
        if match and 1 <= int(match[1]) <= MAX_FRAME:
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


def _names_in(path: Path) -> set[str]:
    """Subjects that the lines of a list name: ``subject`` or ``subject/00001.jpg,...``."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        return {line.split(",", 1)[0].split("/", 1)[0].strip() for line in lines}


def is_utf8(name: str) -> bool:
    """Whether a file's name is text; on disk it may be any bytes."""
    return not any("\udc80" <= c <= "\udcff" for c in name)


def file_state(path: Path) -> list[int]:
    """Size in bytes and time of the last change in ns; -1, -1 if there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return [-1, -1]
    return [stat.st_size, stat.st_mtime_ns]


def check_unchanged(path: Path, before: list[int]) -> None:
    """That a file is as it was.

    Raises:
        InputError: it has changed, or is gone.
    """
    now = file_state(path)
    if now != list(before):
        problem = "it was changed" if now[0] == before[0] else f"{before[0]:,} bytes became {now[0]:,}"
        problem = "it is gone" if now[0] < 0 else problem
        raise InputError(f"{path}: expected a file that stays as it is, got: {problem}; run again when it is complete")
