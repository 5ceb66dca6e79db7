"""Fitting in reused buffers and rounded products against plain torch: every recipe option, step by step."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from models.heads.adam_fit import AdamFit, decide
from models.heads.feature_rows import TrainingRows, moments
from models.heads.losses import ccc_loss, class_weights, expression_loss, unit_loss, unit_weights
from models.heads.recipes import HeadRecipe


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
    """One linear or hidden head per branch, as one writes it without thought: torch's layers, fresh arrays."""
    known = train.labelled(recipe.branches, drop_partial_units=recipe.drop_partial_units)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    width = train.width(recipe.features)
    mean, deviation = torch.zeros(width), torch.ones(width)
    if recipe.standardize:
        mean, deviation = moments(train, known, recipe.features)
    networks = nn.ModuleDict()
    for branch in recipe.branches:
        sizes = [width, *([recipe.hidden_units] if recipe.hidden_units else []), {"expr": 8, "va": 2, "au": 12}[branch]]
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
            x = (train.inputs(batch, recipe.features) - mean) / deviation
            loss = torch.zeros(())
            for branch, network in networks.items():
                y, out = train.targets(batch, branch), network(x)
                if branch == "expr":
                    loss = loss + expression_loss(out.softmax(1), y, class_weight=weights["expr"])
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
    "all, hidden": recipe(("va", "expr", "au"), standardize=True),
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_float32_is_plain_torch(name):
    train, settings = rows(), RECIPES[name]
    fit = AdamFit(train, settings, seed=3, precision="float32")
    fit.run(None)
    for tensor, expected in fit_plainly(train, settings, 3).items():
        np.testing.assert_allclose(fit.tensors()[tensor], expected, atol=2e-5)


@pytest.mark.parametrize("name", list(RECIPES))
def test_bfloat16_stays_near(name):
    train, settings = rows(), RECIPES[name]
    fit = AdamFit(train, settings, seed=3, precision="bfloat16")
    history, _ = fit.run(rows(seed=1))
    plain = AdamFit(train, settings, seed=3, precision="float32")
    expected, _ = plain.run(rows(seed=1))
    assert history[-1]["loss"] == pytest.approx(expected[-1]["loss"], abs=0.02)
    for tensor, values in plain.tensors().items():
        if settings.hidden_units == 0:
            assert (fit.tensors()[tensor] == values).all()


def test_same_seed_same_bytes_with_dropout_and_rounding():
    settings = recipe(("expr",), dropout=0.5, standardize=True)
    first, second = (AdamFit(rows(), settings, seed=1, precision="bfloat16") for _ in range(2))
    for fit in (first, second):
        fit.run(None)
    assert all((first.tensors()[name] == second.tensors()[name]).all() for name in first.tensors())


def test_one_row_and_a_batch_larger_than_all_rows():
    one = rows(1)
    one.labels["au"][:] = 1
    fit = AdamFit(one, recipe(("au",)), seed=0, precision="bfloat16")
    history, best = fit.run(one)
    assert len(history) == 3 and best in (1, 2, 3)
    assert all(np.isfinite(values).all() for values in fit.tensors().values())


def test_decisions():
    assert decide("expr", np.array([[0.1, 0.9]])).tolist() == [1]
    assert decide("au", np.array([[0.5, 0.4]])).tolist() == [[1, 0]]
    assert decide("va", np.array([[0.3, -0.3]])).tolist() == [[0.3, -0.3]]
