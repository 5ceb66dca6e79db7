"""Write annotations, test lists and sample files as the organisers distribute them, with the names of every edition.

Names of the folders around them that no source states (``4th ABAW Annotations`` and later) follow those of ABAW3.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_contracts.challenge.annotations import MTL_FILES, SET_FOLDERS
from data_contracts.challenge.editions import ABAW3_FOLDERS, ABAW3_TEST_LISTS, HEADERS, submission_header
from data_contracts.vocabulary import BRANCHES_OF_TASK, BranchName, EditionName, SetName, TaskName

Labels = Mapping[BranchName, np.ndarray]
NAME_LISTS = "names_of_videos_in_each_test_set"
_SAMPLES = "prediction_files_format"
_DUMMY_VALUES: dict[BranchName, str] = {"expr": "0", "va": "0.5,-0.5", "au": ",".join("0" * 12)}


@dataclass(frozen=True)
class _Release:
    """Names and forms of the files of one edition.

    Attributes:
        annotations: folder of the challenges' folders.
        folders: challenge's folder of each task.
        lists: list of subjects of each task; of frames for ``mtl``.
        samples: sample file of each task.
        has_dummy_values: whether the rows of sample files have values, which are no predictions.
        row_end: after each name in the multi-task list.
    """

    annotations: str
    folders: Mapping[TaskName, str]
    lists: Mapping[TaskName, str]
    samples: Mapping[BranchName, str] = field(default_factory=dict)
    has_dummy_values: bool = False
    row_end: str = ""


_LATER_FOLDERS: dict[TaskName, str] = {task: name for task, name in ABAW3_FOLDERS.items() if task != "mtl"}
_LATER_LISTS: dict[TaskName, str] = {task: name for task, name in ABAW3_TEST_LISTS.items() if task != "mtl"}
_RECOGNITION: dict[TaskName, str] = {"expr": "EXPR_Recognition_Challenge"}
_RECOGNITION_LIST: dict[TaskName, str] = {"expr": "Expression_Recognition_Challenge_test_set_release.txt"}
_MTL_FOLDER: dict[TaskName, str] = {"mtl": ABAW3_FOLDERS["mtl"]}


def _samples(number: int, kind: str, expr: str) -> dict[BranchName, str]:
    names: dict[BranchName, str] = {"expr": expr, "va": "VA", "au": "AU"}
    return {task: f"CVPR_{number}th_ABAW_{name}_test_set_{kind}.txt" for task, name in names.items()}


_RELEASES: dict[EditionName, _Release] = {
    "abaw3": _Release("Third ABAW Annotations", ABAW3_FOLDERS, ABAW3_TEST_LISTS),
    "abaw4": _Release("4th ABAW Annotations", _MTL_FOLDER, {"mtl": "MTL_Challenge_test_set_release.txt"}),
    "abaw5": _Release("5th ABAW Annotations", _LATER_FOLDERS, _LATER_LISTS, _samples(5, "sample", "EXPR")),
    "abaw6": _Release(
        "6th ABAW Annotations",
        _LATER_FOLDERS | _RECOGNITION,
        _LATER_LISTS | _RECOGNITION_LIST,
        _samples(6, "example", "Expr"),
        has_dummy_values=True,
    ),
    "abaw7": _Release("7th ABAW Annotations", _MTL_FOLDER, {"mtl": "MTL.txt"}, row_end=","),
    "abaw8": _Release(
        "8th ABAW Annotations",
        _LATER_FOLDERS | _RECOGNITION,
        _LATER_LISTS | _RECOGNITION_LIST,
        _samples(8, "sample", "Expr"),
        has_dummy_values=True,
    ),
}


def annotation_file(root: Path, edition: EditionName, task: BranchName, set_name: SetName, subject: str) -> Path:
    """Return the path of the annotations of one subject. ``root``: folder of the edition."""
    release = _RELEASES[edition]
    return root / release.annotations / release.folders[task] / SET_FOLDERS[set_name] / f"{subject}.txt"


def multi_task_file(root: Path, edition: EditionName, set_name: SetName) -> Path:
    """Return the path of the multi-task annotations of a set."""
    release = _RELEASES[edition]
    name = MTL_FILES[set_name][edition != "abaw3"]
    return root / release.annotations / release.folders["mtl"] / name


def list_file(root: Path, edition: EditionName, task: TaskName) -> Path:
    """Return the path of the list of test subjects of a task; of test frames for ``mtl``."""
    return root / NAME_LISTS / _RELEASES[edition].lists[task]


def sample_file(root: Path, edition: EditionName, task: BranchName) -> Path | None:
    """Return the path of the sample file of test frames of a task; None if the edition has none."""
    name = _RELEASES[edition].samples.get(task)
    return root / _SAMPLES / name if name else None


def format_annotations(task: BranchName, values: np.ndarray) -> str:
    """Return the annotations of one subject: a header, then a line per frame.

    ``values``: as of ``format_rows``.
    """
    return to_text([HEADERS[task], *format_rows({task: values}, (task,))])


def format_rows(labels: Labels, order: Sequence[BranchName]) -> list[str]:
    """Return the comma-separated labels of each frame, in the order of some branches.

    Numbers have as many digits as their values of 32 bits need, so that reading returns equal values.

    Args:
        labels: expr int8 [n], va float32 [n, 2], au int8 [n, 12]; without a label -1, NaN, -1. Files carry -1, -5 (both
            values of the pair), -1.
    """
    return [",".join(row) for row in zip(*(_texts(branch, labels[branch]) for branch in order), strict=True)]


def _texts(branch: BranchName, values: np.ndarray) -> list[str]:
    if branch == "va":
        known = np.isfinite(values).all(axis=1)
        texts = [",".join(pair) for pair in np.asarray(values, np.float32).astype(str).tolist()]
        return [text if is_known else "-5,-5" for text, is_known in zip(texts, known.tolist(), strict=True)]
    if branch == "au":
        return list(map(_text_of_units, map(tuple, values.tolist())))
    return list(map(str, values.tolist()))


@functools.lru_cache(maxsize=1 << 14)
def _text_of_units(units: tuple[int, ...]) -> str:
    return ",".join(map(str, units))


def format_multi_task_rows(subject: str, frames: np.ndarray, labels: Labels) -> list[str]:
    """Return rows of a multi-task list: name of the frame, valence, arousal, expression, action units.

    ``frames``: int [n], 1-based, possibly repeated. ``labels``: of these rows, as in ``format_rows``.
    """
    rows = format_rows(labels, BRANCHES_OF_TASK["mtl"])
    return [f"{image},{row}" for image, row in zip(images_of(subject, frames), rows, strict=True)]


def images_of(subject: str, frames: Iterable[int] | np.ndarray) -> list[str]:
    """Return the names of frames in lists: ``subject/00001.jpg``."""
    return [f"{subject}/{frame:05d}.jpg" for frame in frames]


def multi_task_list_lines(edition: EditionName, images: Iterable[str]) -> Iterable[str]:
    """Yield the lines of the list of test frames: a header, then names without values."""
    end = _RELEASES[edition].row_end
    yield f"image{end}"
    for image in images:
        yield f"{image}{end}"


def sample_header(task: BranchName) -> str:
    """Return the first line of a sample file."""
    return submission_header(task, "frame")


def sample_rows(edition: EditionName, task: BranchName, images: Iterable[str]) -> list[str]:
    """Return rows of a sample file: names with empty values (ABAW5) or with dummy values (later)."""
    values = _DUMMY_VALUES[task] if _RELEASES[edition].has_dummy_values else ""
    return [f"{image},{values}" for image in images]


def to_text(lines: Iterable[str]) -> str:
    """Return the text of a file with these lines."""
    return "\n".join(lines) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file, and its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
