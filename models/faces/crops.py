"""Cut face crops out of frames, resize them, and encode and decode JPEG."""

import io
import math

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

# A face that fills an 8K image.
_MAX_CROP_PIXELS = 7680 * 4320
_SIMPLE_COLOUR_SPACES = ("YCbCr", "Gray")


def clip_box(box_xyxy_px: np.ndarray, *, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the pixels of an image that a box [4] touches: floor of the start, ceiling of the end.

    Returns:
        (x1, y1, x2, y2), the end exclusive; None if the box lies outside the image.
    """
    x1, y1, x2, y2 = (float(value) for value in box_xyxy_px)
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(width, math.ceil(x2)), min(height, math.ceil(y2))
    return (left, top, right, bottom) if right > left and bottom > top else None


def crop_face(frame: np.ndarray, box_xyxy_px: np.ndarray, *, margin_fraction: float = 0.0) -> np.ndarray | None:
    """Return a view [h, w, 3] of the frame at the box, widened by a fraction of its size and clipped to the frame.

    Returns:
        None if the box lies outside the frame.
    """
    x1, y1, x2, y2 = (float(value) for value in box_xyxy_px)
    dx, dy = margin_fraction * (x2 - x1), margin_fraction * (y2 - y1)
    height, width = frame.shape[:2]
    clipped = clip_box(np.array([x1 - dx, y1 - dy, x2 + dx, y2 + dy]), width=width, height=height)
    if clipped is None:
        return None
    left, top, right, bottom = clipped
    return frame[top:bottom, left:right]


def shrink_to(image: np.ndarray, *, max_side_px: int) -> np.ndarray:
    """Shrink an image uint8 [h, w, 3] to a longer side of at most ``max_side_px`` (bilinear, antialiased)."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= max_side_px:
        return image
    size = max(1, round(width * max_side_px / longest)), max(1, round(height * max_side_px / longest))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def encode_jpeg(image: np.ndarray, *, quality: int = 95) -> bytes:
    """Encode an RGB uint8 image [h, w, 3] as JPEG without chroma subsampling."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decode JPEG bytes to RGB uint8 [h, w, 3]; grey and CMYK images become RGB.

    Raises:
        ValueError: the bytes are not a JPEG, are truncated, or claim an enormous size.
    """
    # simplejpeg uses the same library as Pillow and gives the same pixels in half the time.
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in _SIMPLE_COLOUR_SPACES and height * width <= _MAX_CROP_PIXELS:
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        pass
    return _decode_with_pillow(data)


def _decode_with_pillow(data: bytes) -> np.ndarray:
    """Decode any JPEG; raise a ``ValueError`` that states the cause for other bytes."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if image.width * image.height > _MAX_CROP_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"expected a whole JPEG, got {len(data)} bytes of something else") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"expected a whole JPEG, got {len(data)} bytes: {error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"expected a crop of a face, got an enormous image: {error}") from error
