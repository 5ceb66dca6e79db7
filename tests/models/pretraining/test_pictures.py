import numpy as np
import pytest
import torch

from models.faces.crops import encode_jpeg
from models.pretraining.pictures import PictureFile, PictureSet, training_batches


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    file = PictureFile(tmp_path)
    for _ in range(9):
        file.add(encode_jpeg(random.integers(0, 255, (40, 30, 3), np.uint8)))
    return file.finish(np.arange(9), np.full((9, 2), np.nan, np.float32), np.ones(9, np.float32))


def batches_of(pictures, **options):
    return list(training_batches(pictures, side_px=32, batch_size=4, **options))


def test_every_picture_once_in_an_order_that_the_seed_sets(pictures):
    first, again, other = batches_of(pictures, seed=1), batches_of(pictures, seed=1), batches_of(pictures, seed=2)
    seen = [label for _, classes, *_ in first for label in classes.tolist()]
    assert len(first) == 2 and len(set(seen)) == 8, "the ninth would be alone in its batch"
    assert first[0][0].shape == (4, 32, 32, 3) and first[0][0].dtype == torch.uint8
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert seen != [label for _, classes, *_ in other for label in classes.tolist()]


def test_going_on_in_the_middle_shows_the_same_pictures(pictures):
    whole, rest = batches_of(pictures, seed=5), batches_of(pictures, seed=5, skip=1)
    assert len(rest) == 1 and torch.equal(whole[1][0], rest[0][0])


def test_labels_fit_pictures():
    with pytest.raises(ValueError, match="labels for 2 pictures"):
        PictureSet(
            np.empty(0, np.uint8), np.array([0, 1, 2]), np.zeros(3, np.int64), np.zeros((3, 2), np.float32), np.ones(3)
        )
