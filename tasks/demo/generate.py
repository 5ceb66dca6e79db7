"""Generate a small data set in the ABAW3 layout of the organisers, from two public-domain portraits in packages."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_contracts.challenge.editions import HEADERS
from data_contracts.vocabulary import BRANCHES, SetName
from models.faces.crops import encode_jpeg
from tasks.challenge_files import (
    annotation_file,
    format_annotations,
    format_multi_task_rows,
    images_of,
    list_file,
    multi_task_file,
    multi_task_list_lines,
    to_text,
    write_text,
)
from tasks.demo.people import make_appearance, make_performance
from tasks.demo.scenes import (
    ALIGNED_PX,
    ALONE_XY,
    LEFT_XY,
    RIGHT_XY,
    Person,
    crop_of,
    render_frames,
    write_video,
)


@dataclass(frozen=True)
class DemoDataParams:
    """Numbers of videos per set, and of frames per video. The last video of the train and test set shows two people.

    ``crops``: also write folders of crops for the validation subjects. Some crops are missing, and one is beyond the
    end of the video.
    """

    train: int = 8
    validation: int = 4
    test: int = 3
    frames: int = 48
    crops: bool = False


@dataclass
class DemoDataSummary:
    """Subjects per set, number of frames, and the file that is corrupt on purpose."""

    subjects: dict[SetName, list[str]] = field(default_factory=dict)
    frames: int = 0
    corrupt_file: Path = Path()


@dataclass(frozen=True, eq=False)
class _Scene:
    stem: str
    set_name: SetName
    suffix: str
    people: list[Person]


def generate_demo_data(root: Path, *, params: DemoDataParams | None = None, seed: int = 0) -> DemoDataSummary:
    """Write videos, annotations of all four tasks, and test lists below ``root``. Equal seeds give equal labels.

    Raises:
        InputError: the packages with the portraits are not installed.
    """
    params = params or DemoDataParams()
    scenes = list(_scenes(params, np.random.default_rng(seed)))
    summary = DemoDataSummary()
    (root / "videos").mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        path = root / "videos" / f"{scene.stem}{scene.suffix}"
        write_video(path, render_frames(scene.people, np.random.default_rng([seed, number])))
        summary.subjects.setdefault(scene.set_name, []).extend(person.subject for person in scene.people)
        summary.frames += params.frames
    summary.corrupt_file = root / "videos" / "corrupt.mp4"
    summary.corrupt_file.write_bytes((root / "videos" / f"{scenes[0].stem}{scenes[0].suffix}").read_bytes()[:2000])
    _write_annotations(root, scenes)
    _write_test_lists(root, _people_of(scenes, "test"))
    if params.crops:
        _write_crops(root / "cropped", _people_of(scenes, "validation"))
    return summary


def _scenes(params: DemoDataParams, random: np.random.Generator) -> Iterator[_Scene]:
    person = 0
    counts: dict[SetName, int] = {"train": params.train, "validation": params.validation, "test": params.test}
    for set_name, count in counts.items():
        for number in range(1, count + 1):
            stem = f"{set_name}{number:02d}"
            together = number == count and set_name != "validation"
            centres = {"_left": LEFT_XY, "_right": RIGHT_XY} if together else {"": ALONE_XY}
            people = []
            for side, centre in centres.items():
                leaves = number % 3 == 1 and not together
                performance = make_performance(params.frames, leaves=leaves, random=random)
                appearance = make_appearance(person, centre_xy=centre, random=random)
                people.append(Person(stem + side, appearance, performance))
                person += 1
            yield _Scene(stem, set_name, ".avi" if set_name == "train" and number == 2 else ".mp4", people)


def _people_of(scenes: list[_Scene], set_name: SetName) -> list[Person]:
    return [person for scene in scenes if scene.set_name == set_name for person in scene.people]


def _write_annotations(root: Path, scenes: list[_Scene]) -> None:
    rows: dict[SetName, list[str]] = {"train": [], "validation": []}
    for scene in scenes:
        if scene.set_name == "test":
            continue
        for person in scene.people:
            labels = person.performance.labels
            for task in BRANCHES:
                path = annotation_file(root, "abaw3", task, scene.set_name, person.subject)
                write_text(path, format_annotations(task, labels[task]))
            # As in the official data, the multi-task set contains only a part of the frames.
            frames = _every_second_frame(person)
            listed = {branch: values[frames - 1] for branch, values in labels.items()}
            rows[scene.set_name] += format_multi_task_rows(person.subject, frames, listed)
    for set_name, lines in rows.items():
        write_text(multi_task_file(root, "abaw3", set_name), to_text([HEADERS["mtl"], *lines]))


def _write_test_lists(root: Path, people: list[Person]) -> None:
    for task in BRANCHES:
        write_text(list_file(root, "abaw3", task), to_text(person.subject for person in people))
    images = [image for person in people for image in images_of(person.subject, _every_second_frame(person))]
    write_text(list_file(root, "abaw3", "mtl"), to_text(multi_task_list_lines("abaw3", images)))


def _every_second_frame(person: Person) -> np.ndarray:
    return np.arange(1, len(person.performance.visible) + 1, 2)


def _write_crops(root: Path, people: list[Person]) -> None:
    """Write crops as the organisers do. Every tenth is missing, and one is beyond the last frame."""
    for person in people:
        (root / person.subject).mkdir(parents=True, exist_ok=True)
        visible = person.performance.visible
        for at in range(len(visible) + 1):
            now = min(at, len(visible) - 1)
            if visible[now] and at % 10 != 9:
                crop = encode_jpeg(crop_of(person, now, size_px=ALIGNED_PX))
                (root / person.subject / f"{at + 1:05d}.jpg").write_bytes(crop)
