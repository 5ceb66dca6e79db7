"""Compare fitting with reused buffers and rounded products with plain torch, for every option of recipes."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from models.heads.fitting import decide
from models.heads.head import FitSettings
from models.heads.losses import ccc_loss, class_weights, expression_loss, unit_loss, unit_weights
from models.heads.mlp import MlpHead
from models.heads.mlp_fitting import RoundedLinear, SeededDropout
from models.heads.recipes import HeadRecipe, hidden_sizes
from models.heads.rows import TrainingRows, moments


def rows(count=700, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(1, 2, (count, 20))
    expr = (x[:, :8].argmax(axis=1)).astype("i1")
    au = (x[:, :12] > 1.5).astype("i1")
    va = np.tanh(x[:, :2] / 3).astype("f4")
    expr[random.random(count) < 0.2] = -1
    au[random.random((count, 12)) < 0.1] = -1
    va[random.random(count) < 0.2] = np.nan
    return TrainingRows(x.astype("f2"), random.normal(size=(count, 5)).astype("f4"), {"expr": expr, "va": va, "au": au})


def fit_plainly(train, recipe, seed):
    """One linear or hidden head per branch, written with torch's own layers and new arrays for every batch."""
    known = train.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    width = train.width(recipe.features)
    mean, deviation = torch.zeros(width), torch.ones(width)
    if recipe.standardize:
        mean, deviation = moments(train, known, recipe.features)
    networks = nn.ModuleDict()
    for branch in recipe.branches:
        sizes = [width, *hidden_sizes(recipe.hidden_units), {"expr": 8, "va": 2, "au": 12}[branch]]
        layers = []
        for inner, outer in itertools.pairwise(sizes):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        networks[branch] = nn.Sequential(*layers[:-1])
        for layer in layers[::2]:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    weights = {
        "expr": class_weights(train.labels["expr"][known], balanced=recipe.balanced),
        "au": unit_weights(train.labels["au"][known], balanced=recipe.balanced),
    }
    optimizer = torch.optim.Adam(networks.parameters(), lr=recipe.learning_rate, eps=1e-7)
    for _ in range(recipe.epochs):
        order = random.permutation(known)
        for first in range(0, len(order), recipe.batch_size):
            batch = order[first : first + recipe.batch_size]
            features = {"embeddings": [train.embeddings], "scores": [train.logits]}
            parts = features.get(recipe.features, [train.embeddings, train.logits])
            x = torch.from_numpy(np.concatenate([part[batch] for part in parts], axis=1).astype("f4"))
            x = (x - mean) / deviation
            loss = torch.zeros(())
            for branch, network in networks.items():
                y, out = torch.from_numpy(train.labels[branch][batch]).float(), network(x)
                if branch == "expr":
                    loss = loss + expression_loss(out.softmax(1), y.long(), class_weight=weights["expr"])
                elif branch == "va":
                    loss = loss + ccc_loss(out.tanh(), y)
                else:
                    masked = recipe.published_masking
                    loss = loss + unit_loss(out.sigmoid(), y, unit_weight=weights["au"], published_masking=masked)
            for layer in networks.modules():
                if isinstance(layer, nn.Linear):
                    loss = loss + recipe.l2 * layer.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    first = {branch: network[0].weight / deviation for branch, network in networks.items()}
    return {f"{branch}.0.weight": weight.detach().numpy() for branch, weight in first.items()}


def recipe(branches, **changes):
    settings = {"features": "both", "hidden_units": 16, "l2": 0.0, "batch_size": 64, "epochs": 3, "checkpoint": "loss"}
    return HeadRecipe(branches, **settings | changes)


