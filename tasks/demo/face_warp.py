"""Moving the parts of a still face: smooth displacements around its landmarks, one pattern per action unit.

For generated data only: the pictures are caricatures whose labels can be learnt from pixels, not ground truth about
faces.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

PATCH_PX = 192
# Distance between the eyes in the patch.
EYES_PX = 58.0
_EYES_Y = 0.42

# Parts of the face relative to the middle of the eyes, in eye distances: x to the right, y down; (x, y, reach).
_BROW_IN, _BROW_OUT, _LID_UP, _LID_LOW = (0.24, -0.28, 0.16), (0.66, -0.26, 0.18), (0.5, -0.07, 0.1), (0.5, 0.11, 0.12)
_WING, _CORNER, _LIP_UP, _LIP_LOW, _CHIN = (
    (0.22, 0.55, 0.14),
    (0.36, 1.0, 0.18),
    (0.0, 0.92, 0.18),
    (0.0, 1.13, 0.2),
    (0.0, 1.45, 0.3),
)
# Action unit -> (part, displacement) on the right of the picture; the left mirrors it. Directions after the Facial
# Action Coding System (Ekman & Friesen 1978); sizes are ours, strong enough to be seen.
ACTIONS: dict[str, tuple[tuple[tuple[float, float, float], tuple[float, float]], ...]] = {
    "AU1": ((_BROW_IN, (0.0, -0.2)),),
    "AU2": ((_BROW_OUT, (0.02, -0.22)),),
    "AU4": ((_BROW_IN, (-0.08, 0.14)), (_BROW_OUT, (-0.04, 0.08))),
    "AU6": ((_LID_LOW, (0.0, -0.1)), ((0.55, 0.45, 0.25), (0.02, -0.1))),
    "AU7": ((_LID_UP, (0.0, 0.08)), (_LID_LOW, (0.0, -0.07))),
    "AU10": ((_LIP_UP, (0.0, -0.14)), (_WING, (0.04, -0.1))),
    "AU12": ((_CORNER, (0.2, -0.16)),),
    "AU15": ((_CORNER, (0.05, 0.2)),),
    "AU23": ((_CORNER, (-0.16, 0.0)),),
    "AU24": ((_LIP_UP, (0.0, 0.07)), (_LIP_LOW, (0.0, -0.1))),
    "AU25": ((_LIP_UP, (0.0, -0.05)), (_LIP_LOW, (0.0, 0.13))),
    "AU26": ((_LIP_LOW, (0.0, 0.22)), (_CHIN, (0.0, 0.24))),
}
_MOUTH_Y = 1.02
_DARK_MOUTH = np.array([45.0, 18.0, 18.0])


@dataclass(frozen=True, eq=False)
class FacePatch:
    """A portrait's face, turned upright and scaled so that the eyes lie at fixed points.

    Attributes:
        picture: float32 [PATCH_PX, PATCH_PX, 3], 0..255.
    """

    picture: np.ndarray


def cut_face_patch(portrait: np.ndarray, landmarks_xy_px: np.ndarray) -> FacePatch:
    """The face of an RGB uint8 portrait with landmarks [5, 2] as ``mtcnn`` gives them (both eyes come first)."""
    left, right = landmarks_xy_px[0].astype(float), landmarks_xy_px[1].astype(float)
    axis = (right - left) / EYES_PX
    down = np.array([-axis[1], axis[0]])
    origin = (left + right) / 2 - axis * PATCH_PX / 2 - down * PATCH_PX * _EYES_Y
    matrix = (axis[0], down[0], origin[0], axis[1], down[1], origin[1])
    size = (PATCH_PX, PATCH_PX)
    image = Image.fromarray(portrait).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return FacePatch(np.asarray(image, np.float32))


def _displacements() -> dict[str, np.ndarray]:
    """Action unit -> displacement [2, PATCH_PX, PATCH_PX] in pixels at full intensity, rows first."""
    y, x = np.mgrid[:PATCH_PX, :PATCH_PX].astype(np.float32)
    x, y = (x - PATCH_PX / 2) / EYES_PX, (y - PATCH_PX * _EYES_Y) / EYES_PX
    fields = {}
    for unit, moves in ACTIONS.items():
        field = np.zeros((2, PATCH_PX, PATCH_PX), np.float32)
        for (part_x, part_y, reach), (move_x, move_y) in moves:
            for side in (1, -1) if part_x else (1,):
                weight = np.exp(-((x - side * part_x) ** 2 + (y - part_y) ** 2) / (2 * reach**2))
                field += EYES_PX * weight * np.array([move_y, side * move_x], np.float32)[:, None, None]
        fields[unit] = field
    return fields


_FIELDS = _displacements()
_GRID = np.mgrid[:PATCH_PX, :PATCH_PX].astype(np.float32)


def warp_face(patch: FacePatch, units: dict[str, float]) -> np.ndarray:
    """The face with action units at intensities 0..1, float32 [PATCH_PX, PATCH_PX, 3], 0..255.

    Open lips show a dark mouth.
    """
    field = np.zeros_like(_GRID)
    for unit, intensity in units.items():
        field += intensity * _FIELDS[unit]
    at = _GRID - field
    warped = np.stack([map_coordinates(patch.picture[..., c], at, order=1, mode="nearest") for c in range(3)], axis=2)
    opening = 0.12 * units.get("AU25", 0.0) + 0.2 * units.get("AU26", 0.0)
    if opening < 0.01:
        return warped
    centre_y = PATCH_PX * _EYES_Y + EYES_PX * (_MOUTH_Y + opening / 3)
    width = EYES_PX * (0.26 + 0.1 * units.get("AU12", 0.0))
    distance = ((_GRID[1] - PATCH_PX / 2) / width) ** 2 + ((_GRID[0] - centre_y) / (EYES_PX * opening / 1.6)) ** 2
    inside = np.clip(1.6 - 1.2 * distance, 0, 1)[..., None]
    return warped * (1 - inside) + _DARK_MOUTH * inside


def soft_oval() -> np.ndarray:
    """How much of each patch pixel is face, float32 [PATCH_PX, PATCH_PX], 0..1: an oval that fades out."""
    y = (_GRID[0] - PATCH_PX * 0.54) / (PATCH_PX * 0.46)
    x = (_GRID[1] - PATCH_PX / 2) / (PATCH_PX * 0.42)
    return np.clip((1.05 - np.hypot(x, y)) / 0.12, 0, 1).astype(np.float32)
