import numpy as np
import pytest
from facenet_pytorch import MTCNN
from PIL import Image

from models.mtcnn import Detections, DetectorParams, FaceDetector, detector_weights_digest


def canvas(portraits, *, height=360, width=640, placed=()):
    picture = np.full((height, width, 3), 90, np.uint8)
    for portrait, size, x, y in placed:
        small = np.asarray(Image.fromarray(portraits[portrait]).resize((size, size)))
        visible = small[max(0, -y) : height - y, max(0, -x) : width - x]
        picture[max(y, 0) : max(y, 0) + visible.shape[0], max(x, 0) : max(x, 0) + visible.shape[1]] = visible
    return picture


SCENES = {
    "one": [(0, 300, 40, 20)],
    "two": [(0, 260, 10, 60), (1, 330, 280, 10)],
    "small and large": [(0, 120, 20, 20), (1, 350, 250, 5)],
    "cut by the edges": [(1, 320, -110, -60), (0, 300, 460, 150)],
    "none": [],
}


@pytest.mark.parametrize("min_face_px", [20, 40, 80])
def test_equals_facenet_pytorch(portraits, min_face_px):
    frames = np.stack([canvas(portraits, placed=placed) for placed in SCENES.values()])
    reference = MTCNN(keep_all=True, min_face_size=min_face_px, post_process=False)
    found = FaceDetector(DetectorParams(min_face_px=min_face_px)).detect(frames)
    assert [len(f) > 0 for f in found[:3]] == [True] * 3
    for frame, ours in zip(frames, found, strict=True):
        boxes, probabilities, landmarks = reference.detect(frame, landmarks=True)
        if boxes is None:
            assert len(ours) == 0
            continue
        assert len(boxes) == len(ours)
        for box, points, probability in zip(boxes, landmarks, probabilities, strict=True):
            at = np.abs(ours.box_xyxy_px - box).max(axis=1).argmin()
            assert np.abs(ours.box_xyxy_px[at] - box).max() < 1e-2
            assert np.abs(ours.landmarks_xy_px[at] - points).max() < 1e-2
            assert abs(ours.probability[at] - probability) < 1e-4


def test_each_face_is_found_where_it_is(portraits):
    (found,) = FaceDetector().detect(canvas(portraits, placed=SCENES["two"])[None])
    centres = sorted((found.box_xyxy_px[:, :2] + found.box_xyxy_px[:, 2:])[:, 0] / 2)
    assert len(found) == 2 and centres[0] < 270 < 280 < centres[1]
    area = (found.box_xyxy_px[:, 2:] - found.box_xyxy_px[:, :2]).prod(axis=1)
    assert area[0] >= area[1]
    eye, other_eye, nose, mouth, _ = found.landmarks_xy_px[0]
    assert eye[0] < nose[0] < other_eye[0] and eye[1] < nose[1] < mouth[1]


def test_a_frame_does_not_depend_on_its_batch(portraits):
    frames = np.stack([canvas(portraits, placed=SCENES[name]) for name in ("one", "none", "two")])
    detector = FaceDetector()
    for alone, together in zip(
        [detector.detect(f[None])[0] for f in frames], detector.detect(list(frames)), strict=True
    ):
        np.testing.assert_allclose(alone.box_xyxy_px, together.box_xyxy_px, atol=1e-3)


def test_tiny_and_empty_input():
    detector = FaceDetector()
    assert detector.detect(np.zeros((0, 100, 100, 3), np.uint8)) == []
    assert [len(found) for found in detector.detect(np.zeros((2, 8, 8, 3), np.uint8))] == [0, 0]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="uint8 frames"):
        FaceDetector().detect(np.zeros((1, 50, 50, 3), np.float32))
    with pytest.raises(ValueError, match="min_face_px"):
        DetectorParams(min_face_px=4)
    with pytest.raises(ValueError, match="rnet_threshold"):
        DetectorParams(rnet_threshold=1.5)
    with pytest.raises(ValueError, match="expected shapes"):
        Detections(np.zeros((1, 4)), np.zeros((2, 5, 2)), np.zeros(1))


def test_digest_is_of_the_weights():
    assert len(detector_weights_digest()) == 64
    assert detector_weights_digest() == detector_weights_digest()
