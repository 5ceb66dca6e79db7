import numpy as np

from models.faces.mtcnn import FaceDetector
from tasks.demo.face_warp import ACTIONS, EYES_PX, PATCH_PX, cut_face_patch, soft_oval, warp_face


def patch_of(portrait):
    (found,) = FaceDetector().detect(portrait[None])
    return cut_face_patch(portrait, found.landmarks_xy_px[0])


def test_eyes_of_a_patch_are_at_fixed_points(portraits):
    for portrait in portraits:
        patch = patch_of(portrait).astype(np.uint8)
        (found,) = FaceDetector().detect(patch[None])
        left, right = found.landmarks_xy_px[0, :2]
        assert abs(np.linalg.norm(right - left) - EYES_PX) < 8
        assert np.abs((left + right) / 2 - [PATCH_PX / 2, PATCH_PX * 0.42]).max() < 8


def test_every_action_unit_changes_the_face(portraits):
    patch = patch_of(portraits[0])
    np.testing.assert_allclose(warp_face(patch, {}), patch, atol=1e-3)
    moved = {unit: np.abs(warp_face(patch, {unit: 1.0}) - patch).mean() for unit in ACTIONS}
    assert min(moved.values()) > 0.2


def test_oval_is_opaque_inside_and_transparent_at_the_corners():
    oval = soft_oval()
    assert oval[PATCH_PX // 2, PATCH_PX // 2] == 1 and oval[0, 0] == 0 and 0 < (oval > 0).mean() < 0.8