RECIPES = {
    "units, hidden": recipe(("au",)),
    "units, whole rows, penalty": recipe(("au",), drop_partial_units=True, l2=1e-3, features="embeddings"),
    "expressions, standardised": recipe(("expr",), standardize=True, balanced=False),
    "values, linear scores": recipe(("va",), hidden_units=0, features="scores", l2=1 / 512),
    "all, published masks": recipe(("va", "expr", "au"), hidden_units=0, published_masking=True),
    "expressions, two hidden layers": recipe(("expr",), hidden_units=(16, 9)),
    "all, hidden": recipe(("va", "expr", "au"), standardize=True),
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_float32_equals_plain_torch(name):
    train, settings = rows(), RECIPES[name]
    fitted = MlpHead.fit_part(train, None, settings, FitSettings(3))
    for tensor, expected in fit_plainly(train, settings, 3).items():
        np.testing.assert_allclose(fitted.tensors[tensor], expected, atol=2e-5)


@pytest.mark.parametrize("name", list(RECIPES))
def test_bfloat16_stays_near_float32(name):
    train, validation, settings = rows(), rows(seed=1), RECIPES[name]
    rounded = MlpHead.fit_part(train, validation, settings, FitSettings(3, "bfloat16"))
    plain = MlpHead.fit_part(train, validation, settings, FitSettings(3))
    assert rounded.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], abs=0.02)
    for tensor, values in plain.tensors.items():
        if settings.hidden_units == 0:
            assert (rounded.tensors[tensor] == values).all()


def test_same_seed_gives_same_bytes_with_dropout_and_rounding():
    settings = recipe(("expr",), dropout=0.5, standardize=True)
    first, second = (MlpHead.fit_part(rows(), None, settings, FitSettings(1, "bfloat16")) for _ in range(2))
    assert all((first.tensors[name] == second.tensors[name]).all() for name in first.tensors)


def test_one_row_and_a_batch_larger_than_all_rows():
    one = rows(1)
    one.labels["au"][:] = 1
    fitted = MlpHead.fit_part(one, one, recipe(("au",)), FitSettings(0, "bfloat16"))
    assert len(fitted.history) == 3 and fitted.best_epoch in (1, 2, 3)
    assert all(np.isfinite(values).all() for values in fitted.tensors.values())


def test_decisions():
    assert decide("expr", np.array([[0.1, 0.9]])).tolist() == [1]
    assert decide("au", np.array([[0.5, 0.4]])).tolist() == [[1, 0]]
    assert decide("va", np.array([[0.3, -0.3]])).tolist() == [[0.3, -0.3]]


def pair_of_layers(width=64, outputs=16):
    torch.manual_seed(0)
    plain, ours = nn.Linear(width, outputs), RoundedLinear(width, outputs)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_rounded_layer_equals_a_plain_layer_except_for_rounding(rows):
    plain, ours = pair_of_layers()
    inputs, pull = torch.randn(rows, 64), torch.randn(rows, 16)
    for layer in (plain, ours):
        (layer(inputs) * pull).sum().backward()
    torch.testing.assert_close(ours(inputs), plain(inputs), atol=0.02, rtol=0.02)
    for name in ("weight", "bias"):
        got, expected = getattr(ours, name).grad, getattr(plain, name).grad
        assert got.dtype == torch.float32
        assert (got - expected).norm() < 0.01 * expected.norm()


def test_rounded_layer_accepts_batches_of_changing_size():
    plain, ours = pair_of_layers()
    for rows in (5, 20, 3):
        inputs = torch.randn(rows, 64)
        torch.testing.assert_close(ours(inputs), plain(inputs), atol=0.02, rtol=0.02)
    assert set(ours.state_dict()) == {"weight", "bias"}


def test_dropout_drops_its_share_and_keeps_the_mean():
    layer, values = SeededDropout(0.3, np.random.default_rng(0)), torch.ones(400, 500, requires_grad=True)
    out = layer(values)
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    out.sum().backward()
    assert (values.grad == out.detach()).all()
    assert layer.eval()(values) is values and SeededDropout(0.0, np.random.default_rng(0))(values) is values


def test_dropout_does_not_depend_on_other_random_generators():
    values = torch.ones(10, 10)
    first, second = (SeededDropout(0.5, np.random.default_rng(4)) for _ in range(2))
    kept = first(values)
    torch.rand(3)
    np.random.default_rng(4).random()
    assert (second(values) == kept).all() and (second(values) != kept).any()
