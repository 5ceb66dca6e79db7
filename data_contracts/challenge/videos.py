"""Find the video files in folders, and account for every other file.

The suffix decides; the content decides for files with an unknown suffix or without one.
"""

import codecs
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.challenge.crops import holds_crops, is_crop_folder
from data_contracts.challenge.editions import challenge_of_folder, task_of_test_list
from data_contracts.challenge.other_files import (
    ANNOTATED,
    ARCHIVES,
    HARMLESS_REASONS,
    NO_VIDEO,
    OTHER,
    OTHER_ARCHIVES,
    PIPES,
    reason_by_suffix,
)
from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount, is_harmless
from data_contracts.files.inputs import check_name_can_be_stored, reading_inputs, refresh_listings
from data_contracts.files.locations import S3_PREFIX, Location, is_remote
from data_contracts.vocabulary import ANNOTATED_SUFFIX, STORE_FILE, VIDEO_SUFFIXES, normalize_name

if TYPE_CHECKING:
    from upath import UPath

# Files that hold sound or a picture as often as a video.
_CONTENT_DECIDES = frozenset((".gif", ".ogg", ".ogx"))
_BROKEN = "links to files that do not exist"
_LOOPS = "links to folders that are searched anyway"
_CROPS = "folders of crops"
_OWN_PAGES = "folders of pages of a store"
_SHARED_NAMES = "videos that share their name with another video; rename all but one"
# The suffix does not determine whether the file is a video.
_UNDECIDED = "undecided"
_HEAD_BYTES = 4096
# Folder of a store with pages and their copies of videos.
_PAGES = "reports"


@dataclass(frozen=True)
class VideoListing:
    """The videos in some folders.

    Attributes:
        videos: name -> file. The name is the stem of the file, in Unicode NFC.
        same_names: name -> several files with this name. They are not in ``videos``.
        account: what was found, used and skipped.
    """

    videos: dict[str, Location] = field(default_factory=dict)
    same_names: dict[str, tuple[Location, ...]] = field(default_factory=dict)
    account: InputAccount = field(default_factory=lambda: InputAccount("videos"))


def name_of_video(path: Location) -> str:
    """Return the name under which the results of a video file are stored."""
    return normalize_name(path.stem)


def list_videos(
    places: Sequence[Location],
    *,
    leave_out: Collection[str] = (),
    account: InputAccount | None = None,
) -> VideoListing:
    """List video files: files in ``places``, and files in the folders of ``places`` and all their subfolders.

    Folders in ``leave_out``, stores of affwild2, and folders of crops and annotations are not searched. On S3, the name
    of a folder decides whether it is a folder of crops; on a disk, it must also contain crops. A broken link with the
    suffix of a video counts as a video; opening it raises the error. A folder may be empty; on S3, a prefix without
    files counts as an empty folder. ``account``: receives all other files; default: a new one.

    Raises:
        InputError: a path does not exist, is a folder that cannot be listed, or is not a video; S3 does not answer; or
            this process cannot write a name.
    """
    account = account or InputAccount("videos", *places)
    found: dict[str, list[Location]] = {}
    for place in places:
        with reading_inputs(place):
            refresh_listings(place)
            for file in _videos_at(place, leave_out, account):
                found.setdefault(name_of_video(file), []).append(file)
    alone: dict[str, Location] = {}
    shared: dict[str, tuple[Location, ...]] = {}
    for name, files in sorted(found.items()):
        check_name_can_be_stored(name)
        different = list({_identity(file): file for file in files}.values()) if len(files) > 1 else files
        if len(different) > 1:
            shared[name] = tuple(sorted(different, key=str))
            for file in shared[name]:
                account.skip(file, _SHARED_NAMES)
            continue
        (alone[name],) = different
        account.use()
        account.note_spelling(alone[name].stem, name)
    return VideoListing(alone, shared, account)


def _identity(file: Location) -> str:
    return str(file) if is_remote(file) else os.path.realpath(str(file))


def _videos_at(place: Location, leave_out: Collection[str], account: InputAccount) -> Iterator[Location]:
    if not isinstance(place, Path):
        if not place.is_file():
            yield from _videos_under(place, leave_out, account)
        elif place.name.endswith(ANNOTATED_SUFFIX):
            raise _not_a_video(place)
        else:
            yield place
        return
    try:
        mode = os.stat(place).st_mode
    except OSError as error:
        if place.is_symlink():
            yield place
            return
        raise InputError(f"{place}: expected a video file or a folder of videos, found nothing there") from error
    if stat.S_ISDIR(mode):
        try:
            with os.scandir(place):
                pass
        except OSError as error:
            raise InputError(f"{place}: expected a folder that can be read, got: {error.strerror}") from error
        yield from _videos_below(place, {os.path.realpath(path) for path in leave_out}, account)
    elif not stat.S_ISREG(mode):
        raise InputError(f"{place}: expected a video file or a folder of videos, got a pipe or a device")
    elif is_video(place):
        yield place
    else:
        raise _not_a_video(place)


