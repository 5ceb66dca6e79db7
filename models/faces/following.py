"""Follow the only face of a video from frame to frame, and search the whole frame at regular intervals.

Frames form groups of ``search_every_frames``, counted from frame 1. Groups are independent, so the detections of a
frame do not depend on where reading began, as long as it began at the start of a group.
"""

from typing import Literal, Protocol, runtime_checkable

import numpy as np

from models.faces.detection import Detections, DetectorParams

_GroupMode = Literal["no face", "follow", "search"]


@runtime_checkable
class SearchingDetector(Protocol):
    """A detector that can search a whole frame and the neighbourhood of a known face."""

    params: DetectorParams

    def detect(self, frames: np.ndarray) -> list[Detections]:
        """Return the faces of each frame, uint8 [B, H, W, 3]."""

    def detect_near(self, frame: np.ndarray, box_xyxy_px: np.ndarray) -> Detections:
        """Return the face of a frame [H, W, 3] with the largest overlap with a box float32 [4], or no face."""


def first_of_group(number: int, every_frames: int) -> int:
    """Return the first frame of the group of frame ``number``."""
    return (number - 1) // every_frames * every_frames + 1


class FaceFollower:
    """A face follower for one video, which processes its frames in ascending order.

    The whole first frame of a group is searched. If it has one face, the follower searches for it near its last place
    in the next frames; once that fails, the whole of each remaining frame of the group is searched. If it has several
    faces, all frames of the group are searched. If it has none, the group gets no faces: a face that appears within a
    group is missed until the next group.
    """

    def __init__(self, detector: SearchingDetector) -> None:
        self._detector = detector
        self._group = -1
        self._mode: _GroupMode = "no face"
        self._last = Detections.none()
        self._shape: tuple[int, ...] = ()

    def detect(self, number: int, frame: np.ndarray) -> Detections:
        """Return the faces of frame ``number`` (from 1), uint8 [H, W, 3]."""
        group = first_of_group(number, self._detector.params.search_every_frames)
        if group != self._group or frame.shape != self._shape:
            self._group, self._shape = group, frame.shape
            self._last = self._search(frame)
            self._mode = "no face" if not len(self._last) else "follow" if len(self._last) == 1 else "search"
            return self._last
        if self._mode == "no face":
            return Detections.none()
        if self._mode == "follow":
            near = self._detector.detect_near(frame, self._last.box_xyxy_px[0])
            if len(near):
                self._last = near
                return near
            self._mode = "search"
        return self._search(frame)

    def _search(self, frame: np.ndarray) -> Detections:
        return self._detector.detect(frame[None])[0]
