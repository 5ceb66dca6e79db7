"""Generate a small data set in the ABAW3 layout of the organisers, from two public-domain portraits in packages."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from PIL import Image

from data_contracts.challenge.editions import ABAW3_FOLDERS, ABAW3_TEST_LISTS, HEADERS
from data_contracts.errors import InputError
from data_contracts.vocabulary import ACTION_UNITS, SetName, TaskName
from models.faces.crops import encode_jpeg
from models.faces.detection import DetectorParams
from tasks.demo.face_warp import PATCH_PX, cut_face_patch, soft_oval, warp_face
from tasks.demo.people import Appearance, Performance, make_appearance, make_performance
from tasks.worker_models import get_detector

_WIDTH, _HEIGHT, _FPS = 320, 240, 25


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
    people: dict[str, tuple[Appearance, Performance]]


def generate_demo_data(root: Path, *, params: DemoDataParams | None = None, seed: int = 0) -> DemoDataSummary:
    """Write videos, annotations of all four tasks, and test lists below ``root``. Equal seeds give equal labels.

    Raises:
        InputError: the packages with the portraits are not installed.
    """
    params = params or DemoDataParams()
    patches = [_patch(portrait) for portrait in load_portraits()]
    scenes = list(_scenes(params, np.random.default_rng(seed)))
    summary = DemoDataSummary()
    (root / "videos").mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        path = root / "videos" / f"{scene.stem}{scene.suffix}"
        _write_video(path, _render_frames(scene, patches, np.random.default_rng([seed, number])))
        summary.subjects.setdefault(scene.set_name, []).extend(scene.people)
        summary.frames += params.frames
    summary.corrupt_file = root / "videos" / "corrupt.mp4"
    summary.corrupt_file.write_bytes((root / "videos" / f"{scenes[0].stem}{scenes[0].suffix}").read_bytes()[:2000])
    _write_annotations(root / "Third ABAW Annotations", scenes)
    _write_test_lists(root / "names_of_videos_in_each_test_set", scenes)
    if params.crops:
        _write_crops(root / "cropped", [scene for scene in scenes if scene.set_name == "validation"], patches)
    return summary


def load_portraits() -> list[np.ndarray]:
    """Return two public-domain portraits, RGB uint8: Grace Hopper (US Navy) and Eileen Collins (NASA).

    Raises:
        InputError: matplotlib or scikit-image is not installed.
    """
    try:
        from matplotlib.cbook import get_sample_data
        from skimage.data import astronaut
    except ImportError as error:
        raise InputError(
            f"demo: expected the packages of the demo extra, missing {error.name}; install affwild2[demo]"
        ) from error
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        return [np.asarray(image.convert("RGB")), np.asarray(astronaut())]


def _patch(portrait: np.ndarray) -> np.ndarray:
    (found,) = get_detector(DetectorParams()).detect(portrait[None])
    assert len(found), "found no face in a portrait"
    return cut_face_patch(portrait, found.landmarks_xy_px[0])


def _scenes(params: DemoDataParams, random: np.random.Generator) -> Iterator[_Scene]:
    person = 0
    counts: dict[SetName, int] = {"train": params.train, "validation": params.validation, "test": params.test}
    for set_name, count in counts.items():
        for number in range(1, count + 1):
            stem = f"{set_name}{number:02d}"
            together = number == count and set_name != "validation"
            centres = {"_left": (86.0, 120.0), "_right": (236.0, 120.0)} if together else {"": (160.0, 120.0)}
            people = {}
            for side, centre in centres.items():
                leaves = number % 3 == 1 and not together
                performance = make_performance(params.frames, leaves=leaves, random=random)
                people[stem + side] = make_appearance(person, centre_xy=centre, random=random), performance
                person += 1
            yield _Scene(stem, set_name, ".avi" if set_name == "train" and number == 2 else ".mp4", people)


def _render_frames(scene: _Scene, patches: list[np.ndarray], random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield RGB uint8 frames: the people in front of a gradient with noise."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float32)
    base, slope = random.uniform(60, 190, 3), random.uniform(-40, 40, (2, 3))
    background = base + (x / _WIDTH)[..., None] * slope[0] + (y / _HEIGHT)[..., None] * slope[1]
    background += random.normal(0, 3, background.shape)
    for at in range(len(next(iter(scene.people.values()))[1].visible)):
        frame = background.copy()
        for appearance, performance in scene.people.values():
            _draw(frame, patches[appearance.portrait], appearance, performance, at)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _draw(frame: np.ndarray, patch: np.ndarray, appearance: Appearance, performance: Performance, at: int) -> None:
    """Draw a person's face at frame index ``at`` into an RGB float frame, if it is visible."""
    if not performance.visible[at]:
        return
    layer = np.dstack([_face(patch, appearance, performance, at), 255 * soft_oval()]).astype(np.uint8)
    layer = layer[:, ::-1] if appearance.mirrored else layer
    time = at / _FPS
    angle = np.deg2rad(3.0) * np.sin(1.7 * time + appearance.phase)
    centre = np.array(appearance.centre_xy)
    centre += appearance.sway_px * np.array([np.sin(time + appearance.phase), np.cos(1.3 * time)])
    cos, sin = np.cos(angle) / appearance.scale, np.sin(angle) / appearance.scale
    shift = PATCH_PX / 2 - np.array([[cos, sin], [-sin, cos]]) @ centre
    matrix = (cos, sin, shift[0], -sin, cos, shift[1])
    size = (frame.shape[1], frame.shape[0])
    placed = Image.fromarray(np.ascontiguousarray(layer), "RGBA").transform(
        size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    values = np.asarray(placed, np.float32)
    alpha = values[..., 3:] / 255
    frame *= 1 - alpha
    frame += alpha * values[..., :3]


def _face(patch: np.ndarray, appearance: Appearance, performance: Performance, at: int) -> np.ndarray:
    """Return the patch of a person's face at frame index ``at``, RGB float in 0..255."""
    action_units = dict(zip(ACTION_UNITS, performance.action_units[at].tolist(), strict=True))
    return np.clip(warp_face(patch, action_units) * np.array(appearance.gain_rgb), 0, 255)


def _write_video(path: Path, frames: Iterator[np.ndarray]) -> None:
    codec = "libx264" if path.suffix == ".mp4" else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=_FPS))
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _FPS)
        stream.gop_size = 25
        if codec == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast", "threads": "1"}
        else:
            stream.bit_rate = 1_500_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_annotations(root: Path, scenes: list[_Scene]) -> None:
    mtl: dict[SetName, list[str]] = {"train": [], "validation": []}
    for scene in scenes:
        if scene.set_name == "test":
            continue
        for subject, (_, performance) in scene.people.items():
            folder = "Train_Set" if scene.set_name == "train" else "Validation_Set"
            values: dict[TaskName, list[str]] = {
                "expr": [str(value) for value in performance.expression_labels],
                "va": [f"{v:.3f},{a:.3f}" for v, a in performance.valence_arousal],
                "au": [",".join(map(str, row)) for row in performance.action_unit_labels],
            }
            for task, lines in values.items():
                path = root / ABAW3_FOLDERS[task] / folder / f"{subject}.txt"
                _write_lines(path, [HEADERS[task], *lines])
            rows = zip(values["va"], values["expr"], values["au"], strict=True)
            # As in the official data, the multi-task set contains only a part of the frames.
            every_second = list(enumerate(rows, start=1))[::2]
            mtl[scene.set_name] += [f"{subject}/{n:05d}.jpg,{v},{e},{a}" for n, (v, e, a) in every_second]
    for set_name, lines in mtl.items():
        name = "train_set.txt" if set_name == "train" else "validation_set.txt"
        _write_lines(root / ABAW3_FOLDERS["mtl"] / name, [HEADERS["mtl"], *lines])


