"""Draw the faces of a frame with their labels. Labels lie inside the picture, off other labels and off faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.annotate.labels import Detail, Face, LabelPainter, Shown
from tasks.annotate.sprites import Place, Planes, even, fill

_DARK = "#000000"
# A label shows more only after there was room for it in this number of frames, so that it does not flicker.
_FRAMES_UNTIL_LARGER = 12
# How fast labels follow a box, whose sides tremble; boxes with less overlap than this have jumped.
_FOLLOWS, _SAME_PLACE = 0.3, 0.3
# More panels than this hide the picture.
_MOST_PANELS = 6
# A panel may cover this share of its own face, if there is no room beside it.
_COVERED_SHARE = 0.3
# Faces that are this number of text heights wide or less have labels of a number, unless there is only one.
_TINY = 2.0
# Panels are for single faces, and for those that are at least this share of the height of a panel.
_PANEL_SHARE = 0.4
# Boxes that are narrower, in pixels, have a thin line without a dark one around it.
_THIN_BOX_PX = 32


@dataclass
class _Memory:
    """How the label of a person was drawn: its detail and side, and the box that it follows, in pixels."""

    detail: Detail
    side: int
    box: NDArray[np.float64]
    frame: int
    larger_for: int = 0


class Overlay:
    """Draws on the frames of one video, in their order."""

    def __init__(self, width_px: int, height_px: int, colorspace: int, shown: Shown) -> None:
        self._width_px, self._height_px = width_px, height_px
        self._painter = LabelPainter(width_px, height_px, colorspace, shown)
        self._line_px = max(2, even(self._painter.text_px / 8))
        self._memory: dict[int, _Memory] = {}

    def draw(self, planes: Planes, frame: int, faces: Sequence[Face], footer: str) -> None:
        """Draw faces on the planes of a frame in 4:2:0, and a line of text at the bottom left."""
        for face in faces:
            self._draw_box(planes, face)
        width_px, height_px = self._painter.text_size_px(footer)
        bottom = self._height_px - self._height_px % 2
        taken = [Place(0, bottom - height_px, width_px, bottom)]
        self._painter.draw_text(planes, footer, 0, bottom)
        for face, detail, place in self._place(frame, faces, taken):
            self._painter.draw(planes, face, detail, place.left, place.top)

    def _draw_box(self, planes: Planes, face: Face) -> None:
        left, top, right, bottom = (even(side) for side in face.box)
        is_thin = right - left < _THIN_BOX_PX
        line_px = 2 if is_thin else min(self._line_px, even(2 + (right - left) / 32))
        edges = ((2, face.colour),) if is_thin else ((2 + line_px, _DARK), (line_px, face.colour))
        for px, colour in edges:
            yuv = self._painter.yuv(colour)
            x0, y0, x1, y1 = left - px, top - px, right + px, bottom + px
            for place in ((x0, y0, x1, top), (x0, bottom, x1, y1), (x0, top, left, bottom), (right, top, x1, bottom)):
                fill(planes, Place(*place), yuv)

    def _place(self, frame: int, faces: Sequence[Face], taken: list[Place]) -> Iterator[tuple[Face, Detail, Place]]:
        """Yield faces with a label: those with a panel before, and large ones, choose first."""
        for face in faces:
            self._follow(frame, face)
        self._memory = {person: one for person, one in self._memory.items() if frame - one.frame < _FRAMES_UNTIL_LARGER}
        boxes = np.array([face.box for face in faces]).reshape(-1, 4)
        order = sorted(range(len(faces)), key=lambda one: self._priority(faces[one]))
        panels = 0
        for one in order:
            face, others = faces[one], np.delete(boxes, one, axis=0)
            found = self._choose(face, others, taken, may_have_panel=panels < _MOST_PANELS)
            if found is not None:
                detail, place = found
                panels += detail == Detail.PANEL
                taken.append(place)
                yield face, detail, place

    def _follow(self, frame: int, face: Face) -> None:
        box, before = np.array(face.box), self._memory.get(face.person)
        if before is None:
            # A first label takes whatever room there is.
            self._memory[face.person] = _Memory(Detail.NUMBER, 0, box, frame, larger_for=_FRAMES_UNTIL_LARGER)
            return
        is_same = _overlap(before.box, box) > _SAME_PLACE
        before.box = before.box + _FOLLOWS * (box - before.box) if is_same else box
        before.frame = frame

    def _priority(self, face: Face) -> tuple[bool, float, int]:
        memory = self._memory[face.person]
        width, height = memory.box[2:] - memory.box[:2]
        return memory.detail != Detail.PANEL, -round(float(width * height), -2), face.person

    def _choose(
        self, face: Face, others: NDArray[np.float64], taken: Sequence[Place], *, may_have_panel: bool
    ) -> tuple[Detail, Place] | None:
        memory = self._memory[face.person]
        best = self._largest(face, memory, others, taken, Detail.PANEL if may_have_panel else Detail.TAG)
        if best is None:
            memory.detail, memory.larger_for = Detail.NUMBER, 0
            return None
        detail, side, place = best
        if detail > memory.detail and memory.larger_for < _FRAMES_UNTIL_LARGER:
            memory.larger_for += 1
            smaller = self._largest(face, memory, others, taken, memory.detail)
            if smaller is not None:
                _, memory.side, place = smaller
                return memory.detail, place
        memory.detail, memory.side, memory.larger_for = detail, side, 0
        return detail, place

    def _largest(
        self, face: Face, memory: _Memory, others: NDArray[np.float64], taken: Sequence[Place], most: Detail
    ) -> tuple[Detail, int, Place] | None:
        """Return the label with most details that has room: its detail, side and place."""
        blocked = np.array(taken, np.float64).reshape(-1, 4)
        for detail in (Detail.PANEL, Detail.TAG, Detail.NUMBER):
            if detail > min(most, self._most_of(face, is_alone=not len(others))):
                continue
            places = list(enumerate(self._candidates(face, memory.box, detail)))
            if memory.detail == detail and memory.side < len(places):
                places.insert(0, places[memory.side])
            for side, place in places:
                if not place.is_inside(self._width_px + self._width_px % 2, self._height_px + self._height_px % 2):
                    continue
                if _is_free(place, blocked) and (detail == Detail.NUMBER or _is_free(place, others)):
                    covered = _intersection(np.array(place, np.float64), memory.box) / max(1.0, _area(memory.box))
                    if detail < Detail.PANEL or covered <= _COVERED_SHARE:
                        return detail, side, place
        return None

    def _most_of(self, face: Face, *, is_alone: bool) -> Detail:
        """Return how much the label of a face may show."""
        most = Detail.PANEL if self._painter.has_body() else Detail.TAG
        if is_alone:
            return most
        if face.box[2] - face.box[0] <= _TINY * self._painter.text_px:
            return Detail.NUMBER
        _, height_px = self._painter.size_px(face, most)
        return most if face.box[3] - face.box[1] >= _PANEL_SHARE * height_px else Detail.TAG

    def _candidates(self, face: Face, box: NDArray[np.float64], detail: Detail) -> Iterator[Place]:
        """Yield places for a label, the best first; the same number of them, in the same order, for every frame."""
        width_px, height_px = self._painter.size_px(face, detail)
        gap = self._line_px + 2
        left, top, right, bottom = (even(side) for side in box)
        x = _within(left, width_px, self._width_px)
        y = _within(top, height_px, self._height_px)
        corners = [
            (_end(self._width_px) - width_px - gap, gap),
            (gap, gap),
            (_end(self._width_px) - width_px - gap, _end(self._height_px) - height_px - gap),
            (gap, _end(self._height_px) - height_px - 3 * gap - even(1.4 * self._painter.text_px)),
        ]
        beside = [(right + gap, y), (left - gap - width_px, y)]
        above, below = (x, top - gap - height_px), (x, bottom + gap)
        if detail == Detail.PANEL:
            # The panel of a small face in a corner would be far away from it.
            places = [*beside, below, above, *(corners if bottom - top >= height_px else ())]
        else:
            inside = [(x, _within(top, height_px, self._height_px)), (x, bottom - height_px)]
            places = [above, below, *beside, *inside]
        for place_left, place_top in places:
            yield Place(even(place_left), even(place_top), even(place_left) + width_px, even(place_top) + height_px)


def _end(side_px: int) -> int:
    return side_px - side_px % 2


def _within(start: int, length_px: int, side_px: int) -> int:
    """Return the start that is nearest to the given one and keeps a length inside a side of the picture."""
    return max(0, min(start, _end(side_px) - length_px))


def _area(box: NDArray[np.float64]) -> float:
    return float(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


def _intersection(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return _area(np.concatenate([np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])]))


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the intersection of two boxes over their union."""
    shared = _intersection(one, other)
    return shared / max(1e-9, _area(one) + _area(other) - shared)


def _is_free(place: Place, blocked: NDArray[np.float64]) -> bool:
    """Return whether a place shares no pixel with any of the boxes ``[n, 4]``."""
    if not len(blocked):
        return True
    shares = (
        (place.left < blocked[:, 2])
        & (blocked[:, 0] < place.right)
        & (place.top < blocked[:, 3])
        & (blocked[:, 1] < place.bottom)
    )
    return not shares.any()
