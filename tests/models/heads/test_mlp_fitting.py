"""Fitting with reused buffers and rounded products, for every option of recipes."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from models.heads.fit_progress import FitProgress
from models.heads.fitting import decide
from models.heads.head import FitSettings
from models.heads.mlp import MlpHead
from models.heads.mlp_fitting import RoundedLinear, SeededDropout
from models.heads.recipes import HeadRecipe, TaskRecipe
from models.heads.rows import TrainingRows
from tests.models.parity import fit_difference


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
def test_options_of_recipes_equal_plain_loops(name):
    assert fit_difference(RECIPES[name]) < 1e-6


def test_branches_share_hidden_layers():
    settings = recipe(("va", "expr", "au"), shared_hidden=True, hidden_units=(16, 9), epochs=1)
    tensors = MlpHead.fit_part(rows(), None, settings, FitSettings(3)).tensors
    for layer in ("0.weight", "0.bias", "1.weight", "1.bias"):
        assert (tensors[f"va.{layer}"] == tensors[f"expr.{layer}"]).all()
        assert (tensors[f"va.{layer}"] == tensors[f"au.{layer}"]).all()
    own = MlpHead.fit_part(rows(), None, settings.replace(shared_hidden=False), FitSettings(3)).tensors
    assert not np.allclose(own["va.0.weight"], own["expr.0.weight"])
    assert {name: values.shape for name, values in own.items()} == {name: t.shape for name, t in tensors.items()}


def test_first_weights_are_those_of_keras_by_default():
    settings = recipe(("expr",), hidden_units=50, epochs=1, learning_rate=1e-9)
    tensors = MlpHead.fit_part(rows(), None, settings, FitSettings(3)).tensors
    for name, inputs, outputs in (("expr.0", 25, 50), ("expr.1", 50, 8)):
        limit = np.sqrt(6 / (inputs + outputs))
        assert 0.95 * limit < np.abs(tensors[f"{name}.weight"]).max() <= limit + 1e-6
        assert np.abs(tensors[f"{name}.bias"]).max() < 1e-7


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


def test_an_epoch_visits_other_rows_each_time_and_no_more_than_the_recipe_says():
    class Visits(FitProgress):
        counts: ClassVar[list[int]] = []

        def add_rows(self, count):
            self.counts.append(count)

    settings = recipe(("expr",), epoch_rows=100, epochs=2, learning_rate=1e-9, balanced=False)
    progress = Visits(TaskRecipe((settings,)))
    limited = MlpHead.fit_part(rows(), None, settings, FitSettings(3, progress=progress))
    assert progress.counts == [64, 36, 64, 36]
    first, second = (epoch["train_loss"] for epoch in limited.history)
    assert abs(first - second) > 1e-3
    enough = (MlpHead.fit_part(rows(), None, settings.replace(epoch_rows=n), FitSettings(3)) for n in (0, 700))
    assert len({fitted.tensors["expr.0.weight"].tobytes() for fitted in enough}) == 1


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
