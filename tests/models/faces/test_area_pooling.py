import numpy as np
import torch

from models.faces.area_pooling import AreaPooling


def test_equals_adaptive_average_pooling():
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, 90, 130, 3), dtype=np.uint8)
    pooling = AreaPooling(torch.from_numpy(frames))
    boxes = [(0, 0, 130, 90), (5, 7, 29, 31), (10, 20, 17, 23), (129, 89, 130, 90), (3, 1, 100, 80)]
    for size in (24, 48):
        for owner in (0, 1):
            pooled = pooling.pool(torch.tensor(boxes), torch.full((len(boxes),), owner), size_px=size)
            for (x1, y1, x2, y2), got in zip(boxes, pooled, strict=True):
                crop = torch.from_numpy(frames[owner, y1:y2, x1:x2]).permute(2, 0, 1).double()
                expected = torch.nn.functional.adaptive_avg_pool2d(crop, size)
                torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=0)


def test_sums_that_wrap_around_are_right_all_the_same():
    frames = np.full((1, 3000, 3000, 3), 255, np.uint8)
    assert 3000 * 3000 * 255 > 2**31
    pooled = AreaPooling(torch.from_numpy(frames)).pool(
        torch.tensor([[2900, 2900, 3000, 3000]]), torch.tensor([0]), size_px=24
    )
    assert (pooled == 255).all()
