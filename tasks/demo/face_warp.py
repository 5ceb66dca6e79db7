"""Warp a portrait so that its face shows action units: smooth displacements around its landmarks, one pattern per unit.

For generated data only: the warped faces are caricatures with labels that can be learnt from pixels. They are no ground
truth about faces.
"""

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

PATCH_PX = 192
# Distance between the eyes in the patch.
EYES_PX = 58.0
_EYES_Y = 0.42

# Parts of the face relative to the middle of the eyes, in eye distances: x to the right, y down; (x, y, radius).
_BROW_IN, _BROW_OUT, _LID_UP, _LID_LOW = (0.24, -0.28, 0.16), (0.66, -0.26, 0.18), (0.5, -0.07, 0.1), (0.5, 0.11, 0.12)
_WING, _CORNER, _LIP_UP, _LIP_LOW, _CHIN = (
    (0.22, 0.55, 0.14),
    (0.36, 1.0, 0.18),
    (0.0, 0.92, 0.18),
    (0.0, 1.13, 0.2),
    (0.0, 1.45, 0.3),
)
# Action unit -> (part, displacement) in the right half of the image; the left half is its mirror image. The directions
# follow the Facial Action Coding System (Ekman & Friesen 1978). The sizes were chosen to be clearly visible.
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


def cut_face_patch(portrait: np.ndarray, landmarks_xy_px: np.ndarray) -> np.ndarray:
    """Return the face of a portrait, rotated and scaled so that the eyes are at fixed points.

    Args:
        portrait: RGB uint8 [h, w, 3].
        landmarks_xy_px: [5, 2] in the order of ``mtcnn``, which starts with the eyes.

    Returns:
        float32 [PATCH_PX, PATCH_PX, 3], 0..255.
    """
    left, right = landmarks_xy_px[0].astype(float), landmarks_xy_px[1].astype(float)
    axis = (right - left) / EYES_PX
    down = np.array([-axis[1], axis[0]])
    origin = (left + right) / 2 - axis * PATCH_PX / 2 - down * PATCH_PX * _EYES_Y
    matrix = (axis[0], down[0], origin[0], axis[1], down[1], origin[1])
    size = (PATCH_PX, PATCH_PX)
    image = Image.fromarray(portrait).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _displacements() -> dict[str, np.ndarray]:
    """Return the displacement [2 (y, x), PATCH_PX, PATCH_PX] in pixels of each action unit at full intensity."""
    y, x = np.mgrid[:PATCH_PX, :PATCH_PX].astype(np.float32)
    x, y = (x - PATCH_PX / 2) / EYES_PX, (y - PATCH_PX * _EYES_Y) / EYES_PX
    fields = {}
    for unit, moves in ACTIONS.items():
        field = np.zeros((2, PATCH_PX, PATCH_PX), np.float32)
        for (part_x, part_y, radius), (move_x, move_y) in moves:
            for side in (1, -1) if part_x else (1,):
                weight = np.exp(-((x - side * part_x) ** 2 + (y - part_y) ** 2) / (2 * radius**2))
                field += EYES_PX * weight * np.array([move_y, side * move_x], np.float32)[:, None, None]
        fields[unit] = field
    return fields


_FIELDS = _displacements()
_GRID = np.mgrid[:PATCH_PX, :PATCH_PX].astype(np.float32)


def warp_face(patch: np.ndarray, action_units: dict[str, float]) -> np.ndarray:
    """Return a face patch with action units at intensities 0..1, as float32 [PATCH_PX, PATCH_PX, 3], 0..255.

    The inside of an open mouth is dark.
    """
    field = np.zeros_like(_GRID)
    for unit, intensity in action_units.items():
        field += intensity * _FIELDS[unit]
    at = _GRID - field
    warped = np.stack([map_coordinates(patch[..., c], at, order=1, mode="nearest") for c in range(3)], axis=2)
    opening = 0.12 * action_units.get("AU25", 0.0) + 0.2 * action_units.get("AU26", 0.0)
    if opening < 0.01:
        return warped
    centre_y = PATCH_PX * _EYES_Y + EYES_PX * (_MOUTH_Y + opening / 3)
    width = EYES_PX * (0.26 + 0.1 * action_units.get("AU12", 0.0))
    distance = ((_GRID[1] - PATCH_PX / 2) / width) ** 2 + ((_GRID[0] - centre_y) / (EYES_PX * opening / 1.6)) ** 2
    inside = np.clip(1.6 - 1.2 * distance, 0, 1)[..., None]
    return warped * (1 - inside) + _DARK_MOUTH * inside


def soft_oval() -> np.ndarray:
    """Return the opacity of the face in a patch: an oval with a soft edge, float32 [PATCH_PX, PATCH_PX], 0..1."""
    y = (_GRID[0] - PATCH_PX * 0.54) / (PATCH_PX * 0.46)
    x = (_GRID[1] - PATCH_PX / 2) / (PATCH_PX * 0.42)
    return np.clip((1.05 - np.hypot(x, y)) / 0.12, 0, 1).astype(np.float32)
