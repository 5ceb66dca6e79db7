"""The faces of a video from frame to frame: the whole frame is searched now and then, one known face is followed.

Frames are taken in groups of ``search_every_frames``, counted from frame 1, and each group by itself: what is found in
a frame does not depend on where a reader began, if it began with a group.
"""

from typing import Literal, Protocol, runtime_checkable

import numpy as np

from models.faces.detection import Detections, DetectorParams

_Found = Literal["nothing", "one", "others"]


@runtime_checkable
class SearchingDetector(Protocol):
    """What a detector must be able to do."""

    params: DetectorParams

    def detect(self, frames: np.ndarray) -> list[Detections]:
        """Faces of each frame, uint8 [B, H, W, 3]."""

    def detect_near(self, frame: np.ndarray, box_xyxy_px: np.ndarray) -> Detections:
        """The face of a frame [H, W, 3] that overlaps most with a box float32 [4], or none."""


def first_of_group(number: int, every_frames: int) -> int:
    """Number of the frame with which the group of frame ``number`` begins."""
    return (number - 1) // every_frames * every_frames + 1


class FaceFollower:
    """Looks at the frames of one video in ascending order.

    The first frame of a group is searched whole. If it shows one face, that is followed; where it is lost, the rest of
    the group is searched whole. If it shows several, so is all of the group. If it shows none, the group has none: a
    face that appears is missed for less than a group.
    """

    def __init__(self, detector: SearchingDetector) -> None:
        self._detector = detector
        self._group = -1
        self._found: _Found = "nothing"
        self._last = Detections.none()
        self._shape: tuple[int, ...] = ()

    def detect(self, number: int, frame: np.ndarray) -> Detections:
        """Faces of frame ``number`` (from 1), uint8 [H, W, 3]."""
        group = first_of_group(number, self._detector.params.search_every_frames)
        if group != self._group or frame.shape != self._shape:
            self._group, self._shape = group, frame.shape
            self._last = self._search(frame)
            self._found = "nothing" if not len(self._last) else "one" if len(self._last) == 1 else "others"
            return self._last
        if self._found == "nothing":
            return Detections.none()
        if self._found == "one":
            near = self._detector.detect_near(frame, self._last.box_xyxy_px[0])
            if len(near):
                self._last = near
                return near
            self._found = "others"
        return self._search(frame)

    def _search(self, frame: np.ndarray) -> Detections:
        return self._detector.detect(frame[None])[0]
