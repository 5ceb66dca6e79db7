"""Index a video by decoding it once, where its packets do not prove how many frames it has.

``packets`` decides when. Keyframes that may need earlier frames or headers are verified by a second decode.
"""

import zlib
from dataclasses import dataclass, field, replace

import numpy as np
from av.codec.context import ThreadType
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from data_contracts.errors import InvalidFileError
from data_contracts.settings import read_settings
from data_contracts.video.container import WITHOUT_PRESENTATION_TIME, Damage, decode_packets, name_of, open_video
from data_contracts.video.display import Display
from data_contracts.video.frames import MismatchError, Start, decode_from, demux
from data_contracts.video.index import VideoIndex, VideoSource
from data_contracts.video.limits import check_frames
from data_contracts.video.timing import best_times, complete, duration_seconds, even_times_seconds, increasing

# A decoder delays at most 16 frames (H.264 annex A.3, HEVC annex A.4), which may have two fields each. Time stamps that
# are further out of order have another cause, such as concatenated recordings with uncorrected time stamps.
MAX_REORDER_FRAMES = 32
# If more than one frame in _MANY_KEYFRAMES is a doubtful keyframe, those less than _MIN_DISTANCE frames before the next
# usable keyframe are neither verified nor used.
_MANY_KEYFRAMES, _MIN_DISTANCE = 8, 64
# Verification of keyframes decodes at most this number of times the frames of the video.
_MAX_DECODES = 2
_LOST_PER_DAMAGE = 2


@dataclass
class _Decoded:
    """All frames of a decode from the beginning; checksums only if they are needed."""

    container: str = ""
    time_base: float = 0.0
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    keyframe: list[bool] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    display: str | None = None
    damage: Damage = field(default_factory=Damage)

    @property
    def count(self) -> int:
        return len(self.pts)


def index_by_decoding(
    source: VideoSource, packets: VideoIndex, entries: NDArray[np.bool_], *, are_proven: bool, is_cut: bool
) -> VideoIndex:
    """Return the index of all frames of a decode from the beginning.

    Args:
        source: path, or binary file object.
        packets: the index by packets. If the file is damaged and the index explains the decoded frames, it is returned,
            so that lost frames do not shift later ones.
        entries: for each of its frames, whether decoding can provably start there. Other keyframes are verified.
        are_proven: whether it is proven that each packet shows one frame.
        is_cut: whether the last packet is damaged.

    Raises:
        InputError: no frame can be decoded, or the video is larger than the limits.
        OSError: the disk or the network failed while reading.
    """
    doubtful = _time_stamps(packets, packets.keyframe & ~entries)
    decoded = _decode_all(source, packets, with_checksums=bool(doubtful))
    packets = replace(packets, display=decoded.display)
    if decoded.damage.count and packets.has_pts and (are_proven or _explains(packets, decoded)):
        kept = _is_kept(packets, decoded, is_cut=is_cut)
        return replace(
            packets,
            pts=packets.pts[kept],
            pts_seconds=packets.pts_seconds[kept] - packets.pts_seconds[kept][0],
            keyframe=(packets.keyframe & entries)[kept],
            method="decoding",
        )
    known_pts = increasing(decoded.pts)
    has_pts, pts = known_pts is not None, np.zeros(decoded.count, dtype=np.int64) if known_pts is None else known_pts
    keyframe = (
        np.isin(pts, list(_time_stamps(packets, packets.keyframe & entries))) if has_pts else np.array(decoded.keyframe)
    )
    pts_seconds = _pts_seconds(packets, decoded)
    seconds = duration_seconds(pts_seconds)
    index = replace(
        packets,
        pts=pts,
        pts_seconds=pts_seconds,
        keyframe=keyframe,
        has_pts=has_pts,
        average_fps=(decoded.count - 1) / seconds if seconds > 0 else packets.average_fps,
        method="decoding",
    )
    if has_pts and doubtful:
        index = replace(index, keyframe=keyframe | _verify(source, index, doubtful, decoded.checksums))
    return index


def _time_stamps(index: VideoIndex, frames: NDArray[np.bool_]) -> set[int]:
    return set(index.pts[frames].tolist()) if index.has_pts else set()


