import pytest
import torch

from models.backbones.network import build_network
from models.backbones.registry import get_spec
from models.pretraining.layers import load_trunk, make_optimizer, stored, trained_layers
from models.pretraining.recipes import Phase


@pytest.fixture(scope="module")
def network():
    return build_network(get_spec("emotion_lite0"))


def test_which_layers_learn(network):
    head = trained_layers(network, Phase("head", 1, 1e-3), frozen_stages=0)
    assert {id(p) for p in head} == {id(p) for p in network.classifier.parameters()} and not network.bn1.training
    part = trained_layers(network, Phase("all", 1, 1e-3), frozen_stages=2)
    learning = {id(p) for p in part}
    assert id(network.conv_stem.weight) not in learning and id(network.blocks[2][0].conv_pw.weight) in learning
    assert not network.blocks[1].training and network.blocks[2].training
    assert len(trained_layers(network, Phase("all", 1, 1e-3), frozen_stages=0)) == len(list(network.parameters()))


def test_norms_and_biases_do_not_shrink(network):
    optimizer = make_optimizer(list(network.parameters()), Phase("all", 1, 1e-3), weight_decay=0.1)
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_class_layers_are_not_loaded_and_mismatches_are_told(network):
    start = {name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()}
    before = network.classifier.weight.detach().clone()
    load_trunk(network, start | {"classifier.weight": torch.zeros(3)})
    assert torch.equal(network.classifier.weight, before) and (network.conv_stem.weight == 1).all()
    with pytest.raises(ValueError, match=r"expected tensor bn1\.bias \(32,\), got \(2,\)"):
        load_trunk(network, start | {"bn1.bias": torch.ones(2)})


def test_layers_are_kept_in_half_precision_and_norms_in_full():
    assert stored(torch.ones(2, 3)).dtype == torch.float16 and stored(torch.ones(3)).dtype == torch.float32
