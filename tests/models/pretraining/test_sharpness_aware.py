import pytest
import torch
from torch import nn

from models.pretraining.sharpness_aware import sharpness_aware_step


def test_the_gradient_is_taken_uphill():
    """f(w) = w0^4 + w1^2 at (1, 2): g = (4, 4), so the second gradient is that at w + rho (1, 1) / sqrt 2."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0]])
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)

    def loss_of():
        w0, w1 = layer.weight[0]
        return w0**4 + w1**2

    loss = sharpness_aware_step(optimizer, loss_of, network=layer, rho=0.05)
    up = 0.05 / 2**0.5
    expected = torch.tensor([[1 - 0.1 * 4 * (1 + up) ** 3, 2 - 0.1 * 2 * (2 + up)]])
    torch.testing.assert_close(layer.weight.data, expected)
    assert loss.item() == pytest.approx(5.0)


def test_without_radius_it_is_the_optimizer_itself():
    torch.manual_seed(0)
    one, other = nn.Linear(5, 2), nn.Linear(5, 2)
    other.load_state_dict(one.state_dict())
    x = torch.randn(8, 5)
    for layer, rho in ((one, 0.0), (other, None)):
        optimizer = torch.optim.Adam(layer.parameters(), 1e-2)
        if rho is None:
            layer(x).square().mean().backward()
            optimizer.step()
        else:
            sharpness_aware_step(optimizer, lambda: one(x).square().mean(), network=layer, rho=rho)
    torch.testing.assert_close(one.weight, other.weight)


def test_statistics_are_counted_once():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x = torch.randn(16, 3) + 5
    sharpness_aware_step(optimizer, lambda: network(x).square().mean(), network=network, rho=0.05)
    torch.testing.assert_close(network[0].running_mean, 0.1 * x.mean(0))
    assert network[0].momentum == 0.1
