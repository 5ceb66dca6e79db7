"""The video file of a viewer: the indexed file where browsers play it, else a copy in H.264 beside the page."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import av

from data_contracts.errors import InputError, printable
from data_contracts.files.inputs import file_state, reading_inputs
from data_contracts.files.locations import Location, location
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.store import Store
from data_contracts.video.container import open_video
from data_contracts.video.display import Display
from data_contracts.video.frames import read_frames
from data_contracts.video.index import VideoIndex
from tasks.annotate.mp4 import new_frame, writing_mp4

CODE_VERSION = 1
_COPY = "video-{}.mp4"

# Chromium and Firefox play these. Formats are names of FFmpeg's demuxers.
_CODECS_OF_FORMAT = {
    "mov,mp4,m4a,3gp,3g2,mj2": ("h264", "av1", "vp9"),
    "matroska,webm": ("vp8", "vp9", "av1"),
}
_SOUND_CODECS = ("aac", "mp3", "opus", "vorbis", "flac")
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")


@dataclass(frozen=True)
class Media:
    """The video file of a viewer.

    Attributes:
        link: URL of a file that browsers play, relative to the page; None without a picture.
        note: for the reader, why there is no picture; empty otherwise.
        offset_seconds: time of frame 1 on the clock of the player, where the player does not tell it.
        size_px: width and height of the displayed frame; 0 if unknown.
    """

    link: str | None = None
    note: str = ""
    offset_seconds: float = 0.0
    size_px: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class _Playback:
    """Whether browsers play a file: ``obstacle`` says why not. ``offset_seconds``: as in ``Media``."""

    obstacle: str | None
    offset_seconds: float


def find_media(
    store: Store, folder: str, path: str | None, index: VideoIndex | None, *, on_copy: Callable[[str], None] = print
) -> Media:
    """Return the file that the viewer in ``folder`` of the store shows; write a copy there if browsers need one.

    Args:
        path: the video file; None if it is unknown.
        on_copy: called with a line for people before a copy is written, which takes as long as decoding the video.

    Raises:
        StoreError: the copy cannot be written.
    """
    size = (index.width_px, index.height_px) if index else (0, 0)
    place = location(path) if path else None
    if place is None or index is None:
        return Media(note="The store does not know the video file, so there is no picture.", size_px=size)
    try:
        with reading_inputs(place):
            if not place.is_file():
                note = f"There is no picture, because the video file is gone: {printable(str(place))}"
                return Media(note=note, size_px=size)
        if not isinstance(place, Path) or not store.is_local:
            # A page cannot link a file on S3, nor a page on S3 a file on a disk.
            return Media(_provide_copy(store, folder, place, index, "a video or page on S3", on_copy), size_px=size)
        playback = check_playback(place, index)
        if playback.obstacle is None:
            relative = os.path.relpath(place, store.locate(folder))
            # The bytes of a name are its URL, also where they are not UTF-8.
            return Media(quote(os.fsencode(relative)), offset_seconds=playback.offset_seconds, size_px=size)
        return Media(_provide_copy(store, folder, place, index, playback.obstacle, on_copy), size_px=size)
    except (InputError, av.FFmpegError) as error:
        return Media(note=f"There is no picture: {error}", size_px=size)


def _provide_copy(
    store: Store, folder: str, path: Location, index: VideoIndex, obstacle: str, on_copy: Callable[[str], None]
) -> str:
    """Return the name of the copy in H.264, with the frames and times of the video; write it unless it exists."""
    name = _COPY.format(fingerprint(stage="viewer_copy", version=CODE_VERSION, state=list(file_state(path)))[:8])
    others = [one for one in store.list_folder(folder) if one != name and one.startswith("video-")]
    if not store.exists(f"{folder}/{name}"):
        on_copy(f"{path.name}: browsers may not play {obstacle}; writing a copy in H.264")
        threads = len(os.sched_getaffinity(0))
        with (
            store.files.replacing_path(f"{folder}/{name}") as temporary,
            writing_mp4(temporary, path, index, threads=threads) as writer,
        ):
            display, written, shown = Display("yuv420p"), 0, None
            for number, frame in read_frames(path, index, display):
                picture = display.to_planes(frame)
                if shown is not None and picture[1][0].shape != shown[1][0].shape:
                    continue
                # Frames that cannot be decoded, or have another size, are shown as the one before.
                for lost in range(written + 1, number):
                    writer.write(lost, new_frame(*(shown or picture)))
                writer.write(number, new_frame(*picture))
                written, shown = number, picture
            if shown is None:
                raise InputError(f"{path}: expected frames that can be decoded, found none; replace the file")
            for lost in range(written + 1, index.frame_count + 1):
                writer.write(lost, new_frame(*shown))
            writer.finish()
    with contextlib.suppress(OSError):
        for other in others:
            store.remove(f"{folder}/{other}")
    return name


def check_playback(path: Path, index: VideoIndex) -> _Playback:
    """Find out whether browsers play a video file and show the frames that its index has.

    Raises:
        InputError: the file cannot be read.
    """
    with open_video(path) as (container, stream):
        codec, pixels = stream.codec_context.codec.canonical_name, stream.codec_context.pix_fmt
        sound = {one.codec_context.codec.canonical_name for one in container.streams.audio if one.codec_context}
        first = float(index.pts[0] * stream.time_base) if index.has_pts and stream.time_base else 0.0
        obstacle = None
        if codec not in _CODECS_OF_FORMAT.get(container.format.name, ()):
            obstacle = f"{codec} in {container.format.long_name}"
        elif pixels not in _PIXEL_FORMATS:
            obstacle = f"{codec} with pixels in {pixels}"
        elif sound and not sound & set(_SOUND_CODECS):
            obstacle = f"sound in {', '.join(sorted(sound))}"
        elif not index.has_pts:
            obstacle = "frames without reliable times"
        elif index.display is not None and "crop" in index.display:
            obstacle = "frames that the container crops"
        return _Playback(obstacle, max(0.0, first))
