"""Editions of the challenge: their tasks, the headers of their files, and the names of their folders and lists.

For a single task, ABAW3 requires one file per subject. Since ABAW5, a submission is one file with the rows of a sample
file that the organisers publish. For multi-task learning, a submission is one file with listed rows in all editions.
"""

import re
from typing import Literal, get_args

from data_contracts.errors import InputError
from data_contracts.files.locations import Location
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS, EditionName, TaskName

RowsBy = Literal["subject", "frame"]
EDITIONS: tuple[EditionName, ...] = get_args(EditionName)

TASKS_OF_EDITION: dict[EditionName, tuple[TaskName, ...]] = {
    "abaw3": ("expr", "va", "au", "mtl"),
    "abaw4": ("mtl",),
    "abaw5": ("expr", "va", "au"),
    "abaw6": ("expr", "va", "au"),
    "abaw7": ("mtl",),
    "abaw8": ("expr", "va", "au"),
}
# First lines of annotation files, and of ABAW3's submission files.
HEADERS: dict[TaskName, str] = {
    "expr": ",".join(EXPRESSIONS),
    "va": "valence,arousal",
    "au": ",".join(ACTION_UNITS),
    "mtl": "image,valence,arousal,expression,aus",
}
VALUE_COLUMNS: dict[TaskName, int] = {"expr": 1, "va": 2, "au": 12, "mtl": 15}

# Names in ABAW3. The patterns below also match the names of later editions.
ABAW3_FOLDERS: dict[TaskName, str] = {
    "expr": "EXPR_Classification_Challenge",
    "va": "VA_Estimation_Challenge",
    "au": "AU_Detection_Challenge",
    "mtl": "MTL_Challenge",
}
ABAW3_TEST_LISTS: dict[TaskName, str] = {
    "expr": "Expression_Classification_Challenge_test_set_release.txt",
    "va": "Valence_Arousal_Estimation_Challenge_test_set_release.txt",
    "au": "Action_Unit_Detection_Challenge_test_set_release.txt",
    "mtl": "Multi_Task_Learning_Challenge_test_set_release.txt",
}
_CHALLENGE_FOLDERS: dict[TaskName, re.Pattern[str]] = {
    "expr": re.compile(r"expr(ession)?_(classification|recognition)_challenge", re.IGNORECASE),
    "va": re.compile(r"(va|valence_arousal)_estimation_challenge", re.IGNORECASE),
    "au": re.compile(r"(au|action_unit)_detection_challenge", re.IGNORECASE),
    "mtl": re.compile(r"(mtl|multi_task_learning)_challenge", re.IGNORECASE),
}
_RELEASES: dict[TaskName, str] = {
    "expr": r"expression_(classification|recognition)_challenge_test_set_release\.txt",
    "va": r"valence_arousal_estimation_challenge_test_set_release\.txt",
    "au": r"action_unit_detection_challenge_test_set_release\.txt",
    "mtl": r"(multi_task_learning|mtl)_challenge_test_set_release\.txt|mtl\.txt",
}
_SAMPLE = r"cvpr_\d+th_abaw_{}_test_set_(sample|example)\.txt"
_TEST_LISTS: dict[TaskName, re.Pattern[str]] = {
    task: re.compile(rf"{release}|{_SAMPLE.format(task)}", re.IGNORECASE) for task, release in _RELEASES.items()
}
# What file managers add to the name of a copy.
_COPY_OF_LIST = re.compile(r"^copy of |( - copy)?( ?\(\d+\))?(?=\.txt$)", re.IGNORECASE)
_EDITION_IN_NAME = re.compile(r"cvpr_(\d+)th_abaw", re.IGNORECASE)


def challenge_of_folder(name: str) -> TaskName | None:
    """Return the task whose annotations are in a folder of this name, in any edition, also for copies (``... (1)``)."""
    name = re.sub(r"[\s\-]", "_", name)
    found = ((task, pattern.match(name)) for task, pattern in _CHALLENGE_FOLDERS.items())
    return next((task for task, match in found if match and not name[match.end() :][:1].isalnum()), None)


def task_of_test_list(name: str) -> TaskName | None:
    """Return the task whose test list or sample file has this name, in any edition, also for copies (``... (1)``)."""
    plain = _COPY_OF_LIST.sub("", name)
    return next((task for task, pattern in _TEST_LISTS.items() if pattern.fullmatch(plain)), None)


def rows_by(edition: EditionName, task: TaskName) -> RowsBy:
    """Return ``subject`` if a submission has a file per subject, ``frame`` if it has a row per listed frame."""
    return "subject" if edition == "abaw3" and task != "mtl" else "frame"


def submission_header(task: TaskName, by: RowsBy) -> str:
    """Return the first line of a submission file."""
    return HEADERS[task] if by == "subject" or task == "mtl" else f"image_location,{HEADERS[task]}"


def task_of_header(line: str) -> TaskName | None:
    """Return the task whose lists of frames, or submissions with a row per frame, start with this line.

    Multi-task lists start with ``image`` alone, other lists with ``image_location``, with or without names of columns.
    """
    header = ",".join(name.strip() for name in line.strip().rstrip(",").split(",")).lower()
    if header == "image":
        return "mtl"
    return next((task for task in HEADERS if submission_header(task, "frame").lower() == header), None)


def stated_edition(name: str, task: TaskName) -> EditionName | None:
    """Return the edition that the name of a test list or sample file states."""
    plain = _COPY_OF_LIST.sub("", name).lower()
    if found := _EDITION_IN_NAME.match(plain):
        return next((edition for edition in EDITIONS if edition == f"abaw{found[1]}"), None)
    prefixes: dict[str, EditionName] = {"multi_task_": "abaw3", "mtl_challenge_": "abaw4"} if task == "mtl" else {}
    return next((edition for prefix, edition in prefixes.items() if plain.startswith(prefix)), None)


def edition_of_list(path: Location, task: TaskName, by: RowsBy) -> EditionName:
    """Return the edition that the name of a test list states, else the latest that uses such lists."""
    fitting = [e for e in EDITIONS if task in TASKS_OF_EDITION[e] and rows_by(e, task) == by]
    # Only ABAW3 uses lists of subjects; check_edition refuses one for mtl.
    return stated_edition(path.name, task) or (fitting[-1] if fitting else "abaw3")


def check_edition(edition: EditionName, task: TaskName, by: RowsBy, path: Location) -> None:
    """Check that an edition has the task, and that the list at ``path`` has the kind that the edition uses.

    Raises:
        InputError: the edition does not have the task, or uses the other kind of list.
    """
    if task not in TASKS_OF_EDITION[edition]:
        raise InputError(f"{edition}: expected one of its tasks ({', '.join(TASKS_OF_EDITION[edition])}), got {task}")
    if rows_by(edition, task) != by:
        kinds = {"subject": "a list of subjects", "frame": "a list of frames (the organisers' sample file)"}
        raise InputError(f"{path}: expected {kinds[rows_by(edition, task)]} for {edition} {task}, got {kinds[by]}")
