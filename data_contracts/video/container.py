"""Open a video file and decode its packets. ``packets`` and ``frames`` number the frames."""

from __future__ import annotations

import logging
import mmap
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from typing import IO, Any

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from data_contracts.errors import InputError, InvalidFileError
from data_contracts.files.locations import S3_PREFIX, is_remote, location
from data_contracts.video.index import VideoSource
from data_contracts.video.limits import check_bytes, check_frames, claimed_frames, frame_too_large, max_pixels

_LOGGER = logging.getLogger(__name__)
# FFmpeg's log messages are captured to find error causes; they are never displayed.
logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
av.logging.set_skip_repeated(False)

# Options of libx264 for files that have the same bytes in every run. Its macroblock tree reads memory that differs
# between runs: 1 to 5 of 24 copies of a clip had a block with other values (libx264 of PyAV 18.1, AVX-512).
REPEATABLE_X264 = {"x264-params": "mbtree=0"}

# FFmpeg opens text files as video of this format and draws their characters.
_TEXT_FORMAT = "tty"
# Formats that contain their frames. Playlists (HLS, DASH, concat) name other files, on this machine and on others, and
# FFmpeg detects them by their content, whatever the suffix. Text and audio are listed to get errors that name them.
_FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "ivf", "flv", "asf", "ogg"),
    *(
        "mxf",
        "dv",
        "nut",
        "3g2",
        "gif",
        "apng",
        "rm",
        "wtv",
        "yuv4mpegpipe",
        "mjpeg",
        "obu",
        "av1",
        "vc1",
        "dhav",
        "vvc",
    ),
    *(_TEXT_FORMAT, "wav", "mp3", "aac", "flac"),
)
# These formats store frames in decoding order without presentation times; the demuxer's pts are a guess.
WITHOUT_PRESENTATION_TIME = ("avi", "asf", "h264", "hevc", "vvc")
_TOO_LARGE = re.compile(r"Picture size (\d+)x(\d+) exceeds")
_BLOCK_BYTES = 1 << 20
# libavutil/mem.c, max_alloc_size.
_MAX_BLOCK_OF_FFMPEG_BYTES = 1 << 31
_USER_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@contextmanager
def open_video(source: VideoSource) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and return it with its best video stream; cover images do not count.

    A file object is read from its start.

    Raises:
        InputError: no such file, not a video, no codec for it, or larger than the video limits.
        OSError: the disk or the network failed.
    """
    name = name_of(source)
    with _readable(source) as file, _open_container(file) as container:
        if container.format.name == _TEXT_FORMAT:
            raise InvalidFileError(f"{name}: expected a video file, got text; leave it out")
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = {"a cover image" if s.type == "video" else str(s.type) for s in container.streams}
            found = " and ".join(sorted(kinds)) or "nothing"
            raise InvalidFileError(f"{name}: expected a video stream, got {found}; leave it out")
        stream = _best_of(container, streams)
        if stream.codec_context is None:
            raise InvalidFileError(f"{name}: expected a codec that FFmpeg knows, got another; convert the file first")
        width_px, height_px = stream.codec_context.width, stream.codec_context.height
        if width_px * height_px > max_pixels():
            raise frame_too_large(name, width_px, height_px)
        stream.codec_context.options = _pixel_limit()
        # Else FFmpeg crops fewer columns on the left than the header of the video states, to keep pixels aligned.
        stream.codec_context.flags |= Flags.unaligned
        yield container, stream


def check_claims(source: VideoSource) -> None:
    """Check the number of frames that the tables of a file claim, because opening it allocates memory for them.

    In a file on S3, only the first fragment is checked, because fragments are distributed over the whole file.

    Raises:
        InputError: the number is larger than the limit.
        OSError: the disk or the network failed.
    """
    with _readable(source) as file, suppress(*_USER_ERRORS):
        check_frames(name_of(source), claimed_frames(file, all_fragments=not is_remote(source)))


@contextmanager
def _readable(source: VideoSource) -> Iterator[Any]:
    """Yield the source, or a file object for S3 whose read errors take precedence over FFmpeg's errors."""
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
    """Refuse broken links, and pipes and devices, which would block when they are opened."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            got = f"a link to {os.readlink(path)}, which does not exist"
            raise InputError(f"{name}: expected a video file, got {got}; repair the link or remove it") from error
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InvalidFileError(f"{name}: expected a video file, got a pipe or a device; leave it out")


def _best_of(container: InputContainer, streams: list[VideoStream]) -> VideoStream:
    try:
        best = container.streams.best("video")
    except IndexError:
        # FFmpeg's choice may be a stream that appeared after the header and is unknown to PyAV.
        return streams[0]
    return next((stream for stream in streams if stream is best), streams[0])


def name_of(source: VideoSource) -> str:
    """Return the name of the file for messages."""
    return str(source if isinstance(source, str | PathLike) else getattr(source, "name", source))


@dataclass
class Damage:
    """How much damage a decoder has met: packets that could not be read or decoded, and frames marked as damaged."""

    count: int = 0


def decode_packets(packets: Iterable[Packet[Any]], damage: Damage | None = None) -> Iterator[VideoFrame]:
    """Yield frames in decoder output order. Packets that cannot be decoded are skipped and counted in ``damage``.

    The end of ``packets`` does not flush the decoder; the demuxer's last, empty packet does.

    Raises:
        InputError: a frame is larger than the limit. FFmpeg has not allocated memory for it.
    """
    damage = damage or Damage()
    for packet in packets:
        if packet.size == 0 and not is_flush(packet):
            # Decoding an empty chunk, as in AVI files, would flush the decoder.
            continue
        damage.count += packet.is_corrupt
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            _raise_if_memory_is_short(error)
            _LOGGER.debug("packet with pts %s: %s", packet.pts, error.strerror)
            damage.count += 1
            _refuse_if_too_large(packet)
            continue
        for frame in frames:
            damage.count += frame.is_corrupt
            yield frame


def _refuse_if_too_large(packet: Packet[Any]) -> None:
    """Decode a failed packet with a second decoder; raise ``InputError`` if its frame is too large."""
    decoder = packet.stream.codec_context
    if 0 < decoder.width * decoder.height <= max_pixels():
        # After refusing a frame, a decoder has no frame size or that of the large frame.
        return
    second_decoder = av.CodecContext.create(decoder.name, "r")
    second_decoder.extradata, second_decoder.options = decoder.extradata, _pixel_limit()
    with _refuse_large_frames(packet.stream.container.name), suppress(av.FFmpegError):
        second_decoder.decode(packet)


@contextmanager
def _refuse_large_frames(name: str) -> Iterator[None]:
    """Raise ``InputError`` if FFmpeg logs within the block that a frame exceeds the limit; no return value says so."""
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as messages:
        try:
            yield
        finally:
            av.logging.set_level(None)
            found = next((match for _, _, text in messages if (match := _TOO_LARGE.search(text))), None)
            if found:
                raise frame_too_large(name, int(found[1]), int(found[2]))


def _pixel_limit() -> dict[str, str]:
    return {"max_pixels": f"{max_pixels():.0f}"}


def is_flush(packet: Packet[Any]) -> bool:
    """Return whether this is the demuxer's last packet, which makes the decoder return its delayed frames."""
    return packet.size == 0 and packet.pts is None and packet.dts is None


