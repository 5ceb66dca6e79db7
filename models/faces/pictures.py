"""Convert pictures of every mode and orientation to RGB, as a viewer displays them."""

import numpy as np
from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# EXIF data are near the beginning of a file, and at most this long.
_HEADER_BYTES = 1 << 17
# Modes that Pillow converts to RGB without loss: grey, color, palette, CMYK.
_PLAIN_MODES = frozenset({"1", "L", "RGB", "P", "CMYK", "YCbCr"})
# Largest values of pixels with 8, 16 and 32 bits. Numbers with a decimal point may also end at 1.
_RANGES = (255.0, 65535.0, 4294967295.0)


def displayed_rgb(image: Image.Image) -> np.ndarray:
    """Return the first frame of an opened picture as uint8 [h, w, 3], in the orientation of its EXIF data.

    Transparent pixels are placed on white. Values of 16 and more bits are scaled to 8 bits. Color profiles are ignored.

    Raises:
        OSError, ValueError: the picture is damaged, or has an unknown mode.
    """
    image.load()
    # Pillow rotates some TIFF files when it loads them, and then removes the orientation.
    turn = _turn(image)
    if image.mode.startswith("I") or image.mode == "F":
        rgb = Image.fromarray(_scale_to_8_bits(np.asarray(image), mode=image.mode)).convert("RGB")
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        rgb = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    else:
        rgb = image.convert("RGB")
    return np.asarray(rgb if turn is None else rgb.transpose(turn))


def is_plain(image: Image.Image) -> bool:
    """Return whether the displayed picture is what ``convert("RGB")`` returns; only the header is read."""
    return image.mode in _PLAIN_MODES and not image.has_transparency_data and _turn(image) is None


def has_exif(jpeg: bytes) -> bool:
    """Return whether JPEG bytes contain EXIF data."""
    return jpeg.find(b"Exif\0\0", 0, _HEADER_BYTES) >= 0


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Damaged EXIF data raise errors of many types. The picture is not damaged.
        return None


def _scale_to_8_bits(values: np.ndarray, *, mode: str) -> np.ndarray:
    """Scale by the range of the values: that of the mode if it states one, else the smallest that holds all values."""
    known = np.nan_to_num(values.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(known.max(initial=0.0))
    ranges = (65535.0,) if mode.startswith("I;16") else _RANGES if mode == "I" else (1.0, *_RANGES)
    known *= 255 / next((one for one in ranges if highest <= one), highest)
    return np.clip(np.rint(known, out=known), 0, 255, out=known).astype(np.uint8)
