"""Index a video: exact frame numbers, time stamps and keyframes, from its packets where they prove the frames.

An inspector counts the frames that each packet shows. If each packet provably shows one frame or none, and decoded
frames from some places of the file match, the packets determine the frames that the decoder will return, with two
exceptions: frames before the first decodable one are never returned, and only a decoded frame states the display
rotation. Therefore the head of the file, usually one frame, is decoded. In all other cases, ``decoding`` decodes the
whole file once. ``frames`` decodes segments.
"""

import logging
from dataclasses import dataclass, replace
from itertools import pairwise

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_contracts.errors import InvalidFileError
from data_contracts.settings import read_settings
from data_contracts.video.container import (
    WITHOUT_PRESENTATION_TIME,
    Damage,
    check_claims,
    decode_packets,
    is_flush,
    name_of,
    open_video,
    raise_machine_error,
)
from data_contracts.video.decoding import MAX_REORDER_FRAMES, index_by_decoding
from data_contracts.video.display import Display, Geometry
from data_contracts.video.frames import demux, matches_decoder
from data_contracts.video.index import VideoIndex, VideoSource
from data_contracts.video.limits import check_duration, check_frames
from data_contracts.video.packet_inspection.inspector import UNKNOWN
from data_contracts.video.packet_inspection.registry import inspector_for
from data_contracts.video.timing import describe_clock_jumps, duration_seconds, even_times_seconds

_LOGGER = logging.getLogger(__name__)

_MAX_HEAD_FRAMES = 300
_MP4, _AVI = "mov,mp4", "avi"
_REORDERING_CODECS = ("h264", "hevc")
_MISSING_TAIL_SECONDS = 0.5
_AV_TIME_BASE = 1_000_000


@dataclass(frozen=True)
class _Packets:
    """The packets that contain frames, in decoding order, as the demuxer reports them; times in the time base.

    ``entry``: whether it is proven that decoding can start at the packet. ``hidden``: number of packets that were left
    out because they show no frame. ``proven``: whether every other packet shows one frame. ``is_cut``: whether the last
    packet is damaged.
    """

    pts: NDArray[np.int64] | None
    dts: NDArray[np.int64] | None
    keyframe: NDArray[np.bool_]
    entry: NDArray[np.bool_]
    hidden: int
    proven: bool
    end: int | None
    seen: int
    damaged: int
    is_cut: bool
    stopped: str | None


@dataclass(frozen=True)
class _Head:
    """The first frames of the decoder: their time stamps, and the geometry of the first frame."""

    pts: list[int]
    first: Geometry


def index_video(source: VideoSource, *, decode: bool = False) -> VideoIndex:
    """Return the index of the frames that a decoder returns for a video file (path, or binary file object).

    Frames that an edit list hides and frames before the first decodable one are not counted. A truncated file is
    indexed up to its end, and ``problem`` reports it. ``decode``: do not rely on packets.

    Raises:
        InputError: not a video, unreadable, without a single frame, or larger than the video limits.
        OSError: the disk or the network failed while reading.
    """
    name = name_of(source)
    check_claims(source)
    with open_video(source) as (container, stream):
        packets = _read_packets(container, stream, name)
        problem = "; ".join(_problems(container, stream, packets)) or None
        has_pts = _pts_are_presentation_times(container, stream, packets)
        is_proven = packets.proven and has_pts and _decoder_waits_long_enough(stream, packets)
    with open_video(source) as (container, stream):
        head = _decode_head(container, stream, packets if has_pts else None)
        if head is None:
            detail = f" ({problem})" if problem else ""
            raise InvalidFileError(f"{name}: expected a video with frames, got none{detail}; replace the file")
        problem = "; ".join(filter(None, (problem, *head.first.problems))) or None
        by_packets, entries = _build_index(stream, packets, head, has_pts=has_pts, problem=problem)
    # Decoding can always start at the first frame.
    has_doubtful_entries = bool(np.any(by_packets.keyframe[1:] & ~entries[1:]))
    index = by_packets
    must_decode = packets.is_cut or not is_proven or has_doubtful_entries
    is_wrong = decode or (not must_decode and not matches_decoder(source, by_packets))
    if is_wrong:
        # If packets are wrong about frames, they may also be wrong about keyframes.
        entries = np.zeros_like(entries)
    if must_decode or is_wrong:
        index = index_by_decoding(source, by_packets, entries, are_proven=packets.proven, is_cut=packets.is_cut)
    check_duration(name, index.duration_seconds)
    problem = "; ".join(filter(None, (problem, describe_clock_jumps(index.pts_seconds)))) or None
    if problem:
        _LOGGER.warning("%s: %s", name, problem)
    return replace(index, problem=problem, equals_packets=not packets.hidden and index.has_equal_frames(by_packets))


