"""Labels lie inside the picture, off each other and off the faces of others, at any size of the frame."""

from itertools import pairwise

import av
import numpy as np
import pytest

from data_contracts.vocabulary import EXPRESSIONS
from tasks.annotate.labels import Detail, Face, LabelPainter, Shown, text_height_px
from tasks.annotate.mp4 import new_frame, planes_of
from tasks.annotate.overlay import Overlay
from tasks.annotate.sprites import Place

SIZES = [(640, 360), (361, 641), (1920, 1080), (3840, 2160)]


def grey_frame(width_px, height_px):
    planes = [np.full((height_px, width_px), 128, np.uint8)]
    planes += [np.full((-(-height_px // 2), -(-width_px // 2)), 128, np.uint8) for _ in range(2)]
    return new_frame(av.VideoFrame(16, 16, "yuv420p"), planes)


def faces_of(width_px, height_px, count, seed=0, share=0.12):
    random = np.random.default_rng(seed)
    faces = []
    for person in range(count):
        side = share * height_px * random.uniform(0.3, 1)
        x, y = random.uniform(-0.3 * side, width_px - 0.7 * side), random.uniform(-0.3 * side, height_px - 0.7 * side)
        box = (x, y, x + side, y + 1.3 * side)
        units = tuple(random.uniform(size=12) > 0.5)
        faces.append(Face(person + 1, box, EXPRESSIONS[person % 8], 0.87, *random.uniform(-1, 1, 2), units))
    return faces


def placed(overlay, frame_number, faces):
    return list(overlay._place(frame_number, faces, []))


@pytest.mark.parametrize(("width_px", "height_px"), SIZES)
@pytest.mark.parametrize("count", [1, 3, 40])
def test_labels_lie_inside_the_picture_and_off_each_other(width_px, height_px, count):
    overlay = Overlay(width_px, height_px, 1, Shown(dial=True, units=True))
    for number in range(1, 4):
        faces = faces_of(width_px, height_px, count, seed=number)
        labels = placed(overlay, number, faces)
        places = [place for _, _, place in labels]
        assert all(place.is_inside(width_px + width_px % 2, height_px + height_px % 2) for place in places)
        assert not any(one.overlaps(other) for k, one in enumerate(places) for other in places[:k])
        for face, detail, place in labels:
            others = [Place(*map(round, other.box)) for other in faces if other is not face]
            assert detail == Detail.NUMBER or not any(place.overlaps(other) for other in others)
        assert len(labels) >= 0.8 * count


def test_a_single_face_has_a_panel_wherever_it_is():
    for box in [(0, 0, 90, 120), (560, 250, 650, 370), (300, 150, 330, 190), (-40, 100, 40, 200), (0, 0, 640, 360)]:
        overlay = Overlay(640, 360, 1, Shown(dial=True, units=True))
        ((_, detail, place),) = placed(overlay, 1, [Face(1, box, "Sadness", 0.5, 0.1, 0.2, (True,) * 12)])
        assert place.is_inside(640, 360)
        assert detail == Detail.PANEL or box == (0, 0, 640, 360)


def test_tiny_faces_in_a_crowd_have_numbers_only():
    overlay = Overlay(640, 360, 1, Shown(dial=True, units=True))
    labels = placed(overlay, 1, faces_of(640, 360, 12, share=0.06))
    assert labels and {detail for _, detail, _ in labels} == {Detail.NUMBER}


def test_labels_follow_a_trembling_box_calmly_and_do_not_flicker():
    random, overlay = np.random.default_rng(0), Overlay(640, 360, 1, Shown(dial=True, units=True))
    details, lefts = [], []
    for number in range(1, 60):
        box = np.array([200, 100, 300, 230]) + random.normal(0, 2, 4)
        # A person passes by where the panel would be.
        others = [Face(2, (300 + 4 * number, 100, 360 + 4 * number, 180))] if 20 < number < 24 else []
        found = placed(overlay, number, [Face(1, tuple(box), "Anger", 0.9, 0, 0, (False,) * 12), *others])
        detail, place = next((detail, place) for face, detail, place in found if face.person == 1)
        details.append(detail)
        lefts.append(place.left)
    assert sum(a != b for a, b in pairwise(details)) <= 2
    steps = np.abs(np.diff(lefts))
    assert np.median(steps) <= 2


def test_the_parts_that_are_drawn_are_those_that_are_predicted():
    for shown, dials, chips in ((Shown(True, True), True, True), (Shown(True, False), True, False)):
        painter = LabelPainter(1920, 1080, 1, shown)
        height_px = painter.size_px(Face(1, (0, 0, 1, 1), "Fear", 0.5), Detail.PANEL)[1]
        assert height_px > (5 * dials + 2 * chips) * painter.text_px
    overlay = Overlay(1920, 1080, 1, Shown(dial=False, units=False))
    ((_, detail, _),) = placed(overlay, 1, [Face(1, (300, 300, 500, 600), "Fear", 0.5)])
    assert detail == Detail.TAG


def test_text_grows_with_the_frame_and_is_readable_at_360p():
    heights = [text_height_px(*size) for size in SIZES]
    assert heights[0] >= 12 and heights[2] >= 24 and abs(heights[3] - 2 * heights[2]) <= 1


def test_a_frame_is_drawn_with_box_label_and_footer_and_only_there():
    face = Face(1, (200, 100, 300, 220), "Happiness", 0.9, 0.5, -0.5, (True,) * 12)
    frame = grey_frame(640, 360)
    overlay = Overlay(640, 360, 1, Shown(dial=True, units=True))
    overlay.draw(planes_of(frame), 1, [face], "1  0.00 s")
    changed = planes_of(frame)[0] != 128
    assert changed[100:220, 196:200].any() and changed[330:, :60].any()
    assert not changed[104:216, 206:294].any(), "the face itself stays visible"
    assert not changed[:90].any() and changed.mean() < 0.15
    empty = grey_frame(640, 360)
    overlay.draw(planes_of(empty), 2, [], "2  0.04 s  no face")
    changed = planes_of(empty)[0] != 128
    assert changed.any() and not changed[:330].any()


def test_dial_and_decisions_show_the_values():
    def drawn(**values):
        frame = grey_frame(640, 360)
        face = Face(1, (200, 100, 300, 220), **({"expression": "Anger", "units": (False,) * 12} | values))
        Overlay(640, 360, 1, Shown(dial=True, units=True)).draw(planes_of(frame), 1, [face], "1")
        return planes_of(frame)[0].copy()

    pictures = [
        drawn(valence=0.5, arousal=0.5),
        drawn(valence=-0.5, arousal=0.5),
        drawn(valence=-0.5, arousal=-0.5),
        drawn(valence=0.5, arousal=0.5, expression="Fear"),
        drawn(valence=0.5, arousal=0.5, probability=0.5),
        drawn(valence=0.5, arousal=0.5, units=(True, *(False,) * 11)),
        drawn(valence=None, arousal=None, units=None, expression=None),
    ]
    assert all((one != other).any() for k, one in enumerate(pictures) for other in pictures[:k])
