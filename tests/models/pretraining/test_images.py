import math

import numpy as np
import pytest
import torch

from models.faces.crops import encode_jpeg
from models.heads.losses import log_prior
from models.pretraining.images import Batch, ImageFile, ImageSet, batch_loss, training_batches
from models.pretraining.recipes import get_pretraining

RECIPE = get_pretraining("paper", "emotion").replace(label_smoothing=0.0)
NONE = torch.full((2, 2), math.nan)


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    file = ImageFile(tmp_path)
    for _ in range(9):
        file.add(encode_jpeg(random.integers(0, 255, (40, 30, 3), np.uint8)))
    return file.finish(np.arange(9), np.full((9, 2), np.nan, np.float32), np.ones(9, np.float32))


def batches_of(images, **options):
    return list(training_batches(images, side_px=32, interpolation="bilinear", batch_size=4, **options))


def test_seed_determines_the_order_and_no_image_is_repeated(images):
    first, again, other = batches_of(images, seed=1), batches_of(images, seed=1), batches_of(images, seed=2)
    seen = [label for _, classes, *_ in first for label in classes.tolist()]
    assert len(first) == 2 and len(set(seen)) == 8, "the ninth would be alone in its batch"
    assert first[0][0].shape == (4, 32, 32, 3) and first[0][0].dtype == torch.uint8
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert seen != [label for _, classes, *_ in other for label in classes.tolist()]


def test_skipped_batches_do_not_change_the_others(images):
    whole, rest = batches_of(images, seed=5), batches_of(images, seed=5, skip=1)
    assert len(rest) == 1 and torch.equal(whole[1][0], rest[0][0])


def test_number_of_labels_must_match():
    with pytest.raises(ValueError, match="labels for 2 images"):
        ImageSet(
            np.empty(0, np.uint8), np.array([0, 1, 2]), np.zeros(3, np.int64), np.zeros((3, 2), np.float32), np.ones(3)
        )


def loss_of(outputs, batch, recipe=RECIPE, prior=(0.0, 0.0)):
    return float(batch_loss(outputs, batch, recipe, weights=torch.ones(2), prior=torch.tensor(prior)))


def test_unlabelled_rows_are_ignored_in_the_loss():
    outputs = torch.tensor([[2.0, 0.0], [5.0, -5.0]])
    classes = torch.tensor([0, -1])
    batch = Batch(torch.zeros(2, 1, 1, 3), classes, classes, NONE, torch.ones(2))
    assert loss_of(outputs, batch) == pytest.approx(math.log(1 + math.exp(-2)))
    nothing = Batch(batch.pixels, torch.full((2,), -1), torch.full((2,), -1), NONE, torch.ones(2))
    assert loss_of(outputs, nothing) == 0


def test_prior_raises_the_loss_of_rare_classes():
    """With the prior added, equal logits predict the prior: the loss is -log p of the label's class."""
    prior = log_prior(np.array([0, 0, 0, 1, -1]), np.ones(5, np.float32), 2)
    assert prior.exp().tolist() == pytest.approx([4 / 6, 2 / 6])
    classes = torch.tensor([0, 1])
    batch = Batch(torch.zeros(2, 1, 1, 3), classes, classes, NONE, torch.ones(2))
    expected = -(math.log(4 / 6) + math.log(2 / 6)) / 2
    assert loss_of(torch.zeros(2, 2), batch, prior=prior.tolist()) == pytest.approx(expected)


def test_blended_images_have_blended_labels():
    pixels = torch.tensor([0.0, 100.0]).view(2, 1, 1, 1).expand(2, 1, 1, 3)
    batch = Batch(pixels, torch.tensor([0, 1]), torch.tensor([0, 1]), NONE, torch.tensor([1.0, 3.0]))
    mixed = next(m for m in (batch.blend(0.4, np.random.default_rng(s)) for s in range(50)) if m.other_classes[0] == 1)
    share = mixed.share
    assert 0 < share < 1 and mixed.pixels[:, 0, 0, 0].tolist() == pytest.approx([100 - 100 * share, 100 * share])
    assert mixed.weights.tolist() == pytest.approx([share + 3 * (1 - share), 3 * share + 1 - share])
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    rows = [share * right + (1 - share) * wrong, share * wrong + (1 - share) * right]
    expected = float((mixed.weights * torch.tensor(rows)).mean())
    assert loss_of(logits, mixed) == pytest.approx(expected, rel=1e-5)


def test_unrated_rows_are_ignored_in_the_ccc_loss():
    recipe = RECIPE.replace(valence_arousal=True)
    affect = torch.tensor([[0.5, -0.5], [-0.5, 0.5], [math.nan, math.nan]])
    unlabelled = torch.full((3,), -1)
    batch = Batch(torch.zeros(3, 1, 1, 3), unlabelled, unlabelled, affect, torch.ones(3))
    outputs = torch.cat([torch.zeros(3, 2), torch.tensor([[0.5, -0.5], [-0.5, 0.5], [9.0, 9.0]])], dim=1)
    assert loss_of(outputs, batch, recipe) == pytest.approx(0, abs=1e-5)