def _not_a_video(place: Location) -> InputError:
    got = "an annotated copy of a video" if place.name.endswith(ANNOTATED_SUFFIX) else "another file"
    return InputError(f"{place}: expected a video file or a folder of videos, got {got}")


def _videos_below(root: Path, leave_out: Collection[str], account: InputAccount) -> Iterator[Location]:
    searched: set[tuple[int, int]] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            state = os.stat(folder)
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            account.skip(folder, f"folders that cannot be read ({error.strerror})")
            continue
        if (state.st_dev, state.st_ino) in searched:
            account.skip(folder, _LOOPS, harmless=True)
            continue
        searched.add((state.st_dev, state.st_ino))
        is_store = any(entry.name == STORE_FILE for entry in entries)
        if is_store and folder != root:
            continue
        inside = [entry for entry in entries if _is_folder(entry)]
        names = {entry.name for entry in inside}
        for entry in entries:
            path = folder / entry.name
            if is_harmless(entry.name):
                account.skip(path)
            elif (
                entry.name not in names and not task_of_test_list(entry.name) and _is_video(entry, path, names, account)
            ):
                yield path
        below = [folder / entry.name for entry in inside if not is_harmless(entry.name) and _is_searched(entry.name)]
        if is_store and (pages := folder / _PAGES) in below:
            account.skip(pages, _OWN_PAGES, harmless=True)
            below.remove(pages)
        if any(map(is_crop_folder, folder.relative_to(root).parts)):
            searchable = [one for one in below if not holds_crops(one)]
            if len(searchable) < len(below):
                account.skip(folder, _CROPS, harmless=True)
            below = searchable
        folders += [one for one in reversed(below) if os.path.realpath(one) not in leave_out]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_searched(name: str) -> bool:
    return challenge_of_folder(name) is None


def _is_video(entry: os.DirEntry[str], path: Path, folders: Collection[str], account: InputAccount) -> bool:
    try:
        mode = entry.stat().st_mode
    except OSError:
        # Opening a broken link or a loop of links raises an error with the cause.
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return True
        account.skip(path, _BROKEN)
        return False
    if not stat.S_ISREG(mode):
        account.skip(path, PIPES)
        return False
    return _is_used(path, _reason_by_suffix(path, folders), account)


def _is_used(path: Location, reason: str | None, account: InputAccount) -> bool:
    """Count a file that is skipped. ``reason``: None, or why it is skipped; if undecided, the content decides."""
    if reason == _UNDECIDED:
        try:
            reason = _reason_by_content(path, _head_of(path))
        except OSError as error:
            # The stage that opens a video reports the cause.
            reason = None if has_video_suffix(path) else f"files that cannot be read ({error.strerror})"
    if reason is not None:
        account.skip(path, reason, harmless=reason in HARMLESS_REASONS)
    return reason is None


def is_video(path: Location) -> bool:
    """Return whether a file is a video by its suffix, or, where that does not decide, by its content."""
    return _is_used(path, _reason_by_suffix(path, ()), InputAccount("videos"))


