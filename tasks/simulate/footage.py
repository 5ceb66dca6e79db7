"""Write the videos and the organisers' crops of a small simulated data set, with generated faces.

Faces show the action units of the labels, or some if a subject has none, and are absent in frames without a crop.
Videos whose container claims another number of frames than it holds are AVI files; half of the others are MP4 files.
"""

import os
import struct
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS
from models.faces.crops import encode_jpeg
from tasks.demo.people import Performance, make_appearance, make_performance
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
from tasks.simulate.labels import SubjectLabels
from tasks.simulate.plan import SimulatedSubject, SimulationPlan

# Larger data sets have features only: every frame is drawn, and is two more files.
MOST_FRAMES = 10_000
# Measured: two crops in blocks of 4 KiB, and the frame of the video.
BYTES_PER_FRAME = 30_000
_STREAM = 7
_CROP_PX = 144
# One subject in this number is in the folders of fifty more videos, as 31 of 595 are since ABAW5.
_NEW_EVERY = 19
_UNFINISHED = ".unfinished"


def has_footage(plan: SimulationPlan) -> bool:
    """Return whether a data set is small enough for videos and crops."""
    return plan.frames <= MOST_FRAMES


def write_footage(
    root: Path,
    plan: SimulationPlan,
    labels_of: Callable[[SimulatedSubject], SubjectLabels],
    *,
    advance: Callable[[str], None] = lambda video: None,
) -> None:
    """Write ``videos/``, ``cropped/`` and ``cropped_aligned/`` below ``root``, or those that are missing.

    A video appears when it is complete, after its crops: an interrupted call can be repeated.

    Args:
        advance: called with the name of each finished video.
    """
    for leftover in root.glob(f"{_UNFINISHED}.*"):
        leftover.unlink()
    for stem, group in groupby(plan.subjects, key=lambda subject: subject.video):
        subjects = list(group)
        path = root / "videos" / f"{stem}{_suffix(subjects[0])}"
        if not path.exists():
            people = [_person(plan, subject, labels_of(subject), len(subjects)) for subject in subjects]
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = root / f"{_UNFINISHED}{path.suffix}"
            random = np.random.default_rng([plan.seed, _STREAM, subjects[0].number])
            folders = [_crop_folders(root, subject) for subject in subjects]
            write_video(unfinished, _frames_and_crops(people, folders, random))
            if path.suffix == ".avi":
                claim_frames(unfinished, subjects[0].container_count)
            os.replace(unfinished, path)
        advance(stem)


def _suffix(subject: SimulatedSubject) -> str:
    return ".avi" if subject.container_count != subject.frames or subject.number % 2 else ".mp4"


def _person(plan: SimulationPlan, subject: SimulatedSubject, labels: SubjectLabels, people: int) -> Person:
    centre = ALONE_XY if people == 1 else LEFT_XY if subject.name.endswith("_left") else RIGHT_XY
    random = np.random.default_rng([plan.seed, _STREAM, subject.number, 1])
    appearance = make_appearance(subject.number, centre_xy=centre, random=random)
    visible = ~plan.missing(subject)
    performance = make_performance(subject.frames, leaves=False, random=random)
    shown = performance.action_units.round(1)
    if "au" in labels.branches:
        shown = np.maximum(labels.branches["au"], 0).astype(float)
    assert shown.shape == (subject.frames, len(ACTION_UNITS))
    return Person(subject.name, appearance, Performance(performance.expression, performance.intensity, shown, visible))


def _crop_folders(root: Path, subject: SimulatedSubject) -> dict[Path, int]:
    """Return the folders of a subject's crops, which are made, and the size of their crops in pixels."""
    is_new = subject.number % _NEW_EVERY == _NEW_EVERY - 1
    folders = {}
    for name, size_px in (("cropped", _CROP_PX), ("cropped_aligned", ALIGNED_PX)):
        place = root / f"{name}_new_50_vids" if is_new else root / name / f"batch{1 + subject.number % 2}"
        (place / subject.name).mkdir(parents=True, exist_ok=True)
        folders[place / subject.name] = size_px
    return folders


def _frames_and_crops(
    people: list[Person], folders: list[dict[Path, int]], random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the frames of a video, and write the crops of each frame with it, which draws each face once."""
    for at, frame in enumerate(render_frames(people, random)):
        for person, sizes_px in zip(people, folders, strict=True):
            if person.performance.visible[at]:
                for folder, size_px in sizes_px.items():
                    crop = encode_jpeg(crop_of(person, at, size_px=size_px))
                    (folder / f"{at + 1:05d}.jpg").write_bytes(crop)
        yield frame


def claim_frames(path: Path, count: int) -> None:
    """Set the number of frames that the headers of an AVI file claim; the frames stay as they are.

    Raises:
        ValueError: not an AVI file with one stream of video.
    """
    with path.open("r+b") as file:
        head = file.read(4096)
        for offset in _claims(head):
            file.seek(offset)
            file.write(struct.pack("<I", count))


def _claims(head: bytes) -> Iterator[int]:
    """Yield the offsets of dwTotalFrames in ``avih`` and dwLength in ``strh`` (Microsoft's AVI RIFF reference)."""
    for chunk, offset in ((b"avih", 16), (b"strh", 32)):
        at = head.find(chunk)
        if head[:4] != b"RIFF" or at < 0 or head.count(chunk) != 1:
            raise ValueError("expected an AVI file with one stream")
        # The name and the size of the chunk come before its fields.
        yield at + 8 + offset
