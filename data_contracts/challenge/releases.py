"""Find the organisers' annotation folders and test lists below a folder.

Releases are unpacked in many ways: one inside the other, side by side, renamed by a file manager. All candidates are
returned; the caller refuses several.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.challenge.annotations import MTL_FILES, set_of_folder
from data_contracts.challenge.editions import challenge_of_folder, task_of_test_list
from data_contracts.files.inputs import split_entries
from data_contracts.files.locations import Location
from data_contracts.vocabulary import TaskName

# Levels below the given folder that are searched for a challenge's folder: labels/ABAW5/5th ABAW Annotations/EXPR...
_MAX_DEPTH = 4


@dataclass
class Releases:
    """Candidates below a folder, by name.

    Attributes:
        annotations: task -> challenges' folders.
        test_lists: task -> lists of subjects or frames.
        archives: zip files, which are not read.
        unreadable: a line for each other folder that cannot be read.
    """

    annotations: dict[TaskName, tuple[Location, ...]] = field(default_factory=dict)
    test_lists: dict[TaskName, tuple[Location, ...]] = field(default_factory=dict)
    archives: tuple[Location, ...] = ()
    unreadable: tuple[str, ...] = ()


def find_releases(root: Location, *, is_other_data: Callable[[Location], bool]) -> Releases:
    """Search a folder and its subfolders, except videos, crops (``is_other_data``) and stores.

    A folder that cannot be read is a candidate if it has the name of a challenge; opening it raises the error.
    """
    found, empty = Releases(), dict[TaskName, list[Location]]()
    queue = [(root, 0)]
    for folder, depth in queue:
        named = challenge_of_folder(folder.name)
        try:
            folders, files = split_entries(folder)
        except OSError as error:
            if named is None:
                found.unreadable += (f"{folder}: expected a folder that can be read, got: {error.strerror}",)
            else:
                _add(found.annotations, named, folder)
            continue
        found.archives += tuple(path for path in files if path.suffix.lower() == ".zip")
        for path in files:
            if task := task_of_test_list(path.name):
                _add(found.test_lists, task, path)
        task = "mtl" if _has_multi_task_lists(files) else named
        if task and (task == "mtl" or any(set_of_folder(path.name) for path in [*folders, *files])):
            _add(found.annotations, task, folder)
            continue
        if task:
            empty.setdefault(task, []).append(folder)
        for path in files:
            if (task := challenge_of_folder(path.name)) and not path.suffix:
                empty.setdefault(task, []).append(path)
        if depth < _MAX_DEPTH:
            queue += [(path, depth + 1) for path in folders if not _is_of_a_store(path) and not is_other_data(path)]
    for task, folders in empty.items():
        found.annotations.setdefault(task, tuple(folders))
    return found


def _has_multi_task_lists(files: list[Location]) -> bool:
    names = {name for names in MTL_FILES.values() for name in names}
    return any(path.name.lower() in names for path in files)


def _is_of_a_store(folder: Location) -> bool:
    """Return whether a folder is a partition of a dataset, as in ``task=expr``."""
    return "=" in folder.name


def _add(candidates: dict[TaskName, tuple[Location, ...]], task: TaskName, path: Location) -> None:
    """Add a candidate unless it is a link to an earlier one."""
    known = candidates.get(task, ())
    if not any(_real_path(path) == _real_path(one) for one in known):
        candidates[task] = tuple(sorted((*known, path), key=str))


def _real_path(path: Location) -> str:
    return os.path.realpath(path) if isinstance(path, Path) else str(path)
