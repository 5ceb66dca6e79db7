"""Pictures resized on the device, to the same bytes that Pillow makes of them: bilinear with antialiasing.

Pillow resizes in two passes, with coefficients rounded to 22 bits and a result rounded to bytes after each (its
``Resample.c``). Whole numbers leave no room for another rounding, so a GPU can do the same to the bit.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LARGEST_PX = 320
_BITS = 22


@functools.cache
def _taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of ``size`` output pixels: the first input pixel [size], and coefficients int32 [size, taps]."""
    scale = length / size
    support = max(scale, 1.0)
    first = np.zeros(size, np.int64)
    taken = np.zeros((size, math.ceil(support) * 2 + 1), np.int32)
    for at in range(size):
        centre = (at + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), length)
        weights = [max(0.0, 1.0 - abs((x - centre + 0.5) / support)) for x in range(start, end)]
        total = sum(weights)
        first[at] = start
        taken[at, : end - start] = [int(0.5 + weight / total * (1 << _BITS)) for weight in weights]
    return first, taken


@functools.cache
def _tables(size: int) -> tuple[np.ndarray, np.ndarray]:
    """``_taps`` of every length up to ``LARGEST_PX``: int64 [lengths, size], int32 [lengths, size, taps]."""
    every = [_taps(max(length, 1), size) for length in range(LARGEST_PX + 1)]
    most = max(coefficients.shape[1] for _, coefficients in every)
    padded = [np.pad(coefficients, ((0, 0), (0, most - coefficients.shape[1]))) for _, coefficients in every]
    return np.stack([first for first, _ in every]), np.stack(padded)


class DeviceResize:
    """Resizes pictures of at most ``LARGEST_PX`` a side to squares of one size, on one device."""

    def __init__(self, size_px: int, *, device: torch.device) -> None:
        self.size_px = size_px
        first, coefficients = _tables(size_px)
        self._first = torch.from_numpy(first).to(device)
        self._coefficients = torch.from_numpy(coefficients).to(device)

    def pack(self, images: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
        """Puts pictures [h, w, 3] into ``places``, uint8 [n, LARGEST_PX, LARGEST_PX, 3], whose rest is left as it is.

        Returns:
            What ``resize`` wants to know, int64 [n, 3]: the sides of what lies in each place (1 x 1 where nothing was
            put), and 1 where it lies turned over its diagonal.
        """
        layout = np.tile(np.array([1, 1, 0]), (len(places), 1))
        for place, described, image in zip(places, layout, images, strict=False):
            height, width = image.shape[:2]
            # Here Pillow's first pass is the vertical one, as was found by trying every size.
            if height > self.size_px and 2 * width < height + self.size_px:
                image = image.transpose(1, 0, 2)
                described[2] = 1
            described[:2] = image.shape[:2]
            place[: image.shape[0], : image.shape[1]] = image
        return layout

    def resize(self, places: Tensor, layout: Tensor) -> Tensor:
        """Squares uint8 [n, size_px, size_px, 3] of what ``pack`` put into places and said of them, on the device."""
        across = self._pass(places.transpose(1, 2), layout[:, 1])
        squares = self._pass(across.transpose(1, 2), layout[:, 0])
        turned = layout[:, 2].bool()[:, None, None, None]
        return torch.where(turned, squares.transpose(1, 2), squares)

    def _pass(self, pictures: Tensor, lengths: Tensor) -> Tensor:
        """Axis 1 of uint8 [n, length, m, 3] made ``size_px`` long."""
        first, coefficients = self._first[lengths], self._coefficients[lengths]
        last = pictures.shape[1] - 1
        row = torch.arange(len(pictures), device=pictures.device)[:, None]
        total = torch.full((), 1 << (_BITS - 1), dtype=torch.int32, device=pictures.device)
        for tap in range(coefficients.shape[2]):
            # Beyond a picture's end the coefficient is 0.
            taken = pictures[row, (first + tap).clamp(max=last)]
            total = total + taken * coefficients[:, :, tap, None, None]
        return (total >> _BITS).to(torch.uint8)
