"""Open a video file and run its packets through the decoder. Which frame is which: other modules."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import IO, Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from data_contracts.errors import InputError
from data_contracts.locations import is_remote, location
from data_contracts.ranged_file import RangedFile, open_ranged
from data_contracts.s3_requests import S3_PREFIX
from data_contracts.video_index import VideoSource

_LOGGER = logging.getLogger(__name__)

# Text files pass as video of this format: FFmpeg draws their characters.
_TEXT_FORMAT = "tty"
# Twice 8K. A header that claims more is damaged, or made to exhaust the memory.
MAX_FRAME_PIXELS = 2 * 7680 * 4320
_BLOCK_BYTES = 1 << 20
_OF_THE_USER = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@contextmanager
def open_video(source: VideoSource) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened file and its best video stream; cover pictures do not count. A file object is read from its
    start.

    Raises:
        InputError: no such file, not a video, or no codec for it.
        OSError: the disk or the network failed.
    """
    name = name_of(source)
    with _readable(source) as file, _open_container(file) as container:
        if isinstance(file, RangedFile):
            file.keep_what_was_read()
        if container.format.name == _TEXT_FORMAT:
            raise InputError(f"{name}: expected a video file, got text; leave it out")
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = {"a cover picture" if s.type == "video" else str(s.type) for s in container.streams}
            found = " and ".join(sorted(kinds)) or "nothing"
            raise InputError(f"{name}: expected a video stream, got {found}; leave it out")
        stream = _best_of(container, streams)
        if stream.codec_context is None:
            raise InputError(f"{name}: expected a codec that FFmpeg knows, got another; convert the file first")
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        yield container, stream


@contextmanager
def _readable(source: VideoSource) -> Iterator[Any]:
    """The source, or a file that reads from S3; if it cannot, that is the cause of whatever else went wrong."""
    if not is_remote(source):
        yield source
        return
    name = name_of(source)
    try:
        file = open_ranged(location(source))
    except FileNotFoundError as error:
        raise InputError(f"{name}: expected a readable video file, found nothing there; check the path") from error
    try:
        yield file
    finally:
        file.raise_if_failed()


def _best_of(container: InputContainer, streams: list[VideoStream]) -> VideoStream:
    try:
        best = container.streams.best("video")
    except IndexError:
        # FFmpeg's choice may be a stream that appeared after the header, of which PyAV does not know.
        return streams[0]
    return next((stream for stream in streams if stream is best), streams[0])


def name_of(source: VideoSource) -> str:
    """What to call the file in a message."""
    return str(source if isinstance(source, str | PathLike) else getattr(source, "name", source))


def decode_packets(packets: Iterable[Packet[Any]]) -> Iterator[VideoFrame]:
    """Pictures in the order in which the decoder gives them out. Packets that it cannot decode are skipped.

    The end of ``packets`` does not flush the decoder: the demuxer's last, empty packet does.
    """
    for packet in packets:
        if is_empty_chunk(packet):
            continue
        try:
            pictures = packet.decode()
        except av.FFmpegError as error:
            _LOGGER.debug("packet with pts %s: %s", packet.pts, error.strerror)
            continue
        yield from pictures


def is_empty_chunk(packet: Packet[Any]) -> bool:
    """Whether the packet is a place without a picture (AVI has them); decoding it would flush the decoder."""
    return packet.size == 0 and not is_flush(packet)


def is_flush(packet: Packet[Any]) -> bool:
    """Whether this is the demuxer's last packet, which asks the decoder for the pictures it holds back."""
    return packet.size == 0 and packet.pts is None and packet.dts is None


def raise_machine_error(error: Exception, name: str) -> None:
    """Raise ``error`` again if it is of a disk or a network. All others are of the file ``name``.

    FFmpeg calls some damage an error of input and output: then the file can be read to its end all the same. Lack of
    memory is of the file too: it is reported when a damaged header asks for an absurd amount.
    """
    if not isinstance(error, OSError) or isinstance(error, av.error.EOFError):
        return
    if name.startswith(S3_PREFIX) and isinstance(error, av.FFmpegError):
        # A request that failed is told by the file itself.
        return
    if not isinstance(error, av.FFmpegError) or not _can_be_read(name):
        raise error


def _can_be_read(name: str) -> bool:
    try:
        with open(name, "rb") as file:
            while file.read(_BLOCK_BYTES):
                pass
    except OSError:
        return False
    return True


def _open_container(source: str | PathLike[str] | IO[bytes]) -> InputContainer:
    try:
        if isinstance(source, str | PathLike):
            return av.open(str(source), mode="r")
        source.seek(0)
        return av.open(source, mode="r")
    except (av.FFmpegError, OSError) as error:
        if not isinstance(error, _OF_THE_USER):
            raise_machine_error(error, name_of(source))
        message = f"{name_of(source)}: expected a readable video file, got: {error.strerror or error}"
        raise InputError(f"{message}; check the path and that the copy is complete") from error
