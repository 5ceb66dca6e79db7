"""Selection of subjects in small scenes with a known answer."""

import numpy as np
import pytest

from models.faces.subjects import assign_subjects
from models.faces.tracking import track_faces


def face(frames, x, *, y=300.0, size=200.0, speed=0.0):
    """Return a person's face: (frame [n], box [n, 4]); ``x`` is its centre in the first of ``frames``."""
    frames = np.asarray([number for part in frames for number in part])
    centre = x + speed * (frames - frames[0])
    half = np.full(len(frames), size / 2)
    return frames, np.stack([centre - half, y - half, centre + half, y + half], axis=1)


def assign(people, subject_count=1, probability=None, **options):
    """Return the subjects of all faces, their true person (index in ``people``), and the counts."""
    frame = np.concatenate([frames for frames, _ in people])
    box = np.concatenate([boxes for _, boxes in people])
    who = np.concatenate([np.full(len(frames), place) for place, (frames, _) in enumerate(people)])
    order = np.lexsort((who, frame))
    frame, box, who = frame[order], box[order], who[order]
    probability = np.ones(len(frame)) if probability is None else np.asarray(probability)[who]
    subject, counts = assign_subjects(
        frame, box, probability, track_faces(frame, box), subject_count=subject_count, **options
    )
    return subject, who, counts


def all_are(subject, rows, value):
    return bool(np.all(subject[rows] == value))


def test_passer_by_is_no_subject_even_if_larger_for_a_moment():
    subject, who, counts = assign([face([range(1, 300)], 500), face([range(100, 140)], 0, size=320, speed=9, y=700)])
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, -1)
    assert counts == {
        "assigned": 299,
        "other people": 40,
        "frames with several faces": 40,
        "tracks": 2,
        "tracks of subjects": 1,
    }


def test_passer_by_who_hides_the_subject_is_no_subject():
    """The subject is lost for longer than a track stays active, and only the passer-by is visible meanwhile."""
    subject, who, _ = assign(
        [face([range(1, 300), range(360, 900)], 600), face([range(290, 370)], 300, size=350, speed=8)]
    )
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, -1)


def test_person_seen_only_in_the_subjects_absence_is_no_subject():
    subject, who, _ = assign([face([range(1, 300), range(500, 900)], 600), face([range(340, 460)], 1200)])
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, -1)


def test_brief_loss_keeps_the_subject():
    subject, who, counts = assign([face([range(1, 100), range(125, 200)], 500)])
    assert all_are(subject, who == 0, 0) and counts["tracks"] == 1


def test_background_person_does_not_replace_an_absent_subject():
    subject, who, _ = assign([face([range(1, 400), range(700, 1200)], 600), face([range(1, 1200)], 1500, size=90)])
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, -1)


def test_many_short_tracks_of_the_subject_outweigh_one_long_track_of_another():
    """None of the subject's ten tracks has as much area as the single track of the other person."""
    pieces = [range(start, start + 60) for start in range(1, 1000, 110)]
    people = [face(pieces, 600), face([range(1, 1000)], 1500, size=110)]
    subject, who, _ = assign(people)
    assert 60 * 200**2 < 999 * 110**2
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, -1)


def test_subject_is_kept_across_cuts_to_other_positions_and_sizes():
    shots = [
        face([range(1, 300)], 600),
        face([range(300, 420)], 1100, size=330),
        face([range(420, 900)], 400, size=120),
    ]
    inset = face([range(50, 900)], 1700, size=70)
    subject, who, _ = assign([*shots, inset])
    assert all_are(subject, who < 3, 0) and all_are(subject, who == 3, -1)


def test_cut_to_another_camera_and_back_is_followed():
    """Two cameras show one person: the short shot in between must not be skipped."""
    shots = [face([range(1, 300)], 600), face([range(300, 330)], 1300, size=300), face([range(330, 600)], 600)]
    subject, who, _ = assign(shots)
    assert all_are(subject, who >= 0, 0)