def _read_packets(container: InputContainer, stream: VideoStream, name: str) -> _Packets:
    rows: list[tuple[int | None, int | None, bool, bool]] = []
    end: int | None = None
    seen, damaged, hidden, is_cut, stopped = 0, 0, 0, False, None
    codec = stream.codec_context
    inspector = inspector_for(codec.codec.canonical_name, codec.extradata, codec.pix_fmt)
    proven = inspector is not None
    # Reading the settings for each packet would take longer than reading the packet.
    max_frames = read_settings().video_limits.frames
    try:
        for packet in container.demux(stream):
            if is_flush(packet):
                continue
            seen += 1
            damaged += packet.is_corrupt
            is_cut = packet.is_corrupt
            if packet.pts is not None:
                after = packet.pts + (packet.duration or 0)
                end = after if end is None else max(end, after)
            if not packet.size:
                continue
            shown, is_entry = inspector.inspect(packet) if inspector else UNKNOWN
            proven &= shown is not None
            if shown == 0:
                hidden += 1
            elif not packet.is_discard:
                rows.append((packet.pts, packet.dts, packet.is_keyframe, is_entry))
                if len(rows) > max_frames:
                    check_frames(name, len(rows))
    except av.FFmpegError as error:
        raise_machine_error(error, container.name)
        stopped, is_cut = str(error.strerror), True
    pts, dts = _complete([row[0] for row in rows]), _complete([row[1] for row in rows])
    keyframe, entry = (np.array([row[column] for row in rows], dtype=bool) for column in (2, 3))
    return _Packets(pts, dts, keyframe, entry, hidden, proven, end, seen, damaged, is_cut, stopped)


def _complete(values: list[int | None]) -> NDArray[np.int64] | None:
    return None if any(value is None for value in values) else np.array(values, dtype=np.int64)


def _problems(container: InputContainer, stream: VideoStream, packets: _Packets) -> list[str]:
    problems = []
    if packets.stopped:
        problems.append(f"reading stopped after {packets.seen} packets: {packets.stopped}")
    if packets.damaged:
        problems.append(f"{packets.damaged} damaged packets")
    # Frame counts of headers are unreliable: MP4 counts frames that an edit list removes, AVI counts empty chunks. The
    # packet table of MP4 is exact.
    promised_packets = len(stream.index_entries) if container.format.name.startswith(_MP4) else 0
    if packets.seen < promised_packets:
        # Empty samples stand for frames that a recorder dropped; the demuxer skips them.
        promised_packets = sum(entry.size > 0 for entry in stream.index_entries)
    promised_seconds = _promised_seconds(container, stream)
    found_seconds = 0.0
    if packets.end is not None and stream.time_base:
        # Matroska counts its duration from 0.
        start = 0 if "DURATION" in stream.metadata else stream.start_time or 0
        found_seconds = float((packets.end - start) * stream.time_base)
    if packets.seen < promised_packets:
        problems.append(f"cut off? {promised_packets} packets promised by the container, {packets.seen} found")
    elif promised_seconds - found_seconds > _MISSING_TAIL_SECONDS and packets.end is not None:
        problems.append(f"cut off? {promised_seconds:.1f} s promised by the container, {found_seconds:.1f} s found")
    return problems


def _promised_seconds(container: InputContainer, stream: VideoStream) -> float:
    """Return the video's duration in the container's header, or the file's if it has no audio; 0 if unknown."""
    if container.format.name == _AVI and stream.time_base:
        # The count includes empty chunks. FFmpeg recomputes the duration if the table is truncated.
        return float(stream.frames * stream.time_base)
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    parts = stream.metadata.get("DURATION", "").split(":")  # Matroska: 00:01:23.450000000
    if len(parts) == 3 and all(part.replace(".", "", 1).isdigit() for part in parts):
        hours, minutes, seconds = map(float, parts)
        return hours * 3600 + minutes * 60 + seconds
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / _AV_TIME_BASE
    return 0.0


