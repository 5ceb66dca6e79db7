import pytest
import timm
import torch
from torch import nn

from models.backbones.network import build_network
from models.backbones.registry import get_spec
from models.pretraining.layers import (
    load_trunk,
    make_optimizer,
    sharpness_aware_step,
    to_stored_precision,
    trained_layers,
)
from models.pretraining.recipes import Phase


@pytest.fixture(scope="module")
def network():
    return build_network(get_spec("emotion_lite0"))


def test_trained_layers_of_each_phase(network):
    head = trained_layers(network, Phase("head", 1, 1e-3), frozen_stages=0)
    assert {id(p) for p in head} == {id(p) for p in network.classifier.parameters()} and not network.bn1.training
    part = trained_layers(network, Phase("all", 1, 1e-3), frozen_stages=2)
    learning = {id(p) for p in part}
    assert id(network.conv_stem.weight) not in learning and id(network.blocks[2][0].conv_pw.weight) in learning
    assert not network.blocks[1].training and network.blocks[2].training
    assert len(trained_layers(network, Phase("all", 1, 1e-3), frozen_stages=0)) == len(list(network.parameters()))


def test_weight_decay_excludes_norms_and_biases(network):
    optimizer = make_optimizer(list(network.parameters()), Phase("all", 1, 1e-3), weight_decay=0.1)
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_load_trunk_skips_the_class_layer_and_names_mismatches(network):
    start = {name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()}
    before = network.classifier.weight.detach().clone()
    load_trunk(network, start | {"classifier.weight": torch.zeros(3)})
    assert torch.equal(network.classifier.weight, before) and (network.conv_stem.weight == 1).all()
    with pytest.raises(ValueError, match=r"expected tensor bn1\.bias of shape \(32,\), got \(2,\)"):
        load_trunk(network, start | {"bn1.bias": torch.ones(2)})


def test_layers_are_stored_in_half_precision_and_norms_in_full():
    assert to_stored_precision(torch.ones(2, 3)).dtype == torch.float16
    assert to_stored_precision(torch.ones(3)).dtype == torch.float32


def test_other_architectures_have_a_class_layer_but_no_stages_to_freeze():
    network = timm.create_model("test_resnet", num_classes=3)
    before = network.fc.weight.detach().clone()
    start = {name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()}
    load_trunk(network, start)
    assert torch.equal(network.fc.weight, before) and (network.conv1[0].weight == 1).all()
    head = trained_layers(network, Phase("head", 1, 1e-3), frozen_stages=2)
    assert {id(p) for p in head} == {id(p) for p in network.fc.parameters()}
    with pytest.raises(ValueError, match="frozen_stages: expected 0 for ResNet, got 2"):
        trained_layers(network, Phase("all", 1, 1e-3), frozen_stages=2)


def test_sharpness_aware_step_uses_the_gradient_at_the_perturbed_weights():
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


def test_radius_of_zero_is_a_plain_step():
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


def test_running_statistics_are_updated_once():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x = torch.randn(16, 3) + 5
    sharpness_aware_step(optimizer, lambda: network(x).square().mean(), network=network, rho=0.05)
    torch.testing.assert_close(network[0].running_mean, 0.1 * x.mean(0))
    assert network[0].momentum == 0.1
