import math

import numpy as np
import pytest
import torch

from models.heads.losses import log_prior
from models.pretraining.batch import Batch, batch_loss
from models.pretraining.recipes import get_pretraining

RECIPE = get_pretraining("paper", "emotion").replace(label_smoothing=0.0)
NONE = torch.full((2, 2), math.nan)


def loss_of(outputs, batch, recipe=RECIPE, prior=(0.0, 0.0)):
    return float(batch_loss(outputs, batch, recipe, weights=torch.ones(2), prior=torch.tensor(prior)))


def test_rows_without_a_label_do_not_count():
    outputs = torch.tensor([[2.0, 0.0], [5.0, -5.0]])
    classes = torch.tensor([0, -1])
    batch = Batch(torch.zeros(2, 1, 1, 3), classes, classes, NONE, torch.ones(2))
    assert loss_of(outputs, batch) == pytest.approx(math.log(1 + math.exp(-2)))
    nothing = Batch(batch.pixels, torch.full((2,), -1), torch.full((2,), -1), NONE, torch.ones(2))
    assert loss_of(outputs, nothing) == 0


def test_a_prior_asks_more_of_rare_classes():
    """With the prior added, equal logits stand for the prior: loss -log p of the label's class."""
    prior = log_prior(np.array([0, 0, 0, 1, -1]), np.ones(5, np.float32), 2)
    assert prior.exp().tolist() == pytest.approx([4 / 6, 2 / 6])
    classes = torch.tensor([0, 1])
    batch = Batch(torch.zeros(2, 1, 1, 3), classes, classes, NONE, torch.ones(2))
    expected = -(math.log(4 / 6) + math.log(2 / 6)) / 2
    assert loss_of(torch.zeros(2, 2), batch, prior=prior.tolist()) == pytest.approx(expected)


def test_mixed_pictures_have_mixed_labels():
    pixels = torch.tensor([0.0, 100.0]).view(2, 1, 1, 1).expand(2, 1, 1, 3)
    batch = Batch(pixels, torch.tensor([0, 1]), torch.tensor([0, 1]), NONE, torch.tensor([1.0, 3.0]))
    mixed = next(m for m in (batch.mixed(0.4, np.random.default_rng(s)) for s in range(50)) if m.other_classes[0] == 1)
    share = mixed.share
    assert 0 < share < 1 and mixed.pixels[:, 0, 0, 0].tolist() == pytest.approx([100 - 100 * share, 100 * share])
    assert mixed.weights.tolist() == pytest.approx([share + 3 * (1 - share), 3 * share + 1 - share])
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    rows = [share * right + (1 - share) * wrong, share * wrong + (1 - share) * right]
    expected = float((mixed.weights * torch.tensor(rows)).mean())
    assert loss_of(logits, mixed) == pytest.approx(expected, rel=1e-5)


def test_valence_and_arousal_only_where_rated():
    recipe = RECIPE.replace(valence_arousal=True)
    affect = torch.tensor([[0.5, -0.5], [-0.5, 0.5], [math.nan, math.nan]])
    unlabelled = torch.full((3,), -1)
    batch = Batch(torch.zeros(3, 1, 1, 3), unlabelled, unlabelled, affect, torch.ones(3))
    outputs = torch.cat([torch.zeros(3, 2), torch.tensor([[0.5, -0.5], [-0.5, 0.5], [9.0, 9.0]])], dim=1)
    assert loss_of(outputs, batch, recipe) == pytest.approx(0, abs=1e-5)
