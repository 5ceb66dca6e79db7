"""The three networks of MTCNN with the weights that ship inside facenet-pytorch.

Here: loading, the fingerprint of the weights, and the memory layout that is fast on a CPU. Not here: the cascade
around the networks (`mtcnn.py`).
"""

import hashlib
from functools import cache
from importlib.resources import as_file, files
from typing import NamedTuple

import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from torch import Tensor, nn

# A multiple of 4 floats instead of P-Net's 10 channels: 1.3 times as fast on a CPU with wide vectors, same result.
_PNET_FIRST_CHANNELS = 12


class MtcnnNets(NamedTuple):
    """`proposal`: float32 [n, 3, h, w] -> [n, 6, cells_y, cells_x]: logits of no face and face, then four box offsets.

    `refine` and `output` are facenet-pytorch's R-Net and O-Net: [n, 3, 24, 24] -> offsets [n, 4], probabilities [n, 2];
    [n, 3, 48, 48] -> offsets [n, 4], landmarks [n, 10] (five x, then five y), probabilities [n, 2].
    """

    proposal: nn.Module
    refine: nn.Module
    output: nn.Module


def load_nets(device: torch.device) -> MtcnnNets:
    """Networks in evaluation mode on `device`, without gradients, in channels-last memory (3 to 4 times as fast on CPU)."""
    pnet, rnet, onet = PNet(pretrained=False), RNet(pretrained=False), ONet(pretrained=False)
    for name, net in (("pnet", pnet), ("rnet", rnet), ("onet", onet)):
        net.load_state_dict(_read_weights(name))
    nets = MtcnnNets(_merge_proposal_net(pnet), rnet, onet)
    for net in nets:
        net.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)
    return nets


@cache
def detector_weights_digest() -> str:
    """SHA-256, as 64 hex digits, over names, types, shapes and little-endian bytes of all tensors of the three networks.

    For fingerprints: two installations with the same digest detect the same faces.
    """
    digest = hashlib.sha256()
    for name in ("pnet", "rnet", "onet"):
        for key, tensor in sorted(_read_weights(name).items()):
            array = tensor.contiguous().numpy()
            digest.update(f"{name}.{key} {array.dtype.name} {list(array.shape)}\n".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _read_weights(name: str) -> dict[str, Tensor]:
    # Not `PNet(pretrained=True)`: on older torch that unpickles with code execution.
    with as_file(files("facenet_pytorch") / "data" / f"{name}.pt") as path:
        return torch.load(path, map_location="cpu", weights_only=True)


@torch.no_grad()
def _merge_proposal_net(pnet: PNet) -> nn.Sequential:
    """P-Net as one chain: both 1x1 heads as one convolution (one pass over the memory), first layer padded with zeros."""
    narrow = pnet.conv1.out_channels
    conv1 = nn.Conv2d(3, _PNET_FIRST_CHANNELS, kernel_size=3)
    prelu1 = nn.PReLU(_PNET_FIRST_CHANNELS)
    conv2 = nn.Conv2d(_PNET_FIRST_CHANNELS, pnet.conv2.out_channels, kernel_size=3)
    head = nn.Conv2d(pnet.conv4_1.in_channels, 6, kernel_size=1)
    for padded in (conv1.weight, conv1.bias, prelu1.weight, conv2.weight):
        assert padded is not None
        padded.zero_()
    conv1.weight[:narrow], conv1.bias[:narrow] = pnet.conv1.weight, pnet.conv1.bias  # type: ignore[index]
    prelu1.weight[:narrow] = pnet.prelu1.weight
    conv2.weight[:, :narrow], conv2.bias[:] = pnet.conv2.weight, pnet.conv2.bias  # type: ignore[index]
    head.weight[:] = torch.cat([pnet.conv4_1.weight, pnet.conv4_2.weight])
    head.bias[:] = torch.cat([pnet.conv4_1.bias, pnet.conv4_2.bias])  # type: ignore[index]
    return nn.Sequential(conv1, prelu1, pnet.pool1, conv2, pnet.prelu2, pnet.conv3, pnet.prelu3, head)
