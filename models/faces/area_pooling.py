"""Adaptive average pooling of many boxes at once, through integral images: four reads per pooled pixel and channel."""

import numba
import numpy as np
import torch
from torch import Tensor


class AreaPooling:
    """Crops of any size pooled to small squares, exactly as ``adaptive_avg_pool2d`` pools them."""

    def __init__(self, frames: Tensor) -> None:
        """``frames`` is uint8 [B, H, W, 3]. int32 sums may wrap around; their differences are right all the same."""
        if frames.device.type == "cpu":
            sums = np.zeros((len(frames), frames.shape[1] + 1, frames.shape[2] + 1, 3), np.int32)
            for frame, target in zip(frames.numpy(), sums, strict=True):
                _integrate(frame, target)
            self._sums = torch.from_numpy(sums)
            return
        summed = frames.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        self._sums = torch.nn.functional.pad(summed, (0, 0, 1, 0, 1, 0))

    def pool(self, box_px: Tensor, owner: Tensor, *, size_px: int) -> Tensor:
        """Mean colours float32 [n, 3, size, size] of boxes (int64 [n, 4]: x1, y1, x2, y2, ends exclusive).

        ``owner`` int64 [n] says of which frame. Boxes must lie inside the frame and hold at least one pixel.
        """
        left, right = _pool_edges(box_px[:, 0], box_px[:, 2], size_px)
        top, bottom = _pool_edges(box_px[:, 1], box_px[:, 3], size_px)
        at = owner[:, None, None]
        upper, lower = top[:, :, None], bottom[:, :, None]
        near, far = left[:, None, :], right[:, None, :]
        total = self._sums[at, lower, far] - self._sums[at, upper, far]
        total = total - self._sums[at, lower, near] + self._sums[at, upper, near]
        pixels = ((lower - upper) * (far - near))[..., None]
        # float64: a large box holds more than the 2**24 that float32 counts exactly.
        return (total.double() / pixels).float().permute(0, 3, 1, 2)


def _pool_edges(start: Tensor, end: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """First and one-past-last pixel [n, size] of every pooling window."""
    length = (end - start)[:, None]
    step = torch.arange(size_px, device=start.device)[None]
    first = (step * length).div(size_px, rounding_mode="floor")
    last = ((step + 1) * length + size_px - 1).div(size_px, rounding_mode="floor")
    return start[:, None] + first, start[:, None] + last


@numba.njit(cache=True, nogil=True)
def _integrate(frame: np.ndarray, target: np.ndarray) -> None:
    height, width = frame.shape[:2]
    for y in range(height):
        red = green = blue = np.int32(0)
        for x in range(width):
            red += frame[y, x, 0]
            green += frame[y, x, 1]
            blue += frame[y, x, 2]
            target[y + 1, x + 1, 0] = target[y, x + 1, 0] + red
            target[y + 1, x + 1, 1] = target[y, x + 1, 1] + green
            target[y + 1, x + 1, 2] = target[y, x + 1, 2] + blue
