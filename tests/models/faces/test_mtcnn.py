import numpy as np
import pytest
from facenet_pytorch import MTCNN
from PIL import Image

from models.faces.detection import Detections, DetectorParams, detector_weights_digest
from models.faces.mtcnn import FaceDetector
from models.faces.mtcnn_cpu import CpuFaceDetector
from models.faces.tracking import iou

both = pytest.mark.parametrize("detector_class", [FaceDetector, CpuFaceDetector])


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


@both
@pytest.mark.parametrize("min_face_px", [20, 40, 80])
def test_equals_facenet_pytorch(portraits, detector_class, min_face_px):
    frames = np.stack([canvas(portraits, placed=placed) for placed in SCENES.values()])
    reference = MTCNN(keep_all=True, min_face_size=min_face_px, post_process=False)
    found = detector_class(DetectorParams(min_face_px=min_face_px)).detect(frames)
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


@both
def test_each_face_is_found_where_it_is(portraits, detector_class):
    (found,) = detector_class().detect(canvas(portraits, placed=SCENES["two"])[None])
    centres = sorted((found.box_xyxy_px[:, :2] + found.box_xyxy_px[:, 2:])[:, 0] / 2)
    assert len(found) == 2 and centres[0] < 270 < 280 < centres[1]
    area = (found.box_xyxy_px[:, 2:] - found.box_xyxy_px[:, :2]).prod(axis=1)
    assert area[0] >= area[1]
    eye, other_eye, nose, mouth, _ = found.landmarks_xy_px[0]
    assert eye[0] < nose[0] < other_eye[0] and eye[1] < nose[1] < mouth[1]


@both
def test_a_frame_does_not_depend_on_its_batch(portraits, detector_class):
    frames = np.stack([canvas(portraits, placed=SCENES[name]) for name in ("one", "none", "two")])
    detector = detector_class()
    for alone, together in zip(
        [detector.detect(f[None])[0] for f in frames], detector.detect(list(frames)), strict=True
    ):
        np.testing.assert_allclose(alone.box_xyxy_px, together.box_xyxy_px, atol=1e-3)


@both
def test_tiny_and_empty_input(detector_class):
    detector = detector_class()
    assert detector.detect(np.zeros((0, 100, 100, 3), np.uint8)) == []
    assert [len(found) for found in detector.detect(np.zeros((2, 8, 8, 3), np.uint8))] == [0, 0]


@both
def test_wrong_input_is_refused(detector_class):
    with pytest.raises(ValueError, match="uint8 frames"):
        detector_class().detect(np.zeros((1, 50, 50, 3), np.float32))
    with pytest.raises(ValueError, match="search_every_frames"):
        DetectorParams(search_every_frames=0)
    with pytest.raises(ValueError, match="min_face_px"):
        DetectorParams(min_face_px=4)
    with pytest.raises(ValueError, match="rnet_threshold"):
        DetectorParams(rnet_threshold=1.5)
    with pytest.raises(ValueError, match="expected shapes"):
        Detections(np.zeros((1, 4)), np.zeros((2, 5, 2)), np.zeros(1))


def test_digest_is_of_the_weights():
    assert len(detector_weights_digest()) == 64
    assert detector_weights_digest() == detector_weights_digest()


def test_frames_of_other_sizes_in_between_change_nothing(portraits):
    detector, frame = CpuFaceDetector(), canvas(portraits, placed=SCENES["two"])
    first = detector.detect(frame[None])[0]
    for other in (np.full((700, 500, 3), 255, np.uint8), frame[: frame.shape[0] // 2], frame[:, 7:-9]):
        detector.detect(np.ascontiguousarray(other)[None])
    again = detector.detect(frame[None])[0]
    np.testing.assert_array_equal(again.box_xyxy_px, first.box_xyxy_px)


@pytest.mark.parametrize("scene", ["one", "small and large", "cut by the edges"])
def test_near_its_place_each_face_is_found_as_in_the_whole_frame(portraits, scene):
    frame, detector = canvas(portraits, placed=SCENES[scene]), CpuFaceDetector()
    whole = detector.detect(frame[None])[0]
    assert len(whole)
    for box in whole.box_xyxy_px:
        side = box[2] - box[0]
        moved = box + np.array([0.06, -0.05, 0.1, -0.02], np.float32) * side
        near = detector.detect_near(frame, moved)
        assert len(near) == 1
        assert iou(near.box_xyxy_px, box[None])[0, 0] > 0.8


def test_far_from_any_face_nothing_is_found(portraits):
    frame, detector = canvas(portraits, placed=SCENES["one"]), CpuFaceDetector()
    for box in ([500, 200, 600, 300], [-90, -90, -10, -10], [0, 0, 639, 359], [600, 320, 700, 420]):
        assert len(detector.detect_near(frame, np.array(box, np.float32))) == 0
