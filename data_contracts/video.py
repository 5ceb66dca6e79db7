"""Frames of a video from any frame on, exactly, in bounded memory. How frames are numbered: ``video_index``."""

import logging
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from data_contracts.video_index import VideoIndex, open_video

logger = logging.getLogger(__name__)

Chunk = tuple[np.ndarray, np.ndarray]


class _WrongStartError(Exception):
    """The seek did not lead to where the index says."""


def read_segment(
    path: Path, index: VideoIndex, *, first_frame: int, frame_count: int, chunk_frames: int = 16
) -> Iterator[Chunk]:
    """Frames ``first_frame`` to ``first_frame + frame_count - 1``, as far as they can be decoded.

    Yields:
        (frame numbers int32 [b], RGB uint8 [b, H, W, 3], upright) with b <= ``chunk_frames``. A frame that the file
        promises but cannot be decoded is missing from the numbers; no other frame takes its number.

    Raises:
        InputError: the file cannot be opened.
        ValueError: the segment does not lie within the video.
    """
    last_frame = first_frame + frame_count - 1
    if not 1 <= first_frame <= last_frame <= index.frame_count:
        raise ValueError(f"{path}: expected frames within 1..{index.frame_count}, got {first_frame}..{last_frame}")
    for start in _starts(index, first_frame):
        frames = _decode_from(path, index, start, first_frame, last_frame)
        try:
            yield from _in_chunks(frames, index, chunk_frames)
            return
        except _WrongStartError:
            logger.debug("%s: no exact start at %s for frame %d; starting earlier", path, start, first_frame)


def _starts(index: VideoIndex, first_frame: int) -> list[int | None]:
    """Time stamps to seek to, nearest first; None is the start of the file."""
    if not index.has_pts:
        return [None]
    keys = np.flatnonzero(index.keyframe[:first_frame])
    # An index of decoding times may lead one keyframe too far: the one before is tried next.
    nearest = [int(index.pts[at]) for at in keys[::-1][:2] if at > 0]
    return [*nearest, None]


def _decode_from(
    path: Path, index: VideoIndex, start: int | None, first_frame: int, last_frame: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, frame) of the wanted frames.

    Raises:
        _WrongStartError: before anything is yielded, if decoding from ``start`` misses the first frame.
    """
    number_of = {int(pts): at for at, pts in enumerate(index.pts.tolist(), start=1)} if index.has_pts else {}
    counted, begun = 0, False
    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        if start is not None:
            container.seek(start, stream=stream, backward=True)
        for frame in _decoded(container, stream):
            counted += 1
            number = number_of.get(frame.pts) if index.has_pts else counted
            if number is None:
                if start is not None and not begun:
                    raise _WrongStartError
                continue
            if start is not None and not begun and number > first_frame:
                raise _WrongStartError
            if number > last_frame:
                return
            if number >= first_frame:
                begun = True
                yield number, frame
    if start is not None and not begun:
        raise _WrongStartError


def _decoded(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """All frames that can be decoded; a packet that cannot is passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError) as error:
            logger.warning("%s: reading stops early: %s", container.name, error)
            return
        try:
            yield from packet.decode()
        except av.FFmpegError as error:
            logger.debug("%s: a packet cannot be decoded: %s", container.name, error)


def _in_chunks(frames: Iterator[tuple[int, av.VideoFrame]], index: VideoIndex, size: int) -> Iterator[Chunk]:
    # One reformatter for all frames: each new one costs a scaling context.
    reformatter = VideoReformatter()
    turned = index.rotation_degrees in (90, 270)
    width, height = (index.height_px, index.width_px) if turned else (index.width_px, index.height_px)
    numbers: list[int] = []
    pictures: list[np.ndarray] = []
    for number, frame in frames:
        rgb = reformatter.reformat(frame, width, height, "rgb24", interpolation="FAST_BILINEAR", threads=1)
        numbers.append(number)
        pictures.append(np.rot90(rgb.to_ndarray(), index.rotation_degrees // 90))
        if len(numbers) == size:
            yield np.array(numbers, np.int32), np.stack(pictures)
            numbers, pictures = [], []
    if numbers:
        yield np.array(numbers, np.int32), np.stack(pictures)
