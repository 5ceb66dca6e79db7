"""Sprites: small pictures in 4:2:0 with their opacity, rendered by Pillow once and blended into many frames.

Positions and sizes of sprites on a frame are even, so that each pixel of chroma belongs to one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

# Weights of red and blue in luma: ITU-R BT.601 (values 5 and 6 of ``AVColorSpace``), BT.709 (1) and BT.2020 (9 and 10).
_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
_BT601 = (0.299, 0.114)
# Pictures are drawn this number of times as large, because Pillow does not smooth edges.
_OVERSAMPLING = 4

Planes = list[NDArray[np.uint8]]


class Place(NamedTuple):
    """A rectangle on a frame, in pixels: columns ``left`` .. ``right - 1``, rows ``top`` .. ``bottom - 1``."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Place) -> bool:
        """Return whether the rectangles share a pixel."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def is_inside(self, width_px: int, height_px: int) -> bool:
        """Return whether a frame of this size contains the rectangle."""
        return self.left >= 0 and self.top >= 0 and self.right <= width_px and self.bottom <= height_px


@dataclass(frozen=True, eq=False)
class Sprite:
    """A picture of even sides: luma and chroma times opacity, and the transparency, of both plane sizes; all uint16.

    ``colour``: luma ``[h, w]`` and two of chroma ``[h / 2, w / 2]``, 0..255 * 255. ``transparency``: ``[h, w]`` and
    ``[h / 2, w / 2]``, 0..255.
    """

    colour: tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]
    transparency: tuple[NDArray[np.uint16], NDArray[np.uint16]]

    @property
    def width_px(self) -> int:
        """Number of columns."""
        return self.colour[0].shape[1]

    @property
    def height_px(self) -> int:
        """Number of rows."""
        return self.colour[0].shape[0]

    @classmethod
    def of_picture(cls, picture: Image.Image, colorspace: int) -> Sprite:
        """Convert a picture (RGBA, even sides) to the colours of a frame (a value of ``AVColorSpace``)."""
        rgba = np.asarray(picture, dtype=np.float32)
        alpha = rgba[..., 3] / 255
        yuv = to_yuv(rgba[..., :3], colorspace)
        small_alpha = _halved(alpha)
        # Means of chroma are weighted by opacity, so that transparent pixels do not bleed into the edges.
        luma, blue, red = yuv[..., 0] * alpha, _halved(yuv[..., 1] * alpha), _halved(yuv[..., 2] * alpha)
        colour = _to_255(luma), _to_255(blue), _to_255(red)
        return cls(colour, (_to_255(1 - alpha), _to_255(1 - small_alpha)))

    def draw(self, planes: Planes, left: int, top: int) -> None:
        """Blend into the planes of a frame in 4:2:0, as far as it lies inside the frame. Positions are even."""
        for place, plane in enumerate(planes):
            step = 2 if place else 1
            colour, transparency = self.colour[place], self.transparency[min(place, 1)]
            x, y = left // step, top // step
            x0, y0 = max(x, 0), max(y, 0)
            x1, y1 = min(x + colour.shape[1], plane.shape[1]), min(y + colour.shape[0], plane.shape[0])
            if x0 >= x1 or y0 >= y1:
                continue
            target, inside = plane[y0:y1, x0:x1], (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
            mixed = target * transparency[inside]
            mixed += colour[inside]
            # Division by 255, rounded: exact for all 16-bit values.
            mixed += 128
            mixed += mixed >> 8
            target[...] = mixed >> 8


def _to_255(plane: NDArray[np.floating]) -> NDArray[np.uint16]:
    return np.round(255 * plane).astype(np.uint16)


def _halved(plane: NDArray[np.floating]) -> NDArray[np.floating]:
    height_px, width_px = plane.shape
    mean: NDArray[np.floating] = plane.reshape(height_px // 2, 2, width_px // 2, 2).mean(axis=(1, 3))
    return mean


def to_yuv(rgb: NDArray[np.float32], colorspace: int) -> NDArray[np.float32]:
    """Return luma and chroma ``[..., 3]`` in limited range of RGB ``[..., 3]``, 0..255.

    ITU-R BT.601, BT.709 or BT.2020, as ``colorspace`` (a value of ``AVColorSpace``) says; BT.601 if it is unknown.
    """
    red, blue = _LUMA_WEIGHTS.get(colorspace, _BT601)
    luma = rgb @ np.array([red, 1 - red - blue, blue], np.float32)
    chroma_blue = (rgb[..., 2] - luma) / (2 * (1 - blue))
    chroma_red = (rgb[..., 0] - luma) / (2 * (1 - red))
    yuv = np.stack([16 + luma * 219 / 255, 128 + chroma_blue * 224 / 255, 128 + chroma_red * 224 / 255], axis=-1)
    return yuv.astype(np.float32)


def fill(planes: Planes, place: Place, yuv: NDArray[np.float32]) -> None:
    """Paint a rectangle of even sides and positions, as far as it lies inside the frame."""
    for number, plane in enumerate(planes):
        step = 2 if number else 1
        left, top, right, bottom = (max(side, 0) // step for side in place)
        plane[top:bottom, left:right] = round(float(yuv[number]))


def even(value: float) -> int:
    """Return the nearest even number."""
    return 2 * round(value / 2)


class Painter:
    """Draws shapes with smooth edges and text on a picture of RGBA, in pixels."""

    def __init__(self, width_px: int, height_px: int, *, background: str | None = None) -> None:
        from PIL import Image, ImageDraw

        self._size = width_px, height_px
        scaled = width_px * _OVERSAMPLING, height_px * _OVERSAMPLING
        self._shapes: Image.Image = Image.new("RGBA", scaled, background or "#00000000")
        self._draw: ImageDraw.ImageDraw = ImageDraw.Draw(self._shapes)
        self._texts: list[tuple[tuple[float, float], str, str, ImageFont.FreeTypeFont, str]] = []

    def rounded(self, box: tuple[float, float, float, float], radius: float, fill: str) -> None:
        """Draw a filled rectangle with round corners."""
        self._draw.rounded_rectangle(_times(box), radius * _OVERSAMPLING, fill=fill)

    def circle(self, box: tuple[float, float, float, float], *, fill: str | None, outline: str, width: float) -> None:
        """Draw a circle."""
        self._draw.ellipse(_times(box), fill=fill, outline=outline, width=round(width * _OVERSAMPLING))

    def line(self, ends: tuple[float, float, float, float], fill: str, width: float) -> None:
        """Draw a straight line."""
        self._draw.line(_times(ends), fill=fill, width=round(width * _OVERSAMPLING))

    def text(
        self, at: tuple[float, float], text: str, *, fill: str, font: ImageFont.FreeTypeFont, anchor: str = "lm"
    ) -> None:
        """Write text; ``anchor``: which point of it is at the position, as in Pillow ("lm": left, middle)."""
        self._texts.append((at, text, fill, font, anchor))

    def finish(self) -> Image.Image:
        """Return the picture."""
        from PIL import Image, ImageDraw

        picture = self._shapes.resize(self._size, Image.Resampling.BOX)
        draw = ImageDraw.Draw(picture)
        for at, text, fill, font, anchor in self._texts:
            draw.text(at, text, fill=fill, font=font, anchor=anchor)
        return picture


def _times(values: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    a, b, c, d = values
    return a * _OVERSAMPLING, b * _OVERSAMPLING, c * _OVERSAMPLING, d * _OVERSAMPLING


def load_font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font DejaVu Sans, which comes with matplotlib."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size_px)