def raise_machine_error(error: Exception, name: str) -> None:
    """Raise ``error`` again if the disk, the network or memory caused it. Other errors belong to the file ``name``.

    FFmpeg reports some damage as an I/O error; in that case the file can still be read to its end.
    """
    _raise_if_memory_is_short(error)
    if not isinstance(error, OSError) or isinstance(error, av.error.EOFError):
        return
    if name.startswith(S3_PREFIX) and isinstance(error, av.FFmpegError):
        # The file object raises the error of a failed request.
        return
    if not isinstance(error, av.FFmpegError) or not _can_be_read(name):
        raise error


def _raise_if_memory_is_short(error: Exception) -> None:
    """Raise ``error`` again if FFmpeg got no memory and this process gets none either.

    A damaged header can request more than FFmpeg's limit for one block. That error belongs to the file.
    """
    if not isinstance(error, MemoryError):
        return
    try:
        mmap.mmap(-1, _MAX_BLOCK_OF_FFMPEG_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise error from None


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
        with _refuse_large_frames(name):
            # FFmpeg treats the part of a relative path before a colon as a protocol.
            file = os.path.abspath(source) if isinstance(source, str | PathLike) else source
            # Titles in other encodings than UTF-8 are common, and not used.
            return av.open(file, mode="r", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        kind = InputError if isinstance(error, _USER_ERRORS) else InvalidFileError
        if kind is InvalidFileError:
            raise_machine_error(error, name)
        message = f"{name}: expected a readable video file, got: {error.strerror or error}"
        raise kind(f"{message}; check the path and that the copy is complete") from error


def _size_bytes(source: str | PathLike[str] | IO[bytes]) -> int:
    if isinstance(source, str | PathLike):
        return os.stat(source).st_size
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return size
