"""The input of every network for one portrait, as pinned values: the preprocessing that its weights were trained with.

The values were computed from the image's bytes: (210 / 255 - 0.485) / 0.229 = 1.4783 is the first of B0. Those of
MobileNet come from ``cv2.resize``.
"""

from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from models.backbones.network import normalise
from models.backbones.registry import REGISTRY
from models.backbones.resizing import resize_to_square

# Red, green, blue at (1/4 height, 1/2 width) and (1/2 height, 1/3 width).
_B0 = ((1.4783, 1.0280, 0.8274), (-1.5014, -1.7381, -1.6476))
_B2 = ((1.4954, 1.0455, 0.8448), (-1.4843, -1.7381, -1.6476))
_MOBILENET = ((107.061, 61.221, 30.320), (-67.939, -98.779, -113.680))
GOLDEN = {
    "emotion_lite0": ((0.3587, 0.3587, 0.3587), (-0.8180, -0.8180, -0.8180)),
    "efficientnet_lite0": ((0.6484, 0.3750, 0.1875), (-0.7109, -0.8594, -0.9219)),
    "tf_efficientnet_b0": _B0,
    "tf_efficientnet_b2": _B2,
    "mobilenet_v1": _MOBILENET,
    "enet_b0_8_best_vgaf": _B0,
    "enet_b0_8_best_afew": _B0,
    "enet_b0_8_va_mtl": _B0,
    "enet_b2_7": _B2,
    "enet_b2_8": _B2,
    "enet_b2_8_best": _B2,
    "mobilenet_7": _MOBILENET,
    "vggface2_enet0": _B0,
    "vggface2_enet2": _B2,
}


@pytest.fixture(scope="module")
def astronaut():
    """Read a PNG file, which every decoder reproduces exactly."""
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as image:
        return np.asarray(image.convert("RGB"))


def test_every_backbone_has_golden_values():
    assert GOLDEN.keys() == REGISTRY.keys()


@pytest.mark.parametrize("name", GOLDEN)
def test_network_input_equals_golden_values(name, astronaut):
    spec = REGISTRY[name]
    size = spec.input_px
    x = normalise(torch.from_numpy(resize_to_square(astronaut, size, spec.interpolation)[None].copy()), spec)[0]
    found = (x[:, size // 4, size // 2], x[:, size // 2, size // 3])
    for values, expected in zip(found, GOLDEN[name], strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-4 * spec.scale / min(spec.std) / 255, rtol=1e-4)
