import numpy as np
import pytest

from models.faces.tracking import TrackingParams, iou, track_faces


def moving(frames, x, y=50.0, size=60.0, speed=1.0):
    """Return a face that drifts to the right: (frame [n], box [n, 4])."""
    frames = np.asarray(list(frames))
    left = x + speed * (frames - frames[0])
    return frames, np.stack([left, np.full(len(frames), y), left + size, np.full(len(frames), y + size)], axis=1)


def scene(*people):
    """Merge people in frame order; also return the person of each row."""
    frame = np.concatenate([p[0] for p in people])
    box = np.concatenate([p[1] for p in people])
    who = np.concatenate([np.full(len(p[0]), n) for n, p in enumerate(people)])
    order = np.lexsort((who, frame))
    return frame[order], box[order], who[order]


def test_iou_by_hand():
    a = np.array([[0.0, 0, 2, 2]])
    b = np.array([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])
    np.testing.assert_allclose(iou(a, b), [[1 / 7, 1, 0]])


def test_two_people_are_two_tracks_when_their_order_changes():
    frame, box, who = scene(moving(range(1, 40), 20), moving(range(1, 40), 250))
    flipped = np.concatenate([[i + 1, i] if i // 2 % 2 else [i, i + 1] for i in range(0, len(frame), 2)])
    track = track_faces(frame[flipped], box[flipped])
    for person in (0, 1):
        assert len(set(track[who[flipped] == person])) == 1
    assert len(set(track)) == 2


def test_face_lost_for_a_second_keeps_its_track():
    seen = [*range(1, 30), *range(55, 80)]
    frame, box, _ = scene(moving(seen, 100, speed=0.2))
    assert set(track_faces(frame, box)) == {0}
    assert set(track_faces(frame, box, params=TrackingParams(max_gap_frames=10))) == {0, 1}


def test_no_faces_have_no_tracks_and_unordered_frames_are_refused():
    empty = np.empty(0, int), np.empty((0, 4))
    assert track_faces(*empty).size == 0
    with pytest.raises(ValueError, match="ascending"):
        track_faces(np.array([2, 1]), np.zeros((2, 4)))


def test_small_overlap_does_not_take_a_face_from_a_matching_track():
    """If small overlaps counted, the largest sum would give the first track a face below ``min_iou``."""
    frame = np.array([1, 1, 2, 2])
    wide = [0.0, 0, 100, 100]
    box = np.array([wide, [62.0, 0, 162, 100], [24.0, 0, 124, 100], [-52.0, 0, 48, 100]])
    overlap = iou(box[:2], box[2:])
    assert overlap[0, 0] > overlap[1, 0] > 0.33 > overlap[0, 1] > 0
    assert overlap[0, 0] < overlap[1, 0] + overlap[0, 1]
    assert track_faces(frame, box, params=TrackingParams(min_iou=0.33)).tolist() == [0, 1, 0, 2]


def test_cut_and_long_gap_end_a_track():
    frame, box, _ = scene(moving(range(1, 20), 50), moving(range(20, 40), 500))
    assert track_faces(frame, box).tolist() == [0] * 19 + [1] * 20
    for first_again, number in ((49, 0), (50, 1)):
        frame, box, _ = scene(moving([*range(1, 20), *range(first_again, 80)], 50, speed=0))
        assert track_faces(frame, box)[-1] == number


def test_tracks_equal_those_of_a_plain_loop():
    """With distant faces, each has at most one candidate, so that a plain loop gives the same tracks."""
    random = np.random.default_rng(3)
    people = [
        moving(np.flatnonzero(random.random(400) < 0.8) + 1, 300 * place, speed=random.uniform(-0.2, 0.2))
        for place in range(4)
    ]
    frame, box, _ = scene(*people)
    expected, ends = [], []
    for now, one in zip(frame.tolist(), box, strict=True):
        near = [
            t for t, (then, last) in enumerate(ends) if now - then <= 30 and iou(one[None], last[None])[0, 0] >= 0.3
        ]
        assert len(near) <= 1
        number = near[0] if near else len(ends)
        ends[number : number + 1] = [(now, one)]
        expected.append(number)
    assert track_faces(frame, box).tolist() == expected


@pytest.mark.parametrize("wrong", [{"min_iou": 0.0}, {"min_iou": 1.5}, {"max_gap_frames": 0}])
def test_invalid_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrackingParams(**wrong)


def test_error_names_the_row_of_a_box_that_is_not_finite():
    with pytest.raises(ValueError, match="row 1"):
        track_faces(np.array([1, 2]), np.array([[0.0, 0, 9, 9], [0, np.nan, 9, 9]]))
