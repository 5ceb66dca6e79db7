import torch

from models.devices import default_device


def test_device_is_one_that_works():
    assert torch.ones(2, device=default_device()).sum().item() == 2
