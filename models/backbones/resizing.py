"""Resizing of faces to a network's square input, with the bytes of Pillow or of OpenCV. Needs no torch.

Both filters are linear. Pillow's is antialiased when it shrinks an image; OpenCV's always interpolates between the two
nearest pixels of each axis.
"""

import functools
import math

import numpy as np
from PIL import Image

from models.backbones.registry import Interpolation

# Pillow's precision of resampling coefficients.
PILLOW_BITS = 22
# OpenCV's precision of coefficients, and what it drops of the sums over columns and of the products with rows.
OPENCV_BITS, OPENCV_COLUMN_SHIFT, OPENCV_ROW_SHIFT = 11, 4, 16


def resize_to_square(image: np.ndarray, size_px: int, interpolation: Interpolation) -> np.ndarray:
    """Resize an image uint8 [h, w, 3] to uint8 [size_px, size_px, 3]; the aspect ratio is not kept.

    ``bilinear`` returns the bytes of Pillow's bilinear filter, ``opencv_bilinear`` those of ``cv2.resize``.
    """
    if interpolation == "bilinear":
        return np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR))
    height, width = image.shape[:2]
    columns, column_weights = opencv_taps(width, size_px)
    rows, row_weights = opencv_taps(height, size_px)
    left, right = (image[:, columns[:, tap]] * column_weights[:, tap, None] for tap in range(2))
    sums = (left + right) >> OPENCV_COLUMN_SHIFT
    upper, lower = (sums[rows[:, t]] * row_weights[:, t, None, None] >> OPENCV_ROW_SHIFT for t in range(2))
    return ((upper + lower + 2) >> 2).astype(np.uint8)


@functools.lru_cache(maxsize=1024)
def opencv_taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each of ``size`` output pixels, two input pixels int64 [size, 2] and coefficients int32 [size, 2].

    Positions are float32 and coefficients are rounded to 11 bits, as in OpenCV's ``resize.cpp``. The first and the last
    input pixel are repeated.
    """
    position = ((np.arange(size) + 0.5) * (1 / (size / length)) - 0.5).astype(np.float32)
    before = np.floor(position)
    share = position - before
    indices = np.stack([before, before + 1], axis=1).astype(np.int64).clip(0, length - 1)
    coefficients = np.rint(np.stack([1 - share, share], axis=1) * np.float32(1 << OPENCV_BITS))
    return indices, coefficients.astype(np.int32)


def pillow_taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each of ``size`` output pixels, the input pixels int64 and coefficients int32, [size, taps] both."""
    scale = length / size
    support = max(scale, 1.0)
    taps = math.ceil(support) * 2 + 1
    first = np.zeros(size, np.int64)
    coefficients = np.zeros((size, taps), np.int32)
    for output in range(size):
        centre = (output + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), length)
        weights = [max(0.0, 1.0 - abs((x - centre + 0.5) / support)) for x in range(start, end)]
        total = sum(weights)
        first[output] = start
        coefficients[output, : end - start] = [int(0.5 + w / total * (1 << PILLOW_BITS)) for w in weights]
    # Beyond the end of an image the coefficient is 0.
    return (first[:, None] + np.arange(taps)).clip(max=length - 1), coefficients


@functools.cache
def tap_tables(size: int, longest_px: int, interpolation: Interpolation) -> tuple[np.ndarray, np.ndarray]:
    """Stack the taps of lengths 0 (unused) to ``longest_px``: input pixels and coefficients, [lengths, size, taps]."""
    taps = pillow_taps if interpolation == "bilinear" else opencv_taps
    tables = [taps(max(length, 1), size) for length in range(longest_px + 1)]
    most_taps = max(indices.shape[1] for indices, _ in tables)
    padded = [tuple(np.pad(values, ((0, 0), (0, most_taps - values.shape[1]))) for values in table) for table in tables]
    return np.stack([indices for indices, _ in padded]), np.stack([coefficients for _, coefficients in padded])
