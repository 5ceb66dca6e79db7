import numpy as np
import pytest

from models.faces.persons import MergingParams, identify_persons

BOX = np.array([100.0, 100.0, 160.0, 170.0])


class Scene:
    """Faces of tracks in the order of frames, and the embeddings that a network would compute."""

    def __init__(self, *tracks):
        """Each track: first frame, number of faces, box of all faces, and embedding."""
        rows = [
            (first + n, number, box, look)
            for number, (first, count, box, look) in enumerate(tracks)
            for n in range(count)
        ]
        rows.sort(key=lambda row: row[:2])
        self.frame, self.track = (np.array([row[n] for row in rows]) for n in (0, 1))
        self.box = np.array([row[2] for row in rows], np.float32)
        self.look = np.array([row[3] for row in rows], np.float32)
        self.embedded = []

    def embed(self, rows):
        assert (np.diff(rows) > 0).all()
        self.embedded += rows.tolist()
        for part in np.array_split(rows, 2):
            yield part, self.look[part]

    def persons(self, **params):
        """Return the persons of each track, which must be one, in the order of tracks."""
        params = MergingParams(**params)
        person, self.counts = identify_persons(self.frame, self.box, self.track, embed=self.embed, params=params)
        assert person.dtype == np.int32 and len(person) == len(self.frame)
        pairs = set(zip(self.track.tolist(), person.tolist(), strict=True))
        assert len(pairs) == len(set(self.track.tolist()))
        return [number for _, number in sorted(pairs)]


ANNA, BERT = (1.0, 0.1), (0.1, 1.0)


def test_a_track_continues_through_a_cut_if_position_and_face_agree():
    assert Scene((1, 20, BOX, ANNA), (21, 20, BOX + 5, ANNA)).persons() == [1, 1]
    assert Scene((1, 20, BOX, ANNA), (21, 20, BOX + 5, BERT)).persons() == [1, 2], "another face"
    far = Scene((1, 20, BOX, ANNA), (21, 20, BOX + 200, ANNA))
    assert far.persons() == [1, 2] and far.embedded == [], "position alone rules it out"
    assert Scene((1, 20, BOX, ANNA), (21, 20, BOX * 3, ANNA)).persons() == [1, 2], "another size"
    assert Scene((1, 20, BOX, ANNA), (1700, 20, BOX, ANNA)).persons() == [1, 2], "too long ago"


def test_faces_in_one_frame_are_never_one_person():
    assert Scene((1, 20, BOX, ANNA), (20, 20, BOX, ANNA)).persons() == [1, 2]
    assert Scene((1, 40, BOX, ANNA), (10, 5, BOX, ANNA)).persons() == [1, 2]


def test_each_track_has_one_successor():
    scene = Scene((1, 20, BOX, ANNA), (21, 20, BOX, ANNA), (21, 20, BOX + 3, (1.0, 0.2)), (60, 10, BOX, ANNA))
    assert scene.persons() == [1, 1, 2, 1]
    assert scene.counts == {"persons": 2, "short tracks": 1, "tracks": 4, "joined over a cut or gap": 2}


def test_glimpses_are_not_joined():
    assert Scene((1, 2, BOX, ANNA), (5, 20, BOX, ANNA)).persons() == [1, 2]


def test_only_the_ends_of_tracks_are_compared():
    scene = Scene((1, 40, BOX, ANNA), (60, 40, BOX, ANNA))
    scene.look[:20] = scene.look[60:] = BERT
    assert scene.persons(end_faces=10) == [1, 1]
    assert len(scene.embedded) == 20 and min(scene.embedded) == 30


def test_persons_are_numbered_by_first_appearance():
    scene = Scene((30, 5, BOX, BERT), (1, 20, BOX + 200, ANNA), (10, 5, BOX, ANNA))
    assert scene.persons() == [3, 1, 2]
    person, counts = identify_persons(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, int), embed=scene.embed)
    assert len(person) == 0 and counts["persons"] == 0


def test_tracks_whose_faces_cannot_be_read_stay_apart():
    scene = Scene((1, 20, BOX, ANNA), (21, 20, BOX, ANNA))
    scene.embed = lambda rows: iter(())
    assert scene.persons() == [1, 2]


@pytest.mark.parametrize("threshold", [0.5, 0.99])
def test_similarity_is_the_cosine_of_mean_embeddings(threshold):
    scene = Scene((1, 20, BOX, (2.0, 0.0)), (21, 20, BOX, (3.0, 3.0)))
    assert scene.persons(min_similarity=threshold) == ([1, 1] if threshold < np.sqrt(0.5) else [1, 2])