def _pts_are_presentation_times(container: InputContainer, stream: VideoStream, packets: _Packets) -> bool:
    """Return whether sorting the packets by pts gives decoder output order."""
    if packets.pts is None or not packets.pts.size:
        return False
    order = np.argsort(packets.pts, kind="stable")
    if np.any(np.diff(packets.pts[order]) == 0) or np.max(np.abs(order - np.arange(order.size))) > MAX_REORDER_FRAMES:
        return False
    name, codec = container.format.name, stream.codec_context
    if name.startswith(_MP4) or np.any(np.diff(order) < 0):
        return True
    # The pts never decrease: either no frame was reordered, or the pts are decoding times.
    guessed = name in WITHOUT_PRESENTATION_TIME and codec.name in _REORDERING_CODECS
    return not guessed and codec.reorder_depth == 0


def _decoder_waits_long_enough(stream: VideoStream, packets: _Packets) -> bool:
    """Return whether the decoder delays frames until they are in order. Otherwise H.264 decoders drop some."""
    assert packets.pts is not None
    waiting = np.zeros(packets.pts.size, dtype=np.int64)
    for distance in range(1, min(MAX_REORDER_FRAMES, packets.pts.size - 1) + 1):
        waiting[distance:] += packets.pts[:-distance] > packets.pts[distance:]
    return bool(waiting.max() <= stream.codec_context.reorder_depth) or stream.codec_context.name != "h264"


def _decode_head(container: InputContainer, stream: VideoStream, packets: _Packets | None) -> _Head | None:
    """Decode up to the first frame that is not before the first keyframe (without ``packets``: one frame).

    Return None if nothing in the whole file can be decoded.
    """
    start: int | None = None
    if packets is not None and packets.pts is not None and packets.keyframe.any():
        start = int(packets.pts[packets.keyframe][0])
    seen: list[int] = []
    first: Geometry | None = None
    display = Display()
    display.start(container, stream)
    for frame in display.follow(decode_packets(demux(container, stream, Damage()))):
        first = first or display.describe(frame)
        if frame.pts is not None:
            seen.append(frame.pts)
        if start is None or frame.pts is None or frame.pts >= start or len(seen) > _MAX_HEAD_FRAMES:
            break
    return None if first is None else _Head(seen, first)


def _build_index(
    stream: VideoStream, packets: _Packets, head: _Head, *, has_pts: bool, problem: str | None
) -> tuple[VideoIndex, NDArray[np.bool_]]:
    """Return the index of packets, and whether it is proven that decoding can start at each frame."""
    keep = _kept_packets(packets, head, has_pts=has_pts)
    average_rate = float(stream.average_rate) if stream.average_rate else None
    pts = packets.pts[keep] if has_pts and packets.pts is not None else np.zeros(keep.size, dtype=np.int64)
    times = pts if has_pts else None
    if not has_pts and packets.dts is not None and not np.any(np.diff(packets.dts) < 0):
        # Decoding times that never decrease can replace presentation times.
        times = packets.dts[keep]
    # An unknown rational of PyAV, None or 0/0, is false.
    if times is None or not stream.time_base:
        pts_seconds = even_times_seconds(keep.size, average_rate)
    else:
        pts_seconds = (times - times[0]) * float(stream.time_base)
    span_seconds = duration_seconds(pts_seconds)
    index = VideoIndex(
        pts=pts,
        pts_seconds=pts_seconds,
        keyframe=packets.keyframe[keep],
        has_pts=has_pts,
        width_px=head.first.width_px,
        height_px=head.first.height_px,
        rotation_degrees=head.first.rotation_degrees,
        display=head.first.transform,
        codec=stream.codec_context.codec.canonical_name,
        claimed_frame_count=stream.frames,
        average_fps=(keep.size - 1) / span_seconds if span_seconds > 0 else average_rate,
        problem=problem,
    )
    return index, packets.entry[keep]


def _kept_packets(packets: _Packets, head: _Head, *, has_pts: bool) -> NDArray[np.intp]:
    """Return the positions of the packets whose frames the decoder returns, in output order."""
    if not has_pts or packets.pts is None:
        # Without presentation times, assume that the decoder returns nothing before the first keyframe.
        keyframes = np.flatnonzero(packets.keyframe)
        return np.arange(keyframes[0] if keyframes.size else 0, packets.keyframe.size)
    order = np.argsort(packets.pts, kind="stable")
    if not head.pts:
        return order
    # Frames that MPEG-4 decoders return before the first keyframe have random time stamps.
    in_order = all(before < after for before, after in pairwise(head.pts))
    pts = packets.pts[order]
    kept = order[(pts >= head.pts[-1]) | (np.isin(pts, head.pts) & in_order)]
    return kept if kept.size else order
