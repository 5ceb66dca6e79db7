"""Open a video file and run its packets through the decoder. Which frame is which: other modules."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from typing import IO, Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from data_contracts.errors import InputError
from data_contracts.files.locations import S3_PREFIX, is_remote, location
from data_contracts.video.index import VideoSource
from data_contracts.video.limits import check_bytes, check_frames, frame_too_large, max_pixels
from data_contracts.video.tables import claimed_frames

_LOGGER = logging.getLogger(__name__)
# What FFmpeg says is listened to where it tells a cause, and shown nowhere.
logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
av.logging.set_skip_repeated(False)

# Text files pass as video of this format: FFmpeg draws their characters.
_TEXT_FORMAT = "tty"
# Formats that hold their frames themselves. Play lists (HLS, DASH, concat) name other files, on this machine and on
# others, and FFmpeg would go by a file's content, whatever its suffix. Text and sound are here to be told by name.
_FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "ivf", "flv", "asf", "ogg"),
    *("mxf", "dv", "nut", "3g2", _TEXT_FORMAT, "wav", "mp3", "aac", "flac"),
)
_TOO_LARGE = re.compile(r"Picture size (\d+)x(\d+) exceeds")
_BLOCK_BYTES = 1 << 20
_OF_THE_USER = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@contextmanager
def open_video(source: VideoSource) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened file and its best video stream; cover pictures do not count. A file object is read from its
    start.

    Raises:
        InputError: no such file, not a video, no codec for it, or larger than the video limits.
        OSError: the disk or the network failed.
    """
    name = name_of(source)
    with _readable(source) as file, _open_container(file) as container:
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
        width_px, height_px = stream.codec_context.width, stream.codec_context.height
        if width_px * height_px > max_pixels():
            raise frame_too_large(name, width_px, height_px)
        stream.codec_context.options = _pixel_limit()
        yield container, stream


def check_claims(source: VideoSource) -> None:
    """That the tables of a file do not claim more frames than the video limits allow: to open it makes room for them.

    Of a file on S3, whose fragments lie all over it, those behind the first one are not looked at.

    Raises:
        InputError: they do.
        OSError: the disk or the network failed.
    """
    with _readable(source) as file, suppress(*_OF_THE_USER):
        check_frames(name_of(source), claimed_frames(file, fragments=not is_remote(source)))


@contextmanager
def _readable(source: VideoSource) -> Iterator[Any]:
    """The source, or a file that reads from S3; if it cannot, that is the cause of whatever else went wrong."""
    name = name_of(source)
    if not is_remote(source):
        if isinstance(source, str | PathLike):
            _check_is_file(source, name)
        yield source
        return
    from data_contracts.files.s3_client import open_video_file

    try:
        file = open_video_file(location(source))
    except FileNotFoundError as error:
        raise InputError(f"{name}: expected a readable video file, found nothing there; check the path") from error
    try:
        yield file
    finally:
        file.raise_if_failed()


def _check_is_file(path: str | PathLike[str], name: str) -> None:
    """That a link leads somewhere, and that opening will not wait for what never comes."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            got = f"a link to {os.readlink(path)}, where no file is"
            raise InputError(f"{name}: expected a video file, got {got}; mend the link or remove it") from error
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{name}: expected a video file, got a pipe or a device; leave it out")


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

    Raises:
        InputError: a picture is larger than the video limits. FFmpeg has made no room for it.
    """
    for packet in packets:
        if is_empty_chunk(packet):
            continue
        try:
            pictures = packet.decode()
        except av.FFmpegError as error:
            _LOGGER.debug("packet with pts %s: %s", packet.pts, error.strerror)
            _refuse_if_too_large(packet)
            continue
        yield from pictures


def _refuse_if_too_large(packet: Packet[Any]) -> None:
    """Raise ``InputError`` if that is why a packet could not be decoded; a decoder of its own is asked."""
    decoder = packet.stream.codec_context
    if 0 < decoder.width * decoder.height <= max_pixels():
        # Where it refuses a picture, it forgets their size, or has taken over that of the large one.
        return
    asked = av.CodecContext.create(decoder.name, "r")
    asked.extradata, asked.options = decoder.extradata, _pixel_limit()
    with _refusing_large_pictures(packet.stream.container.name), suppress(av.FFmpegError):
        asked.decode(packet)


@contextmanager
def _refusing_large_pictures(name: str) -> Iterator[None]:
    """Raise ``InputError`` if FFmpeg says in the block that a picture is above the limit: no return value tells."""
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as said:
        try:
            yield
        finally:
            av.logging.set_level(None)
            found = next((match for _, _, text in said if (match := _TOO_LARGE.search(text))), None)
            if found:
                raise frame_too_large(name, int(found[1]), int(found[2]))


def _pixel_limit() -> dict[str, str]:
    return {"max_pixels": f"{max_pixels():.0f}"}


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
    name = name_of(source)
    options = _pixel_limit() | {"format_whitelist": ",".join(_FORMATS)}
    try:
        check_bytes(name, _size_bytes(source))
        with _refusing_large_pictures(name):
            # Of a relative path, FFmpeg takes what stands before a colon for a protocol.
            file = os.path.abspath(source) if isinstance(source, str | PathLike) else source
            return av.open(file, mode="r", options=options)
    except (av.FFmpegError, OSError) as error:
        if not isinstance(error, _OF_THE_USER):
            raise_machine_error(error, name)
        message = f"{name}: expected a readable video file, got: {error.strerror or error}"
        raise InputError(f"{message}; check the path and that the copy is complete") from error


def _size_bytes(source: str | PathLike[str] | IO[bytes]) -> int:
    if isinstance(source, str | PathLike):
        return os.stat(source).st_size
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return size
