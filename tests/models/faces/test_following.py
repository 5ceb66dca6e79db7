import numpy as np

from models.faces.detection import DetectorParams
from models.faces.following import FaceFollower, first_of_group
from models.faces.mtcnn_cpu import CpuFaceDetector
from tests.models.faces.test_mtcnn import SCENES, canvas


class CountingDetector(CpuFaceDetector):
    """The real one, which notes what it was asked."""

    def __init__(self, every):
        super().__init__(DetectorParams(search_every_frames=every))
        self.asked = []

    def detect(self, frames):
        self.asked.append("whole")
        return super().detect(frames)

    def detect_near(self, frame, box_xyxy_px):
        self.asked.append("near")
        return super().detect_near(frame, box_xyxy_px)


def look(detector, frames, *, first=1):
    follower = FaceFollower(detector)
    return [follower.detect(number, frame) for number, frame in enumerate(frames, start=first)]


def moving(portraits, count):
    return [canvas(portraits, placed=[(0, 260, 40 + 3 * n, 30 + n)]) for n in range(count)]


def test_one_face_is_followed_where_it_goes(portraits):
    detector, frames = CountingDetector(4), moving(portraits, 10)
    found = look(detector, frames)
    assert detector.asked == ["whole", "near", "near", "near"] * 2 + ["whole", "near"]
    for ours, whole in zip(found, CpuFaceDetector().detect(np.stack(frames)), strict=True):
        assert len(ours) == len(whole) == 1
        assert np.abs(ours.box_xyxy_px - whole.box_xyxy_px).max() < 8


def test_where_a_reader_begins_does_not_matter(portraits):
    frames = moving(portraits, 12)
    all_of_them, some = look(CountingDetector(4), frames), look(CountingDetector(4), frames[4:], first=5)
    assert [first_of_group(number, 4) for number in (1, 4, 5, 8)] == [1, 1, 5, 5]
    for a, b in zip(all_of_them[4:], some, strict=True):
        np.testing.assert_array_equal(a.box_xyxy_px, b.box_xyxy_px)


def test_several_faces_are_searched_for_in_every_frame(portraits):
    detector = CountingDetector(4)
    found = look(detector, [canvas(portraits, placed=SCENES["two"])] * 4)
    assert detector.asked == ["whole"] * 4 and {len(f) for f in found} == {2}


def test_a_lost_face_is_looked_for_at_once_and_an_empty_group_is_empty(portraits):
    face, nothing = canvas(portraits, placed=SCENES["one"]), canvas(portraits)
    elsewhere = canvas(portraits, placed=[(0, 300, 330, 40)])
    detector = CountingDetector(4)
    found = look(detector, [face, elsewhere, nothing, face, nothing, face, face, face])
    assert [len(f) for f in found] == [1, 1, 0, 1, 0, 0, 0, 0]
    assert detector.asked == ["whole", "near", "whole", "whole", "whole", "whole"]


def test_another_size_of_frames_begins_anew(portraits):
    detector = CountingDetector(8)
    look(detector, [canvas(portraits, placed=SCENES["one"]), canvas(portraits, height=300, placed=SCENES["one"])])
    assert detector.asked == ["whole", "whole"]


def test_every_frame_by_itself_if_asked(portraits):
    detector = CountingDetector(1)
    look(detector, moving(portraits, 3))
    assert detector.asked == ["whole"] * 3
