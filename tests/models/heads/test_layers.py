import numpy as np
import pytest
import torch
from torch import nn

from models.engines.precision import native_precision
from models.heads.layers import RoundedLinear, SeededDropout


def pair_of_layers(width=64, outputs=16):
    torch.manual_seed(0)
    plain, ours = nn.Linear(width, outputs), RoundedLinear(width, outputs)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_product_and_gradients_are_those_of_a_plain_layer_but_for_rounding(rows):
    plain, ours = pair_of_layers()
    inputs, pull = torch.randn(rows, 64), torch.randn(rows, 16)
    for layer in (plain, ours):
        (layer(inputs) * pull).sum().backward()
    torch.testing.assert_close(ours(inputs), plain(inputs), atol=0.02, rtol=0.02)
    for name in ("weight", "bias"):
        got, expected = getattr(ours, name).grad, getattr(plain, name).grad
        assert got.dtype == torch.float32
        assert (got - expected).norm() < 0.01 * expected.norm()


def test_batches_of_changing_size_do_not_disturb_each_other():
    plain, ours = pair_of_layers()
    for rows in (5, 20, 3):
        inputs = torch.randn(rows, 64)
        torch.testing.assert_close(ours(inputs), plain(inputs), atol=0.02, rtol=0.02)
    assert set(ours.state_dict()) == {"weight", "bias"}


def test_precision_of_devices():
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    assert native_precision() == ("bfloat16" if native else "float32")
    assert native_precision("cuda") == "float32"


def test_dropout_drops_the_share_and_keeps_the_mean():
    layer, values = SeededDropout(0.3, np.random.default_rng(0)), torch.ones(400, 500, requires_grad=True)
    out = layer(values)
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    out.sum().backward()
    assert (values.grad == out.detach()).all()
    assert layer.eval()(values) is values and SeededDropout(0.0, np.random.default_rng(0))(values) is values


def test_dropout_of_one_seed_is_the_same_whatever_else_draws():
    values = torch.ones(10, 10)
    first, second = (SeededDropout(0.5, np.random.default_rng(4)) for _ in range(2))
    kept = first(values)
    torch.rand(3)
    np.random.default_rng(4).random()
    assert (second(values) == kept).all() and (second(values) != kept).any()