def has_video_suffix(path: Location) -> bool:
    """Return whether the suffix of a file is one of videos."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _reason_by_suffix(path: Location, folders: Collection[str]) -> str | None:
    """Return why a file is not used as a video; None if it is used. ``folders``: names of folders beside it."""
    suffix = path.suffix.lower()
    if path.name.endswith(ANNOTATED_SUFFIX):
        return ANNOTATED
    if suffix in VIDEO_SUFFIXES and suffix not in _CONTENT_DECIDES:
        return None
    reason = reason_by_suffix(path.name, folders)
    if reason == ARCHIVES and _is_of_other_data(path):
        return OTHER_ARCHIVES
    return reason or _UNDECIDED


def _is_of_other_data(archive: Location) -> bool:
    stem = archive.name.split(".", 1)[0].lower()
    # Unlike the official names, "faces" may be a folder of anything.
    is_crops = any(is_crop_folder(name) and name != "faces" for name in (stem, archive.parent.name.lower()))
    return is_crops or not _is_searched(stem) or "annotation" in stem


def _reason_by_content(path: Location, head: bytes) -> str | None:
    if head.startswith((b"GIF87a", b"GIF89a")):
        return None if _is_animated(path) else OTHER
    if _starts_a_video(head):
        return None
    is_sound = head.startswith(b"OggS") and has_video_suffix(path)
    is_marker = not head and not path.suffix
    return OTHER if is_sound or is_marker or _is_text(head) else NO_VIDEO


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text) and not any(character < " " and character not in "\t\n\f\r" for character in text)


def _head_of(path: Location) -> bytes:
    with path.open("rb") as file:
        return bytes(file.read(_HEAD_BYTES))


def _is_animated(path: Location) -> bool:
    from PIL import Image

    try:
        with path.open("rb") as file, Image.open(file) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, ValueError, SyntaxError):
        # The stage that opens a video reports the damage.
        return True


def _starts_a_video(head: bytes) -> bool:
    """Return whether a file starts like a container or a stream of video that the pipeline reads."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in (b"M4A ", b"M4B ", b"heic", b"heix", b"mif1", b"avif", b"crx ")
    starts = (
        b"\x1a\x45\xdf\xa3",  # Matroska, WebM
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
        b"FLV\x01",
        b"DKIF",  # IVF
        b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",  # MXF
        b"nut/multimedia container",
        b".RMF",
        b"YUV4MPEG2",
        b"DHAV",
        b"\xb7\xd8\x00\x20\x37\x49\xda\x11",  # WTV
        b"\x1f\x07\x00",  # DV
        b"\x00\x00\x01\xba",  # MPEG program stream
        b"\x00\x00\x01\xb3",  # MPEG-1 and MPEG-2 video
        b"\x00\x00\x01\xb0",  # MPEG-4 video
        b"\x12\x00\x0a",  # AV1 stream of OBUs
    )
    if head.startswith(starts) or head[4:8] in (b"moov", b"mdat", b"wide", b"skip", b"free"):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] in (b"AVI ", b"AMV ", b"CDXA")
    if head[:4] == b"OggS":
        return any(codec in head for codec in (b"\x80theora", b"\x01video", b"OVP80", b"BBCD"))
    # H.264 and HEVC streams start with a delimiter or a parameter set.
    for start in (b"\x00\x00\x00\x01", b"\x00\x00\x01"):
        if head.startswith(start):
            unit = head[len(start) : len(start) + 2]
            return bool(unit) and (
                unit[0] in (0x09, 0x27, 0x47, 0x67) or unit in (b"\x40\x01", b"\x42\x01", b"\x46\x01", b"\x4e\x01")
            )
    # MPEG transport streams have a sync byte in every packet of 188 bytes, or 192 with a time stamp before each packet.
    return any(
        len(head) > first + 3 * size and all(head[first + number * size] == 0x47 for number in range(4))
        for first, size in ((0, 188), (4, 192))
    )


def _videos_under(prefix: "UPath", leave_out: Collection[str], account: InputAccount) -> Iterator[Location]:
    """Yield the videos below a prefix on S3. The number of requests does not depend on the number of videos."""
    fs, root = prefix.fs, prefix.path.rstrip("/") + "/"
    files = _files_under(prefix, account)
    stores = tuple(name.removesuffix(STORE_FILE) for name in files if name.endswith(f"/{STORE_FILE}"))
    skipped = tuple(place.removeprefix(S3_PREFIX).rstrip("/") + "/" for place in leave_out)
    skipped += tuple(folder for folder in stores if folder != root)
    if root in stores and any(name.startswith(pages := f"{root}{_PAGES}/") for name in files):
        account.skip(prefix / _PAGES, _OWN_PAGES, harmless=True)
        skipped += (pages,)
    folders = {name.rsplit("/", 1)[0] for name in files}
    undecided: list[UPath] = []
    crop_folders: set[str] = set()
    for name in files:
        relative = name.removeprefix(root)
        *inside, last = relative.split("/")
        if not last or task_of_test_list(last) or not all(map(_is_searched, inside)) or name.startswith(skipped):
            continue
        if crops := next((depth for depth, one in enumerate(inside[:-1], start=1) if is_crop_folder(one)), 0):
            crop_folders.add("/".join(inside[:crops]))
            continue
        path = prefix / relative
        if any(map(is_harmless, relative.split("/"))):
            account.skip(path, harmless=True)
            continue
        beside = (path.stem,) if name.removesuffix(path.suffix) in folders else ()
        reason = _reason_by_suffix(path, beside)
        if reason == _UNDECIDED:
            undecided.append(path)
        elif _is_used(path, reason, account):
            yield path
    for folder in sorted(crop_folders):
        account.skip(prefix / folder, _CROPS, harmless=True)
    heads = fs.cat_ranges([path.path for path in undecided], 0, _HEAD_BYTES) if undecided else []
    for path, head in zip(undecided, heads, strict=True):
        if _is_used(path, _reason_by_content(path, head), account):
            yield path


def _files_under(prefix: "UPath", account: InputAccount) -> list[str]:
    """Return the keys of the objects below a prefix, without those in folders of crops directly below it."""
    try:
        entries = prefix.fs.ls(prefix.path, detail=True)
    except FileNotFoundError:
        return []
    files = []
    for entry in entries:
        name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
        if entry["type"] != "directory":
            files.append(entry["name"])
        elif is_harmless(name):
            account.skip(prefix / name)
        elif is_crop_folder(name):
            account.skip(prefix / name, _CROPS, harmless=True)
        elif _is_searched(name):
            files += prefix.fs.find(entry["name"])
    return files
