import numpy as np
import pytest
import torch

from models.backbones.gpu_resize import LARGEST_PX, DeviceResize
from models.backbones.weights import resize_to_square

SIDES = [(1, 1), (2, 320), (320, 2), (224, 224), (223, 225), (225, 223), (LARGEST_PX, LARGEST_PX), (112, 112)]


@pytest.mark.parametrize("size_px", [160, 224, 260])
def test_every_byte_is_pillows(size_px):
    rng = np.random.default_rng(size_px)
    sides = SIDES + [tuple(rng.integers(1, LARGEST_PX + 1, 2)) for _ in range(24)]
    images = [rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides]
    # What is left there of other pictures must not be seen.
    places = rng.integers(0, 256, (len(images) + 1, LARGEST_PX, LARGEST_PX, 3), dtype=np.uint8)
    resizer = DeviceResize(size_px, device=torch.device("cpu"))
    layout = resizer.pack(images, places)
    squares = resizer.resize(torch.from_numpy(places), torch.from_numpy(layout)).numpy()
    assert squares.shape == (len(images) + 1, size_px, size_px, 3)
    for image, square in zip(images, squares, strict=False):
        np.testing.assert_array_equal(square, resize_to_square(image, size_px), err_msg=str(image.shape))
    assert 0 < layout[:, 2].sum() < len(images)
