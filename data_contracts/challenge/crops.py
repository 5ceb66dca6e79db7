"""Find the organisers' face crops, ``<subject>/00001.jpg``, in the folders of any release."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data_contracts.challenge.other_files import HARMLESS_REASONS, OTHER, reason_by_suffix
from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount, is_harmless
from data_contracts.files.inputs import (
    FileState,
    FolderListing,
    check_name_can_be_stored,
    list_folders,
    list_many,
    reading_inputs,
    split_entries,
)
from data_contracts.files.locations import Location
from data_contracts.vocabulary import MAX_FRAME, STORE_FILE, normalize_name

# Releases since ABAW5 add fifty more videos and their crops.
_CROP_FOLDERS = {
    "cropped": "cropped",
    "faces": "cropped",
    "cropped_new_50_vids": "cropped",
    "cropped_aligned": "cropped_aligned",
    "cropped_aligned_new_50_vids": "cropped_aligned",
}
_CROP_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"))
# Names of folders between a folder of crops and the folders of subjects. Other names are searched on local disks only.
_BATCH_FOLDER = re.compile(r"batch_?\d+|new_?vid(?:eo)?s", re.IGNORECASE)
# What file managers append to the name of a second copy.
_COPY = re.compile(r"( -)?( copy)?( ?\(\d+\)| \d+)?$")
_MOST_DIGITS = 9
# Levels below the given folder in which folders of crops may lie, as folders of annotations may.
_SEARCHED_LEVELS, _MOST_LEVELS = 4, 6
_ENTRIES_CHECKED = 16
_STRAY = "files that are not named like crops (00001.jpg)"
_TOO_HIGH = f"crops with a frame number above {MAX_FRAME:,}"
_NO_FILES = "broken links, pipes or devices"
_REFUSED = "crops of subjects that are refused"


class Crop(NamedTuple):
    """The face crop of a subject in one frame: path or URL, and the state of the file."""

    frame: int
    path: str
    state: FileState


@dataclass(frozen=True)
class CropListing:
    """The crops in some folders.

    Attributes:
        subjects: subject -> crops, sorted by frame. The subject is the name of the folder, in Unicode NFC.
        refused: subject -> why its crops cannot be used.
        account: what was found, used and skipped.
    """

    subjects: dict[str, list[Crop]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    account: InputAccount = field(default_factory=lambda: InputAccount("crops"))


def source_of_crop_folder(name: str) -> str | None:
    """Return the source of the crops in a folder of this name (``cropped`` or ``cropped_aligned``), None if none.

    Copies that a file manager named (``cropped (1)``, ``cropped_aligned 2``) are of the same source.
    """
    return _CROP_FOLDERS.get(re.sub("[ -]", "_", _COPY.sub("", name.lower())))


def is_crop_folder(name: str) -> bool:
    """Return whether crops are in folders of this name."""
    return source_of_crop_folder(name) is not None


def find_crop_folders(root: Location) -> dict[str, tuple[Location, ...]]:
    """Return the folders of crops by source: below ``root``, and below folders of crops of another source.

    Folders of the same source inside them are found by ``list_crops``.
    """
    found: dict[str, tuple[Location, ...]] = {}
    folders: list[tuple[Location, str | None]] = [(root, None)]
    for _ in range(_SEARCHED_LEVELS):
        below = []
        for folder, parent in folders:
            for path in _folders_in(folder, only_crops=parent is not None):
                source = source_of_crop_folder(path.name)
                if source is not None and source != parent:
                    found[source] = (*found.get(source, ()), path)
                below.append((path, source or parent))
        folders = below
    return found


def _folders_in(folder: Location, *, only_crops: bool) -> list[Location]:
    try:
        folders, files = split_entries(folder)
    except OSError:
        # The account of videos or crops lists a folder that cannot be read.
        return []
    if any(path.name == STORE_FILE for path in files):
        return []
    return [path for path in folders if is_crop_folder(path.name) or not only_crops]


def subject_folders(folders: Sequence[Location]) -> set[str]:
    """Return the names of all folders below folders of crops that may hold the crops of a subject.

    Crops can be millions of files: only folders that hold folders are searched further.
    """
    names: set[str] = set()
    level = list(folders)
    for _ in range(_MOST_LEVELS):
        inside = [path for folder in level for path in list_folders(folder)]
        names |= {normalize_name(path.name) for path in inside}
        level = [path for path in inside if _holds_folders(path)]
    return names


def holds_crops(folder: Path) -> bool:
    """Return whether one of the first entries of a folder on a disk is named like a crop."""
    try:
        with os.scandir(folder) as entries:
            return any(_number_of(entry.name) is not None for entry in itertools.islice(entries, _ENTRIES_CHECKED))
    except OSError:
        return False


def _holds_folders(folder: Location) -> bool:
    if not isinstance(folder, Path):
        return is_crop_folder(folder.name) or _BATCH_FOLDER.fullmatch(folder.name) is not None
    try:
        with os.scandir(folder) as entries:
            return any(entry.is_dir() for entry in itertools.islice(entries, _ENTRIES_CHECKED))
    except OSError:
        return False


def list_crops(folders: Sequence[Location], *, first_crop: int = 1) -> CropListing:
    """List all crops ``<subject>/<frame>.jpg`` below folders, at any depth.

    Args:
        folders: folders of one source.
        first_crop: number in the file name of the first frame's crop: 1, as the organisers number, or 0.

    Raises:
        InputError: there is no crop, or this process cannot write the name of a subject.
    """
    account = InputAccount("crops", *folders)
    listing = CropListing(account=account)
    folder_of: dict[str, Location] = {}
    with reading_inputs(folders[0]):
        for folder, found in _walk(folders, account):
            if not (found.files or found.folders or found.others):
                account.skip(folder, "folders without any file", harmless=True)
            crops, refusal = _crops_in(folder, found, account, first_crop)
            if not crops or folder in folders:
                for crop in crops:
                    account.skip(crop.path, "crops that are not in the folder of a subject")
                continue
            subject = normalize_name(folder.name)
            check_name_can_be_stored(subject)
            account.note_spelling(folder.name, subject)
            if subject in folder_of:
                first = folder_of[subject]
                names = f"{first.name!a} and {folder.name!a}" if first.name != folder.name else subject
                refusal = (
                    f"{first}: expected the crops of a subject in one folder, found also {folder} ({names}); merge the "
                    "folders, or move one away"
                )
            folder_of.setdefault(subject, folder)
            listing.subjects.setdefault(subject, []).extend(crops)
            if refusal:
                listing.refused.setdefault(subject, refusal)
    for subject in listing.refused:
        for crop in listing.subjects.pop(subject):
            account.skip(crop.path, _REFUSED)
    for crops in listing.subjects.values():
        crops.sort()
        account.use(len(crops))
    if not folder_of:
        skipped = account.describe_first()
        raise InputError(f"{folders[0]}: expected folders <subject>/00001.jpg, found no crop{skipped}")
    return CropListing(dict(sorted(listing.subjects.items())), dict(sorted(listing.refused.items())), account)


def _walk(folders: Sequence[Location], account: InputAccount | None = None) -> Iterator[tuple[Location, FolderListing]]:
    """Yield every folder of a source with its content, level by level. Links to searched folders are not followed."""
    account = account or InputAccount("crops")
    source = source_of_crop_folder(folders[0].name)
    searched: set[str] = set()
    level = list(folders)
    while level:
        below: list[Location] = []
        for folder, found in zip(level, list_many(level), strict=True):
            if isinstance(folder, Path):
                if (real := os.path.realpath(folder)) in searched:
                    if folder.is_symlink():
                        account.skip(folder, "links to folders that are searched anyway", harmless=True)
                    continue
                searched.add(real)
            if found.problem:
                account.skip(folder, f"folders that cannot be read ({found.problem})")
                continue
            yield folder, found
            for name in sorted(found.folders):
                if is_harmless(name):
                    account.skip(folder / name)
                elif source_of_crop_folder(name) in (None, source):
                    below.append(folder / name)
        level = below


def _crops_in(
    folder: Location, found: FolderListing, account: InputAccount, first_crop: int
) -> tuple[list[Crop], str | None]:
    """Return the crops in the folder of one subject, and why they are refused; None if they are not."""
    crops: dict[int, Crop] = {}
    refusal = None
    for name in found.others:
        account.skip(folder / name, _NO_FILES)
    for name, state in sorted(found.files.items()):
        number = _number_of(name)
        if number is None:
            _skip_other(f"{folder}/{name}", found, account)
            continue
        frame = number + 1 - first_crop
        if frame > MAX_FRAME:
            account.skip(f"{folder}/{name}", _TOO_HIGH)
            continue
        crop = Crop(frame, f"{folder}/{name}", state)
        if frame < 1:
            refusal = refusal or (
                f"{crop.path}: expected crops of frames from 1, because frames count from 1, found frame 0; if these "
                "crops count from 0, import all of them with --first-crop 0"
            )
        elif frame in crops:
            refusal = refusal or (
                f"{crops[frame].path}: expected one crop per frame, found also {name} for frame {frame}; remove one"
            )
        crops.setdefault(frame, crop)
        if crops[frame] is not crop:
            account.skip(crop.path, _REFUSED)
    return list(crops.values()), refusal


def _skip_other(path: str, beside: FolderListing, account: InputAccount) -> None:
    """Count a file that is not named like a crop. ``beside``: the content of its folder."""
    name = path.rsplit("/", 1)[-1]
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _CROP_SUFFIXES or (not suffix and name.isdigit()):
        reason = _STRAY
    elif not suffix:
        reason = OTHER
    else:
        reason = reason_by_suffix(name, beside.folders) or _STRAY
    account.skip(path, reason, harmless=reason in HARMLESS_REASONS)


def _number_of(name: str) -> int | None:
    match = re.fullmatch(rf"(\d{{1,{_MOST_DIGITS}}})(\.\w+)", name, re.ASCII)
    return int(match[1]) if match and match[2].lower() in _CROP_SUFFIXES else None