def _write_test_lists(root: Path, scenes: list[_Scene]) -> None:
    people = {s: p for scene in scenes if scene.set_name == "test" for s, (_, p) in scene.people.items()}
    for task, name in ABAW3_TEST_LISTS.items():
        if task != "mtl":
            _write_lines(root / name, list(people))
    frames = [f"{s}/{n:05d}.jpg" for s, p in people.items() for n in range(1, len(p.visible) + 1, 2)]
    _write_lines(root / ABAW3_TEST_LISTS["mtl"], ["image", *frames])


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_crops(root: Path, scenes: list[_Scene], patches: list[np.ndarray]) -> None:
    """Write crops as the organisers do. Every tenth is missing, and one is beyond the last frame."""
    for scene in scenes:
        for subject, (appearance, performance) in scene.people.items():
            (root / subject).mkdir(parents=True, exist_ok=True)
            for at in range(len(performance.visible) + 1):
                now = min(at, len(performance.visible) - 1)
                if not performance.visible[now] or at % 10 == 9:
                    continue
                face = _face(patches[appearance.portrait], appearance, performance, now)
                image = Image.fromarray(face.astype(np.uint8)).resize((112, 112), Image.Resampling.BILINEAR)
                (root / subject / f"{at + 1:05d}.jpg").write_bytes(encode_jpeg(np.asarray(image)))
