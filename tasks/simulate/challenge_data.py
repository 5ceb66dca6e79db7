"""Write the annotations, test lists and sample files of a simulated data set, in a folder per edition.

All editions get the subjects and labels of ABAW3, without the 30 subjects that ABAW5 added for valence and arousal.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from data_contracts.challenge.editions import EDITIONS, HEADERS, TASKS_OF_EDITION
from data_contracts.vocabulary import BRANCHES, BranchName, EditionName, SetName
from tasks.challenge_files import (
    annotation_file,
    format_annotations,
    format_multi_task_rows,
    images_of,
    list_file,
    multi_task_file,
    multi_task_list_lines,
    sample_file,
    sample_header,
    sample_rows,
    to_text,
    write_text,
)
from tasks.simulate import published
from tasks.simulate.labels import CODE_VERSION, SubjectLabels
from tasks.simulate.plan import SimulatedSubject, SimulationPlan

_FITTING: tuple[SetName, ...] = ("train", "validation")
# A file in the folder of the data, for people who find it.
NOTICE = "SIMULATED.txt"
_NOTICE_TEXT = (
    "Simulated data with the layout and statistics of Aff-Wild2, written by affwild2 simulate (scale {scale:g}, seed "
    "{seed}, version {version}).\nNo person, video, face or label of Aff-Wild2 is in it.\n"
)
# Measured at scale 1: 567 MB of all editions for 2,702,376 frames.
BYTES_PER_FRAME = 210


def write_challenge_data(
    root: Path, plan: SimulationPlan, labelled: Iterable[tuple[SimulatedSubject, SubjectLabels]]
) -> Path:
    """Write the files of all editions below ``root``, as in ``root/abaw3/Third ABAW Annotations``; return ``root``.

    The notice in ``root`` is written last: with it, the files are complete, and a repeated call does nothing. Equal
    plans give equal files. Memory does not depend on the number of subjects, apart from the multi-task lists.

    Args:
        labelled: all subjects of the plan in its order, each with its labels.
    """
    notice, text = root / NOTICE, _NOTICE_TEXT.format(scale=plan.scale, seed=plan.seed, version=CODE_VERSION)
    if notice.exists() and notice.read_text() == text:
        return root
    notice.unlink(missing_ok=True)
    _write_name_lists(root, plan)
    rows: dict[SetName, list[tuple[str, bool]]] = {name: [] for name in ("train", "validation", "test")}
    with contextlib.ExitStack() as stack:
        samples = {key: stack.enter_context(file) for key, file in _open_samples(root)}
        for subject, labels in labelled:
            _write_annotations(root, subject, labels)
            _write_samples(samples, subject)
            if set_name := subject.sets.get("mtl"):
                rows[set_name] += _multi_task_rows(plan, subject, labels, is_test=set_name == "test")
    _write_multi_task_lists(root, rows)
    write_text(notice, text)
    return root


def _of_single_tasks() -> Iterator[tuple[EditionName, BranchName]]:
    return ((edition, task) for edition in EDITIONS for task in BRANCHES if task in TASKS_OF_EDITION[edition])


def _write_name_lists(root: Path, plan: SimulationPlan) -> None:
    for edition, task in _of_single_tasks():
        names = [subject.name for subject in plan.of_set(task, "test")]
        write_text(list_file(root / edition, edition, task), to_text(names))


def _write_annotations(root: Path, subject: SimulatedSubject, labels: SubjectLabels) -> None:
    texts = {task: format_annotations(task, values) for task, values in labels.branches.items()}
    for edition, task in _of_single_tasks():
        set_name = subject.sets.get(task)
        if set_name in _FITTING:
            write_text(annotation_file(root / edition, edition, task, set_name, subject.name), texts[task])


def _open_samples(root: Path) -> Iterator[tuple[tuple[EditionName, BranchName], IO[str]]]:
    for edition, task in _of_single_tasks():
        if path := sample_file(root / edition, edition, task):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w", encoding="utf-8")
            file.write(to_text([sample_header(task)]))
            yield (edition, task), file


def _write_samples(samples: dict[tuple[EditionName, BranchName], IO[str]], subject: SimulatedSubject) -> None:
    images: list[str] = []
    for (edition, task), file in samples.items():
        if subject.sets.get(task) == "test":
            images = images or images_of(subject.name, range(1, subject.frames + 1))
            file.write(to_text(sample_rows(edition, task, images)))


def _multi_task_rows(
    plan: SimulationPlan, subject: SimulatedSubject, labels: SubjectLabels, *, is_test: bool
) -> list[tuple[str, bool]]:
    """Return the rows of a subject, and whether each has a crop. Rows of the test set are names."""
    frames = labels.mtl_frames
    rows = images_of(subject.name, frames) if is_test else format_multi_task_rows(subject.name, frames, labels.mtl)
    return list(zip(rows, np.asarray(~plan.missing(subject)[frames - 1]).tolist(), strict=True))


def _write_multi_task_lists(root: Path, rows: dict[SetName, list[tuple[str, bool]]]) -> None:
    """Write the lists of ABAW3, ABAW4 and ABAW7. Later ones have no rows without a crop, and fewer test rows."""
    for edition in EDITIONS:
        if "mtl" not in TASKS_OF_EDITION[edition]:
            continue
        is_first = edition == "abaw3"
        for set_name in _FITTING:
            lines = [row for row, has_crop in rows[set_name] if is_first or has_crop]
            write_text(multi_task_file(root / edition, edition, set_name), to_text([HEADERS["mtl"], *lines]))
        listed = [image for image, _ in rows["test"]]
        if not is_first:
            listed = listed[: round(len(listed) * published.MTL_LATER_TEST_ROWS / published.MTL_TEST_ROWS)]
        write_text(list_file(root / edition, edition, "mtl"), to_text(multi_task_list_lines(edition, listed)))
