"""What is drawn for one person: a tag with number and expression, a dial of valence and arousal, and action units."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from data_contracts.vocabulary import ACTION_UNITS
from tasks.annotate.sprites import Painter, Planes, Sprite, even, load_font, to_yuv
from tasks.palette import EXPRESSION_COLOURS

_GROUND, _TEXT, _FAINT, _UNDECIDED = "#161616c8", "#ffffff", "#9a9a9a", "#d9d9d9"
# Sizes in heights of the text.
_WIDTH, _TAG_HEIGHT, _DIAL, _CHIP_WIDTH, _CHIP_HEIGHT, _MARGIN = 10.8, 1.5, 4.2, 1.45, 1.4, 0.35
_SMALL_TEXT, _SMALLEST_TEXT_PX = 0.7, 10
_UNITS_PER_ROW = 6
_SPRITES_KEPT = 4096


class Detail(IntEnum):
    """How much a label shows: the number of a person, also the expression, or everything."""

    NUMBER = 0
    TAG = 1
    PANEL = 2


@dataclass(frozen=True)
class Face:
    """What is predicted of one person in one frame. None: not predicted.

    Attributes:
        person: number of the person.
        box: x1, y1, x2, y2 in pixels of the displayed frame.
        expression: decided expression.
        probability: probability of this expression, 0..1.
        valence, arousal: -1..1.
        units: which action units are active, in the order of ``ACTION_UNITS``.
    """

    person: int
    box: tuple[float, float, float, float]
    expression: str | None = None
    probability: float | None = None
    valence: float | None = None
    arousal: float | None = None
    units: tuple[bool, ...] | None = None

    @property
    def colour(self) -> str:
        """Colour of the box and the tag."""
        return EXPRESSION_COLOURS[self.expression] if self.expression else _UNDECIDED

    def format_tag(self) -> str:
        """Return the text of the tag, such as ``2 Happiness 87%``."""
        probability = "" if self.probability is None else f" {min(round(100 * self.probability), 99)}%"
        return f"{self.person} {self.expression}{probability}" if self.expression else f"{self.person}"


class Shown(NamedTuple):
    """Which parts the panels of a video have, because a head predicts them."""

    dial: bool
    units: bool


class LabelPainter:
    """Draws labels for frames of one size and colour space. Each picture is rendered once and kept."""

    def __init__(self, width_px: int, height_px: int, colorspace: int, shown: Shown) -> None:
        self.text_px = text_height_px(width_px, height_px)
        self._colorspace, self._shown = colorspace, shown
        self._font, self._bold = load_font(self.text_px), load_font(self.text_px, bold=True)
        small_px = max(_SMALLEST_TEXT_PX, round(_SMALL_TEXT * self.text_px))
        self._small = load_font(small_px, bold=True)
        # A method with a cache would keep its object alive.
        self._tag = functools.lru_cache(_SPRITES_KEPT)(self._make_tag)
        self._text = functools.lru_cache(_SPRITES_KEPT)(self._make_text)
        self._chip = functools.cache(self._make_chip)
        self._dot = functools.cache(self._make_dot)
        self._body = functools.cache(self._make_body)
        self.yuv = functools.cache(self._make_yuv)

    def size_px(self, face: Face, detail: Detail) -> tuple[int, int]:
        """Return width and height of the label of a person."""
        if detail == Detail.PANEL:
            u = self.text_px
            return even(_WIDTH * u), even(_TAG_HEIGHT * u) + even(self._body_height() * u)
        tag = self._tag_of(face, detail)
        return tag.width_px, tag.height_px

    def has_body(self) -> bool:
        """Return whether panels show more than a tag."""
        return self._shown.dial or self._shown.units

    def draw(self, planes: Planes, face: Face, detail: Detail, left: int, top: int) -> None:
        """Draw the label of a person at an even position."""
        self._tag_of(face, detail).draw(planes, left, top)
        if detail < Detail.PANEL:
            return
        u = self.text_px
        top += even(_TAG_HEIGHT * u)
        self._body().draw(planes, left, top)
        if self._shown.dial:
            self._draw_dial(planes, face, left + even(_MARGIN * u), top + even(_MARGIN * u))
            top += even((_DIAL + _MARGIN) * u)
        if self._shown.units and face.units is not None:
            self._draw_units(planes, face.units, left + even(_MARGIN * u), top + even(_MARGIN * u))

    def draw_text(self, planes: Planes, text: str, left: int, bottom: int) -> None:
        """Write a line of text on dark ground."""
        sprite = self._text(text, _GROUND)
        sprite.draw(planes, left, bottom - sprite.height_px)

    def text_size_px(self, text: str) -> tuple[int, int]:
        """Return width and height of a line of text on its ground."""
        sprite = self._text(text, _GROUND)
        return sprite.width_px, sprite.height_px

    def _tag_of(self, face: Face, detail: Detail) -> Sprite:
        if detail == Detail.NUMBER:
            return self._tag(f"{face.person}", face.colour, 0, True)
        return self._tag(
            face.format_tag(), face.colour, even(_WIDTH * self.text_px) if detail == Detail.PANEL else 0, False
        )

    def _make_tag(self, text: str, colour: str, width_px: int, is_small: bool) -> Sprite:
        font = self._small if is_small else self._bold
        ascent, descent = font.getmetrics()
        height_px = even(ascent + descent + 2) if is_small else even(_TAG_HEIGHT * self.text_px)
        padding = 0.2 * font.size if is_small else _MARGIN * self.text_px
        wanted = font.getlength(text) + 2 * padding
        if width_px and wanted > width_px:
            font = font.font_variant(size=max(_SMALLEST_TEXT_PX, int(font.size * width_px / wanted)))
        painter = Painter(width_px or even(wanted + 1), height_px, background=colour)
        painter.text((padding, height_px / 2), text, fill=_readable_on(colour), font=font)
        return Sprite.of_picture(painter.finish(), self._colorspace)

    def _make_text(self, text: str, ground: str | None) -> Sprite:
        margin = 0.0 if ground is None else _MARGIN * self.text_px
        width_px = even(self._font.getlength(text) + 2 * margin + 1)
        height_px = even((1.2 if ground is None else 1.4) * self.text_px)
        painter = Painter(width_px, height_px, background=ground)
        painter.text((margin, height_px / 2), text, fill=_TEXT, font=self._font)
        return Sprite.of_picture(painter.finish(), self._colorspace)

    def _body_height(self) -> float:
        rows = -(-len(ACTION_UNITS) // _UNITS_PER_ROW)
        dial = _DIAL + _MARGIN if self._shown.dial else 0
        units = rows * _CHIP_HEIGHT + _MARGIN if self._shown.units else 0
        return dial + units + _MARGIN

    def _make_body(self) -> Sprite:
        u = self.text_px
        painter = Painter(even(_WIDTH * u), even(self._body_height() * u), background=_GROUND)
        if self._shown.dial:
            left, radius = even(_MARGIN * u), _DIAL * u / 2
            line_px = max(1.0, u / 14)
            x, y = left + radius, left + radius
            painter.circle(
                (left, left, left + 2 * radius, left + 2 * radius), fill="#000000a0", outline=_FAINT, width=line_px
            )
            painter.line((left, y, left + 2 * radius, y), _FAINT, line_px / 2)
            painter.line((x, left, x, left + 2 * radius), _FAINT, line_px / 2)
        return Sprite.of_picture(painter.finish(), self._colorspace)

    def _draw_dial(self, planes: Planes, face: Face, left: int, top: int) -> None:
        if face.valence is None or face.arousal is None:
            return
        u, radius = self.text_px, _DIAL * self.text_px / 2
        # The corners of the square of values lie outside of the circle.
        length = max(1.0, float(np.hypot(face.valence, face.arousal)))
        dot, reach = self._dot(face.colour), 0.88 * radius
        x = left + radius + reach * face.valence / length - dot.width_px / 2
        y = top + radius - reach * face.arousal / length - dot.height_px / 2
        dot.draw(planes, even(x), even(y))
        text_left = left + even((_DIAL + 0.5) * u)
        for name, value, row in (("V", face.valence, 0), ("A", face.arousal, 1)):
            text = self._text(f"{name} {_signed(value)}", None)
            text.draw(planes, text_left, top + even((0.75 + 1.5 * row) * u))

    def _make_dot(self, colour: str) -> Sprite:
        side_px = max(6, even(0.75 * self.text_px))
        painter = Painter(side_px, side_px)
        painter.circle(
            (0.5, 0.5, side_px - 0.5, side_px - 0.5), fill=colour, outline=_TEXT, width=max(1.0, side_px / 8)
        )
        return Sprite.of_picture(painter.finish(), self._colorspace)

    def _draw_units(self, planes: Planes, units: tuple[bool, ...], left: int, top: int) -> None:
        u = self.text_px
        for place, is_active in enumerate(units):
            row, column = divmod(place, _UNITS_PER_ROW)
            chip = self._chip(ACTION_UNITS[place].removeprefix("AU"), is_active)
            chip.draw(planes, left + even((column + 1) * _CHIP_WIDTH * u), top + even(row * _CHIP_HEIGHT * u))
        self._chip("AU", False).draw(planes, left, top)

    def _make_chip(self, text: str, is_active: bool) -> Sprite:
        u = self.text_px
        width_px, height_px = even(_CHIP_WIDTH * u), even(_CHIP_HEIGHT * u)
        painter = Painter(width_px, height_px)
        if is_active:
            gap = max(1.0, u / 14)
            painter.rounded((gap, gap, width_px - gap, height_px - gap), u / 5, _TEXT)
        font = self._bold.font_variant(size=max(9, round(0.8 * u)))
        fill = "#000000" if is_active else _FAINT
        painter.text((width_px / 2, height_px / 2), text, fill=fill, font=font, anchor="mm")
        return Sprite.of_picture(painter.finish(), self._colorspace)

    def _make_yuv(self, colour: str) -> np.ndarray:
        rgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)], np.float32)
        return to_yuv(rgb, self._colorspace)


def text_height_px(width_px: int, height_px: int) -> int:
    """Return the height of text on frames of this size: legible at 360p, and the same share of larger frames."""
    return max(13, round(min(width_px, height_px) / 38))


def _readable_on(colour: str) -> str:
    """Return black or white, whichever has the higher contrast (WCAG 2.2, relative luminance)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _signed(value: float) -> str:
    text = f"{abs(value):.2f}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and float(text) else f"+{text}"
