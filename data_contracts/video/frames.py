"""Decode any range of frames of an indexed video, exactly and in bounded memory.

Decoding starts at the keyframe at or before the first frame. Every decoded frame is identified by its time stamp, never
by counting. If the output does not match the index, decoding restarts further back, finally at the beginning of the
file. If it never matches although nothing is damaged, the index is wrong. ``packets`` creates the index.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_contracts.errors import WrongUnitError
from data_contracts.video.container import Damage, decode_packets, is_flush, name_of, open_video, raise_machine_error
from data_contracts.video.display import Display
from data_contracts.video.index import VideoIndex, VideoSource

_LOGGER = logging.getLogger(__name__)

# With more dropped frames, the time stamps of the index do not match the decoder.
_MAX_DROPPED_FRAMES = 4
_MAX_DROPPED_SHARE = 0.1
# How many frames ``matches_decoder`` decodes: after a keyframe, and at most at the end of the video.
_CHECKED_FRAMES, _CHECKED_TAIL_FRAMES = 12, 48
# 25 MB of RGB: smaller chunks are never split, whatever frame size the index states.
_SMALL_CHUNK_PIXELS = 1 << 23

FrameChunk = tuple[NDArray[np.int32], NDArray[np.uint8]]
_Numbered = Iterator[tuple[int, VideoFrame]]


class WrongIndexError(WrongUnitError):
    """The decoded frames of an undamaged file differ from its index by packets."""


@dataclass(frozen=True)
class Start:
    """A start of decoding: a keyframe to seek (None: the beginning), or the beginning with frames counted."""

    seek_frame: int | None = None
    by_count: bool = False


class MismatchError(Exception):
    """The output of the decoder does not match the index; another start may help."""


class SeekError(MismatchError):
    """No keyframe was found where the index has one; the demuxer may have gone too far."""


def read_segment(
    source: VideoSource,
    index: VideoIndex,
    *,
    first_frame: int,
    frame_count: int,
    chunk_frames: int = 16,
) -> Iterator[FrameChunk]:
    """Decode frames ``first_frame`` .. ``first_frame + frame_count - 1`` of the video that ``index`` describes.

    Yield chunks of at most ``chunk_frames`` frames: their numbers, int32 ``[b]``, strictly increasing over the whole
    segment, and their pixels, uint8 RGB ``[b, height, width, 3]``, as displayed. A missing number belongs to a frame
    that could not be decoded or is beyond the end; the numbers after it are still correct. Without time stamps in the
    index, frames are counted instead, and lost frames are missing at the end of the video. A change of the frame size
    starts a new chunk, with fewer frames if they are larger. Memory is one chunk plus that of the decoder.

    Raises:
        ValueError: ``first_frame``, ``frame_count`` or ``chunk_frames`` below 1.
        WrongIndexError: the index by packets is wrong.
        InputError: the file cannot be opened, or a frame is larger than the video limits.
        OSError: the disk or the network failed.
    """
    arguments = {"first_frame": first_frame, "frame_count": frame_count, "chunk_frames": chunk_frames}
    for name, value in arguments.items():
        if value < 1:
            raise ValueError(f"{name_of(source)}: expected {name} >= 1, got {value}")
    last = min(first_frame + frame_count - 1, index.frame_count)
    display = Display()
    numbered = _find_frames(source, index, display, first=first_frame, last=last)
    chunk_pixels = max(_SMALL_CHUNK_PIXELS, chunk_frames * index.width_px * index.height_px)
    return _collect_chunks(numbered, display, chunk_frames, chunk_pixels)


def read_frames(source: VideoSource, index: VideoIndex, display: Display) -> Iterator[tuple[int, VideoFrame]]:
    """Yield the number of every frame of the video that can be decoded, and the frame, which ``display`` can convert.

    Raises:
        WrongIndexError, InputError, OSError: as ``read_segment``.
    """
    return _find_frames(source, index, display, first=1, last=index.frame_count)


def _find_frames(source: VideoSource, index: VideoIndex, display: Display, *, first: int, last: int) -> _Numbered:
    """Yield numbered frames of the segment in order, each at most once, from a start that matches the index."""
    wanted = first
    for start in _starts(index, first) if first <= last else ():
        damage = Damage()
        try:
            for number, frame in decode_from(source, index, start, damage, display):
                if number < wanted:
                    continue
                if number > wanted == first and start.seek_frame is not None:
                    raise MismatchError(f"got frame {number}, expected {wanted}")
                if number > last:
                    return
                if wanted <= last:
                    yield number, frame
                wanted = number + 1
                if wanted > last and (last < index.frame_count or not _must_match(index, damage)):
                    return
            if wanted <= last and _must_match(index, damage):
                raise MismatchError(f"no frame {wanted}")
            if wanted > first or start.seek_frame is None:
                return
        except MismatchError as error:
            _LOGGER.debug("%s: decoding from %s: %s; trying further back", name_of(source), start, error)
            if start == Start() and _must_match(index, damage):
                raise WrongIndexError(
                    f"{name_of(source)}: expected the frames of its index, got others ({error}); extract again"
                ) from error


def matches_decoder(source: VideoSource, index: VideoIndex) -> bool:
    """Decode frames at the start, at some keyframes and at the end; return whether they match the index.

    Damaged places count as a match: lost frames do not make an index wrong.
    """
    keyframes = (np.flatnonzero(index.keyframe[1:]) + 2).tolist()
    places = {len(keyframes) // 3, 2 * len(keyframes) // 3, len(keyframes) - 1} if keyframes else set()
    try:
        return _matches_from(source, index, Start()) and all(
            _matches_from(source, index, Start(keyframes[place]))
            or (place > 0 and _matches_from(source, index, Start(keyframes[place - 1])))
            for place in places
        )
    except MismatchError as error:
        _LOGGER.debug("%s: %s", name_of(source), error)
        return False


def _matches_from(source: VideoSource, index: VideoIndex, start: Start) -> bool:
    """Return whether decoding from ``start`` gives consecutive frames; False if seeking failed.

    Raises:
        MismatchError: the frames do not match the index.
    """
    damage, first, expected = Damage(), None, 0
    try:
        for number, _ in decode_from(source, index, start, damage):
            if first is None:
                # Seeking may find an earlier keyframe, or the next one.
                first = expected = number if start.seek_frame else 1
                is_tail = index.frame_count - first < _CHECKED_TAIL_FRAMES
                last = index.frame_count if is_tail else max(first, start.seek_frame or 1) + _CHECKED_FRAMES
            if number != expected and _must_match(index, damage):
                raise MismatchError(f"got frame {number}, expected {expected}")
            expected = number + 1
            if expected > last and last < index.frame_count:
                return True
    except SeekError:
        return False
    if expected <= index.frame_count and _must_match(index, damage):
        raise MismatchError(f"no frame {expected}")
    return True


def _must_match(index: VideoIndex, damage: Damage) -> bool:
    """Return whether only a wrong index explains a difference: not damage, nor frames that vary between decodes."""
    return index.method == "packets" and index.has_pts and not damage.count


def _starts(index: VideoIndex, first: int) -> list[Start]:
    """Return the starts to try, in order."""
    if not index.has_pts:
        return [Start(by_count=True)]
    starts = []
    nearest = index.keyframe_at_or_before(first)
    if nearest is not None and nearest > 1:
        starts.append(Start(seek_frame=nearest))
        # Some demuxers seek too far, and some decoders need earlier frames.
        before = index.keyframe_at_or_before(nearest - 1)
        if before is not None and before > 1:
            starts.append(Start(seek_frame=before))
    return [*starts, Start(), Start(by_count=True)]


def decode_from(
    source: VideoSource, index: VideoIndex, start: Start, damage: Damage, display: Display | None = None
) -> _Numbered:
    """Yield numbered frames from ``start`` to the end of the file. ``display`` can convert the current one.

    Raises:
        MismatchError: the frames do not match the index.
    """
    with open_video(source) as (container, stream):
        # Segments run in parallel instead: decoder threads would need 10 to 50 % more processor time.
        stream.thread_type = ThreadType.NONE
        if start.seek_frame is None:
            packets, from_pts = demux(container, stream, damage), int(index.pts[0])
        else:
            seek_pts = int(index.pts[start.seek_frame - 1])
            from_pts, packets = _seek_keyframe(container, stream, index, seek_pts, damage)
        frames = decode_packets(packets, damage)
        if display is not None:
            display.start(container, stream)
            frames = display.follow(frames)
        if start.by_count:
            yield from enumerate(frames, start=1)
        else:
            yield from _number_by_time(frames, index, from_pts, damage)


def _number_by_time(frames: Iterable[VideoFrame], index: VideoIndex, from_pts: int, damage: Damage) -> _Numbered:
    """Yield decoded frames with a time stamp of ``from_pts`` or later, numbered by their time stamps.

    Earlier frames precede the keyframe at ``from_pts`` and may lack their reference frames. After damage, a decoder
    returns a few frames late or with an unknown time stamp; they are dropped.
    """
    previous = numbered = dropped = 0
    for frame in frames:
        if frame.pts is not None and frame.pts < from_pts:
            continue
        number = _number_of(frame.pts, index)
        if number is None or number <= previous:
            dropped += 1
            is_tolerated = not _must_match(index, damage) and numbered
            if not is_tolerated or (dropped > _MAX_DROPPED_FRAMES and dropped > numbered * _MAX_DROPPED_SHARE):
                raise MismatchError(f"unexpected time stamp {frame.pts} after frame {previous}")
            continue
        if previous and number > previous + 1 and _must_match(index, damage):
            raise MismatchError(f"frame {number} after frame {previous}")
        previous = number
        numbered += 1
        yield number, frame


def _number_of(pts: int | None, index: VideoIndex) -> int | None:
    """Return the number of the frame with this time stamp, or None."""
    place = index.frame_count if pts is None else int(np.searchsorted(index.pts, pts))
    return place + 1 if place < index.frame_count and index.pts[place] == pts else None


def _seek_keyframe(
    container: InputContainer, stream: VideoStream, index: VideoIndex, seek_pts: int, damage: Damage
) -> tuple[int, Iterator[Packet[Any]]]:
    """Seek; return the time stamp of the keyframe found and the packets from it on."""
    try:
        container.seek(seek_pts, stream=stream)
    except av.FFmpegError as error:
        raise SeekError(f"seeking to {seek_pts} failed: {error.strerror}") from error
    packets = demux(container, stream, damage)
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None:
            # A damaged index in the file shifts time stamps, so that keyframes are not where they were.
            number = _number_of(packet.pts, index)
            if number is None or not index.keyframe[number - 1]:
                raise SeekError(f"seeking to {seek_pts} found {packet.pts}, no keyframe")
            return packet.pts, itertools.chain([packet], packets)
    raise SeekError(f"no keyframe after seeking to {seek_pts}")


def demux(container: InputContainer, stream: VideoStream, damage: Damage) -> Iterator[Packet[Any]]:
    """Yield packets to the end of the file, or to damage after which packets cannot be separated."""
    flushed = False
    try:
        for packet in container.demux(stream):
            flushed = is_flush(packet)
            yield packet
    except av.FFmpegError as error:
        raise_machine_error(error, container.name)
        damage.count += 1
        _LOGGER.debug("reading stopped: %s", error.strerror)
    if not flushed:
        flush: Packet[Any] = Packet()
        flush.stream = stream
        yield flush


def _collect_chunks(
    numbered: Iterable[tuple[int, VideoFrame]], display: Display, chunk_frames: int, chunk_pixels: int
) -> Iterator[FrameChunk]:
    numbers: list[int] = []
    pixels: NDArray[np.uint8] | None = None
    for number, frame in numbered:
        rgb = display.to_rgb(frame)
        if pixels is not None and (len(numbers) == len(pixels) or rgb.shape != pixels.shape[1:]):
            yield np.array(numbers, dtype=np.int32), pixels[: len(numbers)]
            numbers, pixels = [], None
        if pixels is None:
            # The index states the size of the first frame only; others may be hundreds of times as large.
            capacity = min(chunk_frames, max(1, chunk_pixels // (rgb.shape[0] * rgb.shape[1])))
            pixels = np.empty((capacity, *rgb.shape), dtype=np.uint8)
        pixels[len(numbers)] = rgb
        numbers.append(number)
    if pixels is not None:
        yield np.array(numbers, dtype=np.int32), pixels[: len(numbers)]
