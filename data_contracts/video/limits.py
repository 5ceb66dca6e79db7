"""How large a video may be: what no video of a study is, and what a file that was made to exhaust a machine is.

Limits hold for what a file claims and for what comes out of it. How videos are read is the business of
``video_container`` and its like.
"""

import os
from dataclasses import dataclass, fields

from data_contracts.errors import InputError
from data_contracts.vocabulary import MAX_FRAME

VARIABLE = "AFFWILD2_VIDEO_LIMITS"


@dataclass(frozen=True)
class VideoLimits:
    """The most that one video may have.

    Attributes:
        pixels: in a frame; twice 8K.
        frames: 12 hours at 115 a second. Each is a row, in every dataset.
        hours: from the first frame to the last, by the time stamps.
        gigabytes: of the file; 12 hours at 47 Mbit/s.
    """

    pixels: float = 2 * 7680 * 4320
    frames: float = MAX_FRAME
    hours: float = 12
    gigabytes: float = 256

    def check_bytes(self, name: str, size_bytes: int) -> None:
        """That the file ``name`` is not too large.

        Raises:
            InputError: it is.
        """
        if size_bytes > self.gigabytes * 1e9:
            raise _refused(name, f"a file of at most {self.gigabytes:g} GB", f"{size_bytes / 1e9:,.1f} GB")

    def check_frames(self, name: str, count: int) -> None:
        """That the video ``name`` has not so many frames, or does not claim so many.

        Raises:
            InputError: it does.
        """
        if count > self.frames:
            raise _refused(name, f"at most {self.frames:,.0f} frames", f"{count:,} or more")

    def check_duration(self, name: str, seconds: float) -> None:
        """That the video ``name`` does not last too long.

        Raises:
            InputError: it does.
        """
        if seconds > self.hours * 3600:
            raise _refused(name, f"a video of at most {self.hours:g} hours", f"{seconds / 3600:,.1f} hours")

    def refuse_frame(self, name: str, width_px: int, height_px: int) -> InputError:
        """What to raise of a frame that is too large."""
        return _refused(name, f"frames of at most {self.pixels:,.0f} pixels", f"{width_px} x {height_px}")


def _refused(name: str, expected: str, got: str) -> InputError:
    return InputError(f"{name}: expected {expected}, got {got}; leave it out, or set {VARIABLE} (docs/operations.md)")


def video_limits() -> VideoLimits:
    """The defaults, or what ``AFFWILD2_VIDEO_LIMITS`` says instead of some: ``hours=24,pixels=2e8``.

    Raises:
        InputError: it names another limit, or a value is no number above 0.
    """
    said = os.environ.get(VARIABLE, "")
    known = {field.name for field in fields(VideoLimits)}
    values: dict[str, float] = {}
    for part in filter(None, said.split(",")):
        name, _, text = part.strip().partition("=")
        try:
            values[name] = float(text)
        except ValueError:
            values[name] = -1.0
        if name not in known or not 0 < values[name] < float("inf"):
            names = ", ".join(field.name for field in fields(VideoLimits))
            raise InputError(f"{VARIABLE}: expected numbers above 0 for {names}, such as hours=24, got {part!r}")
    return VideoLimits(**values)