def test_much_smaller_face_after_a_cut_is_another_person():
    subject, who, _ = assign([face([range(1, 300)], 600), face([range(300, 400)], 1300, size=40)])
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, -1)


def test_person_seen_with_the_subject_for_long_does_not_continue_it():
    subject, who, _ = assign([face([range(1, 300)], 600), face([range(200, 400)], 1300, size=120)])
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, -1)


def test_early_glimpse_does_not_separate_the_subject_from_its_next_track():
    """The box jumps for one frame, which starts a track; the face continues it after the old one has ended."""
    first, second = face([range(1, 78)], 800), face([range(62, 63), range(78, 106)], 870, y=370)
    other = face([range(1, 99)], 300, size=185)
    frame = np.concatenate([first[0], second[0], other[0]])
    box = np.concatenate([first[1], second[1], other[1]])
    track = np.repeat([0, 1, 2], [len(first[0]), len(second[0]), len(other[0])])
    order = np.lexsort((track, frame))
    subject, _ = assign_subjects(frame[order], box[order], np.ones(len(frame)), track[order], subject_count=1)
    glimpse = (frame[order] == 62) & (track[order] == 1)
    assert all_are(subject, (track[order] < 2) & ~glimpse, 0) and all_are(subject, (track[order] == 2) | glimpse, -1)


def test_glimpses_are_no_stepping_stones_between_two_people():
    """Across glimpses every jump would be nearly free, because its price is a share of the lighter track."""
    left, right = face([range(1, 40)], 200), face([range(80, 106)], 1700)
    glimpses = [face([range(40, 41)], 600, size=60), face([range(60, 61)], 1300, size=60)]
    stays = face([range(1, 106)], 1000, size=150, y=700)
    subject, who, _ = assign([left, right, stays, *glimpses])
    assert all_are(subject, who == 2, 0) and all_are(subject, who != 2, -1)


def test_subject_may_enter_after_another_person():
    """Another person is there first and stays; the subject enters later and is larger."""
    subject, who, _ = assign([face([range(1, 500)], 1300, size=120), face([range(150, 500)], 600)])
    assert all_are(subject, who == 0, -1) and all_are(subject, who == 1, 0)


def test_face_in_a_single_distant_frame_is_no_subject():
    """Detectors find such faces in curtains, long after the person has left."""
    subject, who, _ = assign([face([range(1, 72)], 435, size=260), face([range(162, 163)], 657, size=90)])
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, -1)


def test_single_frame_at_the_subjects_position_is_the_subject():
    subject, _, _ = assign([face([range(1, 72), range(110, 111)], 435)])
    assert all_are(subject, slice(None), 0)


def test_largest_face_of_a_single_frame_is_the_subject():
    subject, who, _ = assign([face([range(1, 2)], 100, size=40), face([range(1, 2)], 500, size=50)])
    assert all_are(subject, who == 0, -1) and all_are(subject, who == 1, 0)


def test_improbable_face_weighs_less():
    people = [face([range(1, 50)], 300, size=100), face([range(1, 50)], 800, size=110)]
    assert all_are(assign(people)[0][1::2], slice(None), 0)
    assert all_are(assign(people, probability=[0.99, 0.7])[0][0::2], slice(None), 0)


def test_track_taken_over_by_a_passer_by_loses_only_that_part():
    """The passer-by continues the subject's track; the subject gets a new track and the frames that both share."""
    frame = np.r_[1:561, 505:2000]
    track = np.r_[np.zeros(560, int), np.ones(1495, int)]
    left = np.where((track == 0) & (frame >= 505), 300.0 + 8 * (frame - 505), 300.0)
    box = np.stack([left, np.full(len(left), 100.0), left + 150, np.full(len(left), 250.0)], axis=1)
    order = np.lexsort((track, frame))
    subject, _ = assign_subjects(frame[order], box[order], np.ones(len(frame)), track[order], subject_count=1)
    passing = (track[order] == 0) & (frame[order] >= 505)
    assert all_are(subject, ~passing, 0) and all_are(subject, passing, -1)


