"""Decode any run of frames of an indexed video, exactly and in bounded memory.

A segment starts at the keyframe at or before its first frame; every picture is recognised by its time stamp, never by
how many came before it. What does not fit the index makes the reader start over further back, at last from the
beginning. Which frames there are is the business of ``video_packets``; nothing here looks for faces.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_contracts.video_container import decode_packets, is_flush, name_of, open_video
from data_contracts.video_index import VideoIndex, VideoSource

_LOGGER = logging.getLogger(__name__)

ThreadType = Literal["NONE", "AUTO", "FRAME", "SLICE"]
FrameChunk = tuple[NDArray[np.int32], NDArray[np.uint8]]
_Numbered = Iterator[tuple[int, VideoFrame]]


class _WrongPlaceError(Exception):
    """Decoding did not start where it should; starting further back may help."""


class _WrongTimesError(Exception):
    """Time stamps of the decoder are not those of the index; only counting helps."""


def read_segment(
    source: VideoSource,
    index: VideoIndex,
    *,
    first_frame: int,
    frame_count: int,
    chunk_frames: int = 16,
    thread_type: ThreadType = "NONE",
) -> Iterator[FrameChunk]:
    """Frames ``first_frame`` .. ``first_frame + frame_count - 1`` of the video that ``index`` describes.

    Yields chunks of at most ``chunk_frames`` frames: their numbers, int32 ``[b]``, strictly increasing over the whole
    segment, and their pixels, uint8 RGB ``[b, height, width, 3]``, upright. A number that is left out belongs to a
    frame that could not be decoded, or lies past the end; the numbers after it are right all the same. The exception
    is an index that is not ``seekable``: there frames are counted, and a loss shows at the end of the video.
    A video that changes its picture size starts a new chunk there. Memory is one chunk plus the decoder's own.

    Raises:
        ValueError: ``first_frame``, ``frame_count`` or ``chunk_frames`` below 1.
        InputError: the file cannot be opened.
        OSError: the disk or the network failed.
    """
    asked = {"first_frame": first_frame, "frame_count": frame_count, "chunk_frames": chunk_frames}
    for name, value in asked.items():
        if value < 1:
            raise ValueError(f"{name_of(source)}: expected {name} >= 1, got {value}")
    last = min(first_frame + frame_count - 1, index.frame_count)
    pictures = _find_frames(source, index, first=first_frame, last=last, thread_type=thread_type)
    return _collect_chunks(pictures, index.rotation_degrees, chunk_frames)


def _find_frames(
    source: VideoSource, index: VideoIndex, *, first: int, last: int, thread_type: ThreadType
) -> _Numbered:
    """Numbered frames of the segment, each at most once and in order, from whichever start serves them rightly."""
    wanted = first
    starts = _starts(index, first)
    while wanted <= last and starts:
        start = starts.pop(0)
        may_miss = start is None or start == 1
        try:
            with open_video(source) as (container, stream):
                stream.thread_type = thread_type
                frames = (
                    _decode_by_time(container, stream, index, start)
                    if start
                    else _decode_by_count(container, stream)
                )
                for number, frame in frames:
                    if number < wanted:
                        continue
                    if number > wanted == first and not may_miss:
                        raise _WrongPlaceError(f"frame {number} came where {wanted} was expected")
                    if number > last:
                        return
                    yield number, frame
                    wanted = number + 1
                    if wanted > last:
                        return
            if may_miss or wanted > first:
                return
        except _WrongPlaceError as error:
            _LOGGER.debug("%s: start at frame %s: %s; starting further back", name_of(source), start, error)
        except _WrongTimesError as error:
            _LOGGER.warning("%s: %s; counting frames from the start instead", name_of(source), error)
            starts = [None]


def _starts(index: VideoIndex, first: int) -> list[int | None]:
    """Frames to start decoding at, in the order of trying: keyframes, the beginning; None for counting."""
    if not index.seekable:
        return [None]
    nearest = index.keyframe_at_or_before(first)
    before = index.keyframe_at_or_before(nearest - 1) if nearest else None
    candidates = [start for start in (nearest, before) if start is not None and start > 1]
    return [*candidates, 1]


def _decode_by_count(container: InputContainer, stream: VideoStream) -> _Numbered:
    return enumerate(decode_packets(_demux(container, stream)), start=1)


def _decode_by_time(
    container: InputContainer, stream: VideoStream, index: VideoIndex, start: int
) -> _Numbered:
    """Frames from the keyframe ``start`` on, numbered by their time stamps; from the beginning for 1."""
    packets = _demux(container, stream)
    if start > 1:
        packets = _seek_keyframe(container, stream, int(index.pts[start - 1]))
    previous = 0
    for frame in decode_packets(packets):
        if frame.pts is not None and frame.pts < index.pts[start - 1]:
            continue  # leads up to the keyframe, or comes before frame 1: may lack what it refers to
        number = 0 if frame.pts is None else int(np.searchsorted(index.pts, frame.pts)) + 1
        if not 0 < number <= index.frame_count or index.pts[number - 1] != frame.pts:
            raise _WrongTimesError(f"the decoder's time stamp {frame.pts} is not in the index")
        if number <= previous:
            raise _WrongTimesError(f"frame {number} came after frame {previous}")
        previous = number
        yield number, frame


def _seek_keyframe(container: InputContainer, stream: VideoStream, pts: int) -> Iterator[Packet[Any]]:
    """Packets from a keyframe on that is shown at ``pts`` or before."""
    try:
        container.seek(pts, stream=stream)
    except av.FFmpegError as error:
        raise _WrongPlaceError(f"no seeking to {pts}: {error.strerror}") from error
    packets = _demux(container, stream)
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None:
            if packet.pts > pts:
                raise _WrongPlaceError(f"seeking to {pts} landed on {packet.pts}")
            return itertools.chain([packet], packets)
    raise _WrongPlaceError(f"no keyframe after seeking to {pts}")


def _demux(container: InputContainer, stream: VideoStream) -> Iterator[Packet[Any]]:
    """Packets to the end of the file, or to where it is damaged so that no more can be told apart."""
    flushed = False
    try:
        for packet in container.demux(stream):
            flushed = is_flush(packet)
            yield packet
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        _LOGGER.debug("reading stopped: %s", error.strerror)
    if not flushed:
        flush: Packet[Any] = Packet()
        flush.stream = stream
        yield flush


def _collect_chunks(
    numbered: Iterable[tuple[int, VideoFrame]], degrees: int, chunk_frames: int
) -> Iterator[FrameChunk]:
    reformatter = VideoReformatter()
    numbers: list[int] = []
    pixels: NDArray[np.uint8] | None = None
    for number, frame in numbered:
        rgb = _upright_rgb(reformatter, frame, degrees)
        if pixels is not None and (len(numbers) == chunk_frames or rgb.shape != pixels.shape[1:]):
            yield np.array(numbers, dtype=np.int32), pixels[: len(numbers)]
            numbers, pixels = [], None
        if pixels is None:
            pixels = np.empty((chunk_frames, *rgb.shape), dtype=np.uint8)
        pixels[len(numbers)] = rgb
        numbers.append(number)
    if pixels is not None:
        yield np.array(numbers, dtype=np.int32), pixels[: len(numbers)]


def _upright_rgb(reformatter: VideoReformatter, frame: VideoFrame, degrees: int) -> NDArray[np.uint8]:
    """View of a frame as uint8 ``[height, width, 3]``, turned clockwise by ``degrees``; the caller copies it.

    The reformatter is kept because PyAV's own ``to_ndarray`` sets up a scaler for every frame. Its settings give the
    same pixels as that for every pixel format; "fast" bilinear would not for 4:4:4, 10 bit and odd sizes.
    """
    converted = reformatter.reformat(frame, format="rgb24", interpolation="BILINEAR", threads=1)
    plane = converted.planes[0]
    rows = np.frombuffer(plane, dtype=np.uint8).reshape(converted.height, plane.line_size)
    rgb = rows[:, : converted.width * 3].reshape(converted.height, converted.width, 3)
    return np.rot90(rgb, k=-(degrees // 90))
