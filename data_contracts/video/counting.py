"""Count the frames of a video by decoding it, independently of its index."""

from dataclasses import dataclass

from av.codec.context import ThreadType

from data_contracts.video.container import Damage, decode_packets, open_video
from data_contracts.video.frames import demux
from data_contracts.video.index import VideoSource


@dataclass(frozen=True)
class FrameCount:
    """Number of decoded frames. ``is_damaged``: some may be missing."""

    frames: int
    is_damaged: bool


def count_frames(source: VideoSource) -> FrameCount:
    """Decode a whole video and count its frames.

    Raises:
        InputError: not a video, or larger than the video limits.
        OSError: the disk or the network failed.
    """
    damage = Damage()
    with open_video(source) as (container, stream):
        stream.thread_type = ThreadType.AUTO
        frames = sum(1 for _ in decode_packets(demux(container, stream, damage), damage))
    return FrameCount(frames, damage.count > 0)