def _decode_all(source: VideoSource, packets: VideoIndex, *, with_checksums: bool) -> _Decoded:
    decoded, display = _Decoded(), Display()
    max_frames = read_settings().video_limits.frames
    with open_video(source) as (container, stream):
        # As for segments: with threads, a decoder returns other frames of a damaged file.
        stream.thread_type = ThreadType.NONE
        decoded.container = container.format.name
        decoded.time_base = float(stream.time_base or 0)
        display.start(container, stream)
        for frame in display.follow(decode_packets(demux(container, stream, decoded.damage), decoded.damage)):
            decoded.pts.append(frame.pts)
            decoded.dts.append(frame.dts)
            decoded.keyframe.append(frame.key_frame)
            if with_checksums:
                decoded.checksums.append(_checksum(frame, display))
            if decoded.count > max_frames:
                check_frames(name_of(source), decoded.count)
    if not decoded.count:
        raise InvalidFileError(f"{name_of(source)}: expected a video with frames, got none; replace the file")
    decoded.display = display.describe_changes(packets.display)
    return decoded


def _checksum(frame: VideoFrame, display: Display) -> int:
    return zlib.crc32(display.to_rgb(frame).tobytes())


def _explains(packets: VideoIndex, decoded: _Decoded) -> bool:
    """Return whether the decoded frames are those of the packets, apart from a few that were lost or invented."""
    if not packets.has_pts:
        return False
    known = np.isin([pts for pts in decoded.pts if pts is not None], packets.pts).sum()
    lost, invented = packets.frame_count - known, decoded.count - known
    return bool(max(lost, invented) <= _LOST_PER_DAMAGE * decoded.damage.count)


def _is_kept(packets: VideoIndex, decoded: _Decoded, *, is_cut: bool) -> NDArray[np.bool_]:
    """Return which frames of a damaged file are counted: all except those lost at the end of a cut file."""
    decoded_pts = [pts for pts in decoded.pts if pts is not None]
    is_lost = ~np.isin(packets.pts, decoded_pts)
    is_lost[:-MAX_REORDER_FRAMES] = False
    return np.ones(packets.frame_count, dtype=bool) if not is_cut or is_lost.all() else ~is_lost


def _pts_seconds(packets: VideoIndex, decoded: _Decoded) -> NDArray[np.float64]:
    if decoded.time_base:
        has_pts = decoded.container not in WITHOUT_PRESENTATION_TIME
        usual_step = round(1 / (packets.average_fps * decoded.time_base)) if packets.average_fps else 1
        known = best_times(decoded.pts if has_pts else [None] * decoded.count, decoded.dts)
        times = complete(known, usual_step=usual_step)
        if times is not None:
            return np.asarray((times - times[0]) * decoded.time_base)
    return even_times_seconds(decoded.count, packets.average_fps)


def _verify(source: VideoSource, index: VideoIndex, doubtful: set[int], checksums: list[int]) -> NDArray[np.bool_]:
    """Decode from doubtful keyframes; return which of them give the frames of a decode from the start, bool ``[n]``.

    Frames are compared up to the next keyframe that is proven or verified, so the last keyframe comes first.
    """
    candidates, verified = np.isin(index.pts, list(doubtful)), np.zeros(index.frame_count, dtype=bool)
    # Decoding can only start at keyframes of the index.
    index = replace(index, keyframe=index.keyframe | candidates)
    proven_at = index.keyframe & ~candidates
    display, left = Display(), _MAX_DECODES * index.frame_count
    following = index.frame_count
    min_distance = _MIN_DISTANCE if candidates.sum() * _MANY_KEYFRAMES > index.frame_count else 1
    # Decoding from the first frame is a decode from the start.
    verified[0] = candidates[0]
    for position in reversed(np.flatnonzero(candidates).tolist()):
        proven = np.flatnonzero(proven_at[position + 1 : following])
        end = position + 1 + int(proven[0]) if proven.size else following
        if position == 0 or end - position < min_distance or left <= 0:
            continue
        compared, previous, is_equal = 0, 0, True
        try:
            for number, frame in decode_from(source, index, Start(position + 1), Damage(), display):
                if number <= position:
                    # Seeking found an earlier keyframe, which is verified separately.
                    continue
                if number > end:
                    break
                compared += 1
                # A decoder that lacks earlier frames drops some. ``frames`` notices it for the first ones only.
                is_equal = previous in (0, number - 1) and _checksum(frame, display) == checksums[number - 1]
                previous = number
                if not is_equal:
                    break
            is_equal &= previous in (0, end)
        except MismatchError:
            is_equal = False
        left -= compared
        # If no frame follows, as after a late recovery point, reading a segment starts further back.
        verified[position] = is_equal
        following = position if is_equal and compared else following
    return verified
