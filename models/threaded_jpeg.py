"""JPEG decoding for many threads at once. Needs torch, so only workers that have it loaded anyway decode this way.

Pillow holds Python's lock for much of the time that a small picture takes; sixteen threads are hardly faster than one.
torchvision decodes with the same library to the same bytes, and without the lock.
"""

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import ImageReadMode
from torchvision.io import decode_jpeg as decode_without_lock

from models import crops

_END_OF_IMAGE = b"\xff\xd9"
_LARGEST_PIXELS = 4096 * 4096


def decode_jpeg(data: bytes) -> np.ndarray:
    """RGB uint8 [h, w, 3] of JPEG bytes, as ``crops.decode_jpeg`` gives it.

    Raises:
        ValueError: as there.
    """
    if _is_plain(data):
        try:
            pixels = decode_without_lock(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
            return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        except RuntimeError:
            pass
    return crops.decode_jpeg(data)


def _is_plain(data: bytes) -> bool:
    """Whether it is a whole picture in three colours, which both libraries take alike."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            plain = image.mode == "RGB" and image.width * image.height <= _LARGEST_PIXELS
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        return False
    return plain and data.endswith(_END_OF_IMAGE)
