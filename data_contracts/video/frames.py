"""Decode any run of frames of an indexed video, exactly and in bounded memory.

A segment starts at the keyframe at or before its first frame; every picture is recognised by its time stamp,
never by how many came before it. What does not fit the index makes the reader start over further back, at
last from the beginning. Which frames there are is the business of ``video_packets``; nothing here looks for
faces.
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
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_contracts.video.container import decode_packets, is_flush, name_of, open_video, raise_machine_error
from data_contracts.video.index import VideoIndex, VideoSource

_LOGGER = logging.getLogger(__name__)

# Of a frame's matrix of colours (``AVColorSpace``).
_UNSPECIFIED = 2
# More than this, and the time stamps of the index are not those of the decoder.
_MAX_DROPPED_FRAMES = 4
_MAX_DROPPED_SHARE = 0.1
# 25 MB of RGB: a chunk of so many is let be, whatever its frames were expected to be like.
_SMALL_CHUNK_PIXELS = 1 << 23

FrameChunk = tuple[NDArray[np.int32], NDArray[np.uint8]]
_Numbered = Iterator[tuple[int, VideoFrame]]


@dataclass(frozen=True)
class _Start:
    """Where to start: keyframe to seek (None: the beginning), or the beginning without looking at time stamps."""

    seek_frame: int | None = None
    by_count: bool = False


class _MismatchError(Exception):
    """What comes out of the decoder does not fit the index; another start may help."""


def read_segment(
    source: VideoSource,
    index: VideoIndex,
    *,
    first_frame: int,
    frame_count: int,
    chunk_frames: int = 16,
) -> Iterator[FrameChunk]:
    """Frames ``first_frame`` .. ``first_frame + frame_count - 1`` of the video that ``index`` describes.

    Yields chunks of at most ``chunk_frames`` frames: their numbers, int32 ``[b]``, strictly increasing over
    the whole segment, and their pixels, uint8 RGB ``[b, height, width, 3]``, upright. A number that is left
    out belongs to a frame that could not be decoded, or lies past the end; the numbers after it are right all
    the same. The exception is an index that is not ``seekable``: there frames are counted, and a loss shows
    at the end of the video. A video that changes its picture size starts a new chunk there, of fewer frames
    if they are larger. Memory is one chunk plus the decoder's own.

    Raises:
        ValueError: ``first_frame``, ``frame_count`` or ``chunk_frames`` below 1.
        InputError: the file cannot be opened, or a frame is larger than the video limits.
        OSError: the disk or the network failed.
    """
    asked = {"first_frame": first_frame, "frame_count": frame_count, "chunk_frames": chunk_frames}
    for name, value in asked.items():
        if value < 1:
            raise ValueError(f"{name_of(source)}: expected {name} >= 1, got {value}")
    last = min(first_frame + frame_count - 1, index.frame_count)
    pictures = _find_frames(source, index, first=first_frame, last=last)
    chunk_pixels = max(_SMALL_CHUNK_PIXELS, chunk_frames * index.width_px * index.height_px)
    converter = _Converter(index.rotation_degrees)
    return _collect_chunks(pictures, converter, chunk_frames, chunk_pixels)


def _find_frames(source: VideoSource, index: VideoIndex, *, first: int, last: int) -> _Numbered:
    """Numbered frames of the segment, in order, each once at most, from a start that fits the index."""
    wanted = first
    for start in _starts(index, first) if first <= last else ():
        try:
            for number, frame in _decode_from(source, index, start):
                if number < wanted:
                    continue
                if number > wanted == first and start.seek_frame is not None:
                    raise _MismatchError(f"frame {number} came where {wanted} was expected")
                if number > last:
                    return
                yield number, frame
                wanted = number + 1
                if wanted > last:
                    return
            if wanted > first or start.seek_frame is None:
                return
        except _MismatchError as error:
            _LOGGER.debug("%s: decoding from %s: %s; trying further back", name_of(source), start, error)


def _starts(index: VideoIndex, first: int) -> list[_Start]:
    """Ways to start, in the order of trying."""
    if not index.has_pts:
        return [_Start(by_count=True)]
    starts = []
    nearest = index.keyframe_at_or_before(first)
    if nearest is not None and nearest > 1:
        starts.append(_Start(seek_frame=nearest))
        # Some demuxers land behind the place that they were asked for; some decoders need a run-up.
        before = index.keyframe_at_or_before(nearest - 1)
        if before is not None and before > 1:
            starts.append(_Start(seek_frame=before))
    return [*starts, _Start(), _Start(by_count=True)]


def _decode_from(source: VideoSource, index: VideoIndex, start: _Start) -> _Numbered:
    """Numbered frames from where ``start`` says to the end of the file."""
    with open_video(source) as (container, stream):
        # Work is shared out by segments: threads of one decoder cost a tenth to a half more of the processor.
        stream.thread_type = ThreadType.NONE
        if start.by_count:
            yield from enumerate(decode_packets(_demux(container, stream)), start=1)
        elif start.seek_frame is None:
            yield from _number_by_time(_demux(container, stream), index, int(index.pts[0]))
        else:
            keyframe_pts, packets = _seek_keyframe(container, stream, index, int(index.pts[start.seek_frame - 1]))
            yield from _number_by_time(packets, index, keyframe_pts)


def _number_by_time(packets: Iterable[Packet[Any]], index: VideoIndex, from_pts: int) -> _Numbered:
    """Decoded frames that are shown at ``from_pts`` or later, numbered by their time stamps.

    Earlier ones lead up to the keyframe at ``from_pts`` and may lack what they refer to. Behind damage, a
    decoder gives out a few frames late or with an unknown time stamp: they are dropped.
    """
    previous = numbered = dropped = 0
    for frame in decode_packets(packets):
        if frame.pts is not None and frame.pts < from_pts:
            continue
        number = _number_of(frame.pts, index)
        if number is None or number <= previous:
            dropped += 1
            if not numbered or (dropped > _MAX_DROPPED_FRAMES and dropped > numbered * _MAX_DROPPED_SHARE):
                raise _MismatchError(f"time stamp {frame.pts} came after that of frame {previous}")
            continue
        previous = number
        numbered += 1
        yield number, frame


def _number_of(pts: int | None, index: VideoIndex) -> int | None:
    """Number of the frame with this time stamp, None if the index has none."""
    place = index.frame_count if pts is None else int(np.searchsorted(index.pts, pts))
    return place + 1 if place < index.frame_count and index.pts[place] == pts else None


def _seek_keyframe(
    container: InputContainer, stream: VideoStream, index: VideoIndex, seek_pts: int
) -> tuple[int, Iterator[Packet[Any]]]:
    """Time stamp of the keyframe that seeking found, and the packets from it on."""
    try:
        container.seek(seek_pts, stream=stream)
    except av.FFmpegError as error:
        raise _MismatchError(f"no seeking to {seek_pts}: {error.strerror}") from error
    packets = _demux(container, stream)
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None:
            # A damaged table of contents shifts the time stamps after it: no keyframe is where one was.
            number = _number_of(packet.pts, index)
            if number is None or not index.keyframe[number - 1]:
                raise _MismatchError(f"seeking to {seek_pts} landed on {packet.pts}, no keyframe")
            return packet.pts, itertools.chain([packet], packets)
    raise _MismatchError(f"no keyframe after seeking to {seek_pts}")


def _demux(container: InputContainer, stream: VideoStream) -> Iterator[Packet[Any]]:
    """Packets to the end of the file, or to where it is damaged so that no more can be told apart."""
    flushed = False
    try:
        for packet in container.demux(stream):
            flushed = is_flush(packet)
            yield packet
    except av.FFmpegError as error:
        raise_machine_error(error, container.name)
        _LOGGER.debug("reading stopped: %s", error.strerror)
    if not flushed:
        flush: Packet[Any] = Packet()
        flush.stream = stream
        yield flush


def _collect_chunks(
    numbered: Iterable[tuple[int, VideoFrame]], converter: _Converter, chunk_frames: int, chunk_pixels: int
) -> Iterator[FrameChunk]:
    numbers: list[int] = []
    pixels: NDArray[np.uint8] | None = None
    for number, frame in numbered:
        rgb = converter.upright_rgb(frame)
        if pixels is not None and (len(numbers) == len(pixels) or rgb.shape != pixels.shape[1:]):
            yield np.array(numbers, dtype=np.int32), pixels[: len(numbers)]
            numbers, pixels = [], None
        if pixels is None:
            # The index knows the size of the first frame only; others may be hundreds of times as large.
            room = min(chunk_frames, max(1, chunk_pixels // (rgb.shape[0] * rgb.shape[1])))
            pixels = np.empty((room, *rgb.shape), dtype=np.uint8)
        pixels[len(numbers)] = rgb
        numbers.append(number)
    if pixels is not None:
        yield np.array(numbers, dtype=np.int32), pixels[: len(numbers)]


class _Converter:
    """Frames to upright RGB. PyAV's own ``to_ndarray`` sets up a scaler for every frame; here one is kept.

    Its settings give the same pixels as that for every pixel format; "fast" bilinear would not for 4:4:4, 10 bit and
    odd sizes.
    """

    def __init__(self, degrees: int) -> None:
        self._reformatter, self._turns = VideoReformatter(), degrees // 90

    def upright_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """View of a frame as uint8 ``[height, width, 3]``, turned clockwise; the caller copies it."""
        try:
            converted = self._rgb(frame)
        except av.FFmpegError:
            # FFmpeg converts nothing that says it has YCgCo, ICtCp or another rare matrix. Most of it is mislabelled.
            if frame.colorspace == _UNSPECIFIED:
                raise
            frame.colorspace = _UNSPECIFIED
            converted = self._rgb(frame)
        plane = converted.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(converted.height, plane.line_size)
        rgb = rows[:, : converted.width * 3].reshape(converted.height, converted.width, 3)
        return np.rot90(rgb, k=-self._turns)

    def _rgb(self, frame: VideoFrame) -> VideoFrame:
        return self._reformatter.reformat(frame, format="rgb24", interpolation="BILINEAR", threads=1)
