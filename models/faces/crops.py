"""From boxes to pictures of faces, and between pictures and JPEG bytes. Detection is in ``mtcnn``."""

import io
import math

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

# A face that fills a picture of 8K.
_MAX_CROP_PIXELS = 7680 * 4320
_PLAIN_COLOURS = ("YCbCr", "Gray")


def clip_box(box_xyxy_px: np.ndarray, *, width: int, height: int) -> tuple[int, int, int, int] | None:
    """The whole pixels that a box touches, inside the picture: floor of the start, ceiling of the end.

    Returns:
        (x1, y1, x2, y2), the end exclusive; None if the box lies outside the picture.
    """
    x1, y1, x2, y2 = (float(value) for value in box_xyxy_px)
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(width, math.ceil(x2)), min(height, math.ceil(y2))
    return (left, top, right, bottom) if right > left and bottom > top else None


def crop_face(frame: np.ndarray, box_xyxy_px: np.ndarray, *, margin_fraction: float = 0.0) -> np.ndarray | None:
    """View [h, w, 3] of the frame at the box, widened by a fraction of its size, cut at the picture's edges.

    Returns:
        None if nothing of the box is inside the picture.
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
    """The image with its longer side at most ``max_side_px`` (bilinear with antialiasing); never enlarged."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= max_side_px:
        return image
    size = max(1, round(width * max_side_px / longest)), max(1, round(height * max_side_px / longest))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def encode_jpeg(image: np.ndarray, *, quality: int = 95) -> bytes:
    """JPEG bytes of an RGB uint8 image [h, w, 3], colour at full resolution."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> np.ndarray:
    """RGB uint8 [h, w, 3] of JPEG bytes; grey and CMYK pictures become RGB.

    Raises:
        ValueError: the bytes are no JPEG, are cut short, or claim to be enormous.
    """
    # The same library as Pillow's and the same pixels, in half the time.
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in _PLAIN_COLOURS and height * width <= _MAX_CROP_PIXELS:
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        pass
    return _decode_with_pillow(data)


def _decode_with_pillow(data: bytes) -> np.ndarray:
    """Any JPEG, and for what is none a word on why."""
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
        raise ValueError(f"expected a crop of a face, got an enormous picture: {error}") from error