def test_left_and_right_while_the_camera_turns():
    """At the end the left person is where the right one was; each still has the other on the same side."""
    people = [face([range(1, 900)], 300, speed=0.6), face([range(1, 900)], 800, speed=0.6)]
    subject, who, _ = assign(people, subject_count=2)
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, 1)


def test_left_and_right_in_shots_of_different_places():
    """In the second, longer shot both are further right: the left one is right of the right one's old position."""
    lefts, rights = (
        [face([range(1, 300)], 300), face([range(300, 900)], 1000)],
        [
            face([range(1, 300)], 800),
            face([range(300, 900)], 1500),
        ],
    )
    subject, who, _ = assign([*lefts, *rights], subject_count=2)
    assert all_are(subject, who < 2, 0) and all_are(subject, who >= 2, 1)


def test_right_person_continues_alone_on_the_left():
    """The earlier position relative to the other person counts more than the later position in the frame."""
    people = [face([range(1, 150)], 700), face([range(1, 150), range(150, 550)], 1100, speed=-1.5)]
    subject, who, _ = assign(people, subject_count=2, frame_width_px=1920)
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, 1)


def test_small_person_next_to_a_subject_does_not_decide_its_side():
    people = [face([range(1, 100)], 500), face([range(1, 900)], 1200), face([range(100, 900)], 1700, size=60)]
    subject, who, _ = assign(people, subject_count=2)
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, 1)


def test_left_and_right_with_losses_and_a_small_person_between():
    lefts = [range(start, start + 100) for start in range(1, 1500, 150)]
    rights = [range(start, start + 90) for start in range(40, 1500, 140)]
    people = [face(lefts, 500), face(rights, 1300, size=180), face([range(1, 1500)], 950, size=60, y=200)]
    subject, who, _ = assign(people, subject_count=2)
    assert [set(subject[who == person].tolist()) for person in range(3)] == [{0}, {1}, {-1}]


def test_person_alone_at_first_is_the_right_one_if_another_enters_on_the_left():
    subject, who, _ = assign([face([range(400, 900)], 500), face([range(1, 900)], 1200)], subject_count=2)
    assert all_are(subject, who == 0, 0) and all_are(subject, who == 1, 1)


@pytest.mark.parametrize(("centre", "expected"), [(400, 0), (900, 1)])
def test_subject_who_is_always_alone_is_placed_by_the_frame(centre, expected):
    subject, _, _ = assign([face([range(1, 90)], centre, speed=0.5)], subject_count=2, frame_width_px=1280)
    assert all_are(subject, slice(None), expected)


@pytest.mark.parametrize("subject_count", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_subject_never_has_two_faces_in_a_frame(subject_count, seed):
    random = np.random.default_rng(seed)
    frame = np.sort(random.integers(1, 120, 300))
    corner = random.uniform(0, 300, (300, 2))
    box = np.concatenate([corner, corner + random.uniform(30, 200, (300, 1))], axis=1)
    track = track_faces(frame, box)
    subject, counts = assign_subjects(frame, box, random.uniform(0, 1, 300), track, subject_count=subject_count)
    for who in range(subject_count):
        numbers, faces = np.unique(frame[subject == who], return_counts=True)
        assert numbers.size and faces.max() == 1
    assert counts["assigned"] + counts["other people"] == 300


def test_invalid_input_is_refused():
    nothing = np.empty(0, int), np.empty((0, 4)), np.empty(0), np.empty(0, int)
    assert assign_subjects(*nothing, subject_count=2)[0].size == 0
    with pytest.raises(ValueError, match="one or two subjects in a video, got 3"):
        assign_subjects(*nothing, subject_count=3)
    twice = np.array([1, 1]), np.array([[0.0, 0, 9, 9]] * 2), np.ones(2), np.zeros(2, int)
    with pytest.raises(ValueError, match="at most one face of a track in a frame"):
        assign_subjects(*twice, subject_count=1)
