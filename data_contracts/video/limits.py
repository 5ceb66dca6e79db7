"""Checks that a video is not larger than the limits of the settings.

The limits hold both for what a file claims and for what decoding gives. They refuse files that were made to exhaust
a machine.
"""

from data_contracts.errors import InputError
from data_contracts.settings import VIDEO_LIMITS, read_settings


def check_bytes(name: str, size_bytes: int) -> None:
    """Check the size of the file ``name``.

    Raises:
        InputError: it is larger than the limit.
    """
    limit = read_settings().video_limits.gigabytes
    if size_bytes > limit * 1e9:
        raise _too_large(name, f"a file of at most {limit:g} GB", f"{size_bytes / 1e9:,.1f} GB")


def check_frames(name: str, count: int) -> None:
    """Check how many frames the video ``name`` has, or claims to have.

    Raises:
        InputError: it has more than the limit.
    """
    limit = read_settings().video_limits.frames
    if count > limit:
        raise _too_large(name, f"at most {limit:,.0f} frames", f"{count:,} or more")


def check_duration(name: str, seconds: float) -> None:
    """Check the duration of the video ``name``.

    Raises:
        InputError: it is longer than the limit.
    """
    limit = read_settings().video_limits.hours
    if seconds > limit * 3600:
        raise _too_large(name, f"a video of at most {limit:g} hours", f"{seconds / 3600:,.1f} hours")


def max_pixels() -> float:
    """Return the maximum number of pixels per frame."""
    return read_settings().video_limits.pixels


def frame_too_large(name: str, width_px: int, height_px: int) -> InputError:
    """Return the error for a frame that is larger than the limit."""
    return _too_large(name, f"frames of at most {max_pixels():,.0f} pixels", f"{width_px} x {height_px}")


def _too_large(name: str, expected: str, got: str) -> InputError:
    return InputError(
        f"{name}: expected {expected}, got {got}; leave it out, or set {VIDEO_LIMITS} (docs/operations.md)"
    )
