import numpy as np

from models.faces.detection import DetectorParams
from models.faces.following import FaceFollower, first_of_group
from models.faces.mtcnn_cpu import CpuFaceDetector
from tests.models.faces.test_mtcnn import SCENES, make_scene


class CountingDetector(CpuFaceDetector):
    """A detector that records its calls."""

    def __init__(self, every):
        super().__init__(DetectorParams(search_every_frames=every))
        self.calls = []

    def detect(self, frames):
        self.calls.append("whole")
        return super().detect(frames)

    def detect_near(self, frame, box_xyxy_px):
        self.calls.append("near")
        return super().detect_near(frame, box_xyxy_px)


def follow(detector, frames, *, first=1):
    follower = FaceFollower(detector)
    return [follower.detect(number, frame) for number, frame in enumerate(frames, start=first)]


def moving_face(portraits, count):
    return [make_scene(portraits, placed=[(0, 260, 40 + 3 * n, 30 + n)]) for n in range(count)]


def test_single_face_is_followed(portraits):
    detector, frames = CountingDetector(4), moving_face(portraits, 10)
    found = follow(detector, frames)
    assert detector.calls == ["whole", "near", "near", "near"] * 2 + ["whole", "near"]
    for ours, whole in zip(found, CpuFaceDetector().detect(np.stack(frames)), strict=True):
        assert len(ours) == len(whole) == 1
        assert np.abs(ours.box_xyxy_px - whole.box_xyxy_px).max() < 8


def test_result_does_not_depend_on_the_first_group(portraits):
    frames = moving_face(portraits, 12)
    complete, some = follow(CountingDetector(4), frames), follow(CountingDetector(4), frames[4:], first=5)
    assert [first_of_group(number, 4) for number in (1, 4, 5, 8)] == [1, 1, 5, 5]
    for a, b in zip(complete[4:], some, strict=True):
        np.testing.assert_array_equal(a.box_xyxy_px, b.box_xyxy_px)


def test_several_faces_are_detected_in_every_frame(portraits):
    detector = CountingDetector(4)
    found = follow(detector, [make_scene(portraits, placed=SCENES["two"])] * 4)
    assert detector.calls == ["whole"] * 4 and {len(f) for f in found} == {2}


def test_lost_face_starts_a_search_and_an_empty_group_stays_empty(portraits):
    face, nothing = make_scene(portraits, placed=SCENES["one"]), make_scene(portraits)
    elsewhere = make_scene(portraits, placed=[(0, 300, 330, 40)])
    detector = CountingDetector(4)
    found = follow(detector, [face, elsewhere, nothing, face, nothing, face, face, face])
    assert [len(f) for f in found] == [1, 1, 0, 1, 0, 0, 0, 0]
    assert detector.calls == ["whole", "near", "whole", "whole", "whole", "whole"]


def test_change_of_frame_size_starts_a_new_group(portraits):
    detector = CountingDetector(8)
    follow(detector, [make_scene(portraits, height=height, placed=SCENES["one"]) for height in (360, 300)])
    assert detector.calls == ["whole", "whole"]


def test_interval_of_one_searches_every_frame(portraits):
    detector = CountingDetector(1)
    follow(detector, moving_face(portraits, 3))
    assert detector.calls == ["whole"] * 3
