"""Draw people with generated faces: frames of videos, crops of faces, and the video files."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from PIL import Image

from data_contracts.errors import InputError
from data_contracts.video.container import REPEATABLE_X264
from data_contracts.vocabulary import ACTION_UNITS
from models.faces.detection import DetectorParams
from tasks.demo.face_warp import PATCH_PX, cut_face_patch, soft_oval, warp_face
from tasks.demo.people import Appearance, Performance
from tasks.worker_models import get_detector

_WIDTH, _HEIGHT, _FPS = 320, 240, 25
# Faces of this number of different expressions stay in memory: 57 MB.
_FACES_KEPT = 128
# Centres of one and of two faces in the frame, in pixels.
ALONE_XY, LEFT_XY, RIGHT_XY = (160.0, 120.0), (86.0, 120.0), (236.0, 120.0)
# Crops of the organisers are aligned in this size.
ALIGNED_PX = 112


@dataclass(frozen=True, eq=False)
class Person:
    """One person of a video: subject, appearance and expressions."""

    subject: str
    appearance: Appearance
    performance: Performance


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


@functools.cache
def face_patches() -> list[np.ndarray]:
    """Return the face of each portrait, cut out in the size that ``warp_face`` expects.

    Raises:
        InputError: the packages with the portraits are not installed.
    """
    return [_cut_face(portrait) for portrait in load_portraits()]


def _cut_face(portrait: np.ndarray) -> np.ndarray:
    (found,) = get_detector(DetectorParams()).detect(portrait[None])
    assert len(found), "found no face in a portrait"
    return cut_face_patch(portrait, found.landmarks_xy_px[0])


def render_frames(people: list[Person], random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield RGB uint8 frames: the people in front of a gradient with noise."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH].astype(np.float32)
    base, slope = random.uniform(60, 190, 3), random.uniform(-40, 40, (2, 3))
    background = base + (x / _WIDTH)[..., None] * slope[0] + (y / _HEIGHT)[..., None] * slope[1]
    background += random.normal(0, 3, background.shape)
    for at in range(len(people[0].performance.visible)):
        frame = background.copy()
        for person in people:
            _draw(frame, person, at)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _draw(frame: np.ndarray, person: Person, at: int) -> None:
    """Draw a person's face at frame index ``at`` into an RGB float frame, if it is visible."""
    if not person.performance.visible[at]:
        return
    appearance = person.appearance
    layer = np.dstack([face_of(person, at), 255 * soft_oval()]).astype(np.uint8)
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


def face_of(person: Person, at: int) -> np.ndarray:
    """Return the face of a person at frame index ``at``, RGB float [PATCH_PX, PATCH_PX, 3] in 0..255."""
    units = tuple(person.performance.action_units[at].tolist())
    return np.clip(_warped(person.appearance.portrait, units) * np.array(person.appearance.gain_rgb), 0, 255)


@functools.lru_cache(maxsize=_FACES_KEPT)
def _warped(portrait: int, units: tuple[float, ...]) -> np.ndarray:
    return warp_face(face_patches()[portrait], dict(zip(ACTION_UNITS, units, strict=True)))


def crop_of(person: Person, at: int, *, size_px: int) -> np.ndarray:
    """Return the crop of a person's face at frame index ``at``, RGB uint8 [size_px, size_px, 3]."""
    image = Image.fromarray(face_of(person, at).astype(np.uint8))
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def write_video(path: Path, frames: Iterator[np.ndarray]) -> None:
    """Encode RGB frames: H.264 in ``.mp4``, MPEG-4 in ``.avi``."""
    codec = "libx264" if path.suffix == ".mp4" else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=_FPS))
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _FPS)
        stream.gop_size = 25
        if codec == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast", "threads": "1", **REPEATABLE_X264}
        else:
            stream.bit_rate = 1_500_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
