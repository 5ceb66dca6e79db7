import numpy as np
import pytest
import torch
from scipy.optimize import check_grad

from models.heads.ccc_fit import CccFit
from models.heads.feature_rows import TrainingRows
from models.heads.fitting import fit_seeds
from models.heads.losses import ccc_loss
from models.heads.recipes import get_recipe


def rows(count, seed=0, width=20):
    random = np.random.default_rng(seed)
    x, logits = random.normal(1, 2, (count, width)), random.normal(0.3, 1, (count, 5))
    maps = np.random.default_rng(9).normal(size=(width + 5, 2))
    va = np.tanh(np.hstack([x, logits]) @ maps / 8 + 0.3 * random.normal(size=(count, 2))).astype("f4")
    va[random.random(count) < 0.2] = np.nan
    none = {"expr": np.full(count, -1, "i1"), "au": np.full((count, 12), -1, "i1")}
    return TrainingRows(x.astype("f2"), logits.astype("f4"), {"va": va} | none)


def recipe(**changes):
    (part,) = get_recipe("default", task="va").replace(hidden_units=0).parts
    return part.replace(**changes)


@pytest.mark.parametrize("width", [20, 40])  # few inputs are kept and summed over in another way
@pytest.mark.parametrize("features", ["embeddings", "scores", "both"])
@pytest.mark.parametrize("standardize", [True, False])
def test_loss_is_that_of_adam_and_the_gradient_is_its_own(width, features, standardize):
    data = rows(1500, width=width)
    fit = CccFit(data, recipe(features=features, standardize=standardize, l2=0.01))
    flat = np.random.default_rng(1).normal(0, 0.05, 2 * (data.width(features) + 1))
    known = data.labelled(("va",))
    x = data.inputs(known, features).double()
    if standardize:
        x = (x - x.mean(0)) / x.std(0, correction=0)
    w = torch.tensor(flat.reshape(2, -1), requires_grad=True)
    expected = ccc_loss(torch.tanh(x @ w[:, :-1].T + w[:, -1]), data.targets(known, "va").double())
    expected = expected + 0.01 * w[:, :-1].square().sum()
    expected.backward()
    loss, gradient = fit._loss_and_gradient(flat)
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    np.testing.assert_allclose(gradient, w.grad.numpy().ravel(), atol=1e-6)
    if data.width(features) <= 32:  # products in float32 do not show a step of 1e-8
        far = check_grad(lambda v: fit._loss_and_gradient(v)[0], lambda v: fit._loss_and_gradient(v)[1], flat)
        assert far < 1e-5


def test_not_below_adam_and_every_seed_the_same():
    train, validation = rows(4000), rows(1500, seed=1)
    settings = get_recipe("default", task="va").replace(hidden_units=0)
    ours = fit_seeds(train, validation, task="va", recipe=settings)
    adam = fit_seeds(train, validation, task="va", recipe=settings.replace(optimizer="adam", seeds=1))
    assert ours.figures["mean_ccc"] > adam.figures["mean_ccc"] - 0.002
    tensors = ours.head.tensors
    assert (tensors["seed0.va.0.weight"] == tensors["seed2.va.0.weight"]).all()
    again = fit_seeds(train, validation, task="va", recipe=settings)
    assert all((again.head.tensors[name] == tensor).all() for name, tensor in tensors.items())


def test_the_best_iteration_is_kept_and_can_be_repeated_without_validation():
    train, validation = rows(800), rows(400, seed=1)
    fit = CccFit(train, recipe())
    history, best = fit.run(validation)
    assert best == int(np.argmax([entry["mean_ccc"] for entry in history])) + 1
    repeated = CccFit(train, recipe(epochs=best, patience=0))
    assert repeated.run(None)[1] == best
    for name, tensor in fit.tensors().items():
        np.testing.assert_allclose(repeated.tensors()[name], tensor, atol=1e-7)
    losses = [entry["train_loss"] for entry in history]
    assert losses == sorted(losses, reverse=True)


def test_checkpoint_by_loss_and_few_rows():
    train = rows(40)
    history, best = CccFit(train, recipe(checkpoint="loss", patience=0)).run(train)
    assert history[best - 1]["loss"] == min(entry["loss"] for entry in history)
    blank = TrainingRows(train.embeddings, train.logits, train.labels | {"va": np.full((40, 2), np.nan, "f4")})
    with pytest.raises(ValueError, match="expected labelled training rows"):
        CccFit(blank, recipe())
    with pytest.raises(ValueError, match="expected labelled validation rows"):
        CccFit(train, recipe()).run(blank)
    same = TrainingRows(train.embeddings, train.logits, train.labels | {"va": np.zeros((40, 2), "f4")})
    with pytest.raises(ValueError, match="all labels equal"):
        CccFit(same, recipe()).run(None)
