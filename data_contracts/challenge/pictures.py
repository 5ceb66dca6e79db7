"""Pictures of faces: labelled ones in a table, AffectNet's CSV or a folder per person; and images to score."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.challenge.crops import holds_crops, is_crop_folder
from data_contracts.challenge.other_files import NO_VIDEO, OTHER, PIPES
from data_contracts.challenge.videos import VideoListing, has_video_suffix, is_video, list_videos
from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount, is_harmless
from data_contracts.files.inputs import list_folders, read_lines, reading_inputs
from data_contracts.files.locations import Location
from data_contracts.vocabulary import normalize_name, suffixes

PICTURE_SUFFIXES = suffixes("jpg jpeg jpe jfif png tif tiff webp gif bmp ppm pgm")
_OTHER_PICTURES = "pictures of other formats than JPEG, PNG, TIFF, WebP, GIF, BMP and PPM; convert them"
_OTHER_PICTURE_SUFFIXES = suffixes("heic heif avif jp2 jxl psd raw cr2 cr3 nef dng arw")
_OTHER_FILES = "other files than pictures"
_OTHER_BESIDE = "other files beside the folders of people"
_BESIDE = "pictures beside the folders of people"
_INSIDE = "folders, pipes or devices in folders of people"
PICTURE_EXPRESSIONS = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
# AffectNet's ids (Mollahosseini et al. 2017, section 3.2); 8 to 10 are "none", "uncertain" and "no face".
_AFFECTNET_IDS = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
_AFFECTNET_PATH = "subDirectory_filePath"
_AFFECTNET_BOX = ("face_x", "face_y", "face_width", "face_height")
_LABELS = ("image", "identity", "expression", "valence", "arousal")
# AffectNet's value for unknown valence and arousal.
_NO_VALUE = -2
_NAMES = {name.lower(): name for name in PICTURE_EXPRESSIONS}


@dataclass(frozen=True)
class Picture:
    """A labelled picture. Unknown labels are None.

    Attributes:
        path: the file.
        identity: the person that it shows.
        expression: one of ``PICTURE_EXPRESSIONS``.
        valence_arousal: two values in -1..1.
        box_xyxy_px: box of the face, if it is annotated.
    """

    path: Path
    identity: str | None = None
    expression: str | None = None
    valence_arousal: tuple[float, float] | None = None
    box_xyxy_px: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class PictureListing:
    """Labelled pictures in the order of their list or folder, and the account of all files."""

    pictures: list[Picture]
    account: InputAccount


def read_pictures(data: Path, *, images: Path | None = None) -> PictureListing:
    """Read a labels file (``image[,identity][,expression][,valence,arousal]``), AffectNet's CSV, or a folder.

    ``images``: folder to which the names in a file are relative; default: the file's own folder. In a folder, each
    subfolder holds the pictures of one person and has the person's name.

    Raises:
        InputError: there are no labelled pictures, or a line cannot be read; the message names the line.
    """
    if data.is_dir():
        return _from_folder(data)
    if not data.is_file():
        raise InputError(f"{data}: expected a CSV file with labels or a folder of people, found nothing there")
    reader = csv.reader(read_lines(data, "a CSV file with labels"), strict=True)
    folder, pictures = images or data.parent, []
    account = InputAccount("pictures", data)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not {*header} & {"image", _AFFECTNET_PATH}:
            got = ", ".join(header)[:80] or "nothing"
            raise ValueError(f"expected a column image (or AffectNet's {_AFFECTNET_PATH}), got {got}")
        if twice := sorted(name for name in header if header.count(name) > 1):
            raise ValueError(f"expected columns with different names, got several named {twice[0]!r}")
        parse = _from_affectnet if _AFFECTNET_PATH in header else _from_labels
        for values in reader:
            if any(value.strip() for value in values):
                pictures.append(parse(folder, _row(header, values)))
    except (csv.Error, ValueError) as error:
        raise InputError(f"{data}: line {max(reader.line_num, 1)}: {error}") from error
    if not pictures:
        raise InputError(f"{data}: expected a line per picture, found only the header")
    if parse is _from_labels and (others := [name for name in header if name and name not in _LABELS]):
        account.note(f"columns that are not used: {', '.join(map(repr, others))}; known are {', '.join(_LABELS)}")
    account.use(len(pictures))
    return PictureListing(pictures, account)


def _row(header: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Return the values of a line by column. Empty values after the last column are ignored."""
    if len(values) < len(header) or any(value.strip() for value in values[len(header) :]):
        raise ValueError(f"expected {len(header)} values, as in line 1, got {len(values)}")
    return dict(zip(header, values, strict=False))


def _from_folder(root: Path) -> PictureListing:
    """List the pictures in folders of people. The folder has the name of the person, in any Unicode form."""
    account = InputAccount("pictures", root)
    found: list[Picture] = []
    for folder in _entries(root, account):
        if not folder.is_dir():
            is_picture = folder.suffix.lower() in PICTURE_SUFFIXES | _OTHER_PICTURE_SUFFIXES
            account.skip(folder, _BESIDE if is_picture else _OTHER_BESIDE, harmless=not is_picture)
            continue
        identity = normalize_name(folder.name)
        account.note_spelling(folder.name, identity)
        for path in _entries(folder, account):
            suffix = path.suffix.lower()
            if path.is_dir() or (path.exists() and not path.is_file()):
                account.skip(path, _INSIDE)
            elif suffix in PICTURE_SUFFIXES:
                found.append(Picture(path, identity=identity))
                account.use()
            else:
                account.skip(path, _OTHER_PICTURES if suffix in _OTHER_PICTURE_SUFFIXES else _OTHER_FILES)
    if not found:
        kinds = ", ".join(sorted(PICTURE_SUFFIXES))
        raise InputError(f"{root}: expected one folder per person with pictures ({kinds}) inside, found none")
    return PictureListing(found, account)


def _entries(folder: Path, account: InputAccount) -> list[Path]:
    """Return the entries of a folder by name, without those of operating systems."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        account.skip(folder, f"folders that cannot be read ({error.strerror})")
        return []
    for path in paths:
        if is_harmless(path.name):
            account.skip(path)
    return [path for path in paths if not is_harmless(path.name)]


def _from_labels(folder: Path, row: dict[str, str]) -> Picture:
    name = row.get("expression", "").strip()
    if name and name.lower() not in _NAMES:
        raise ValueError(f"expected one of {', '.join(_NAMES)}, got {name!r}")
    identity = normalize_name(row.get("identity", "").strip())
    return Picture(_path(folder, row["image"]), identity or None, _NAMES[name.lower()] if name else None, _pair(row))


def _path(folder: Path, name: str) -> Path:
    if not name.strip():
        raise ValueError("expected the name of a picture, got nothing")
    return folder / name


def _from_affectnet(folder: Path, row: dict[str, str]) -> Picture:
    if missing := [name for name in (*_AFFECTNET_BOX, "expression") if name not in row]:
        raise ValueError(f"expected a column {missing[0]}, got none")
    x, y, width, height = (float(row[name]) for name in _AFFECTNET_BOX)
    if not (math.isfinite(x + y + width + height) and min(width, height) > 0):
        raise ValueError(f"expected a box of a face, got {', '.join(row[name] for name in _AFFECTNET_BOX)}")
    number = int(row["expression"])
    if not 0 <= number <= 10:
        raise ValueError(f"expected an expression from 0 to 10, got {number}")
    expression = _AFFECTNET_IDS[number] if number < len(_AFFECTNET_IDS) else None
    return Picture(_path(folder, row[_AFFECTNET_PATH]), None, expression, _pair(row), (x, y, x + width, y + height))


def _pair(row: dict[str, str]) -> tuple[float, float] | None:
    """Return valence and arousal; None if neither is known."""
    texts = [row.get(name, "").strip() for name in ("valence", "arousal")]
    if not any(texts):
        return None
    valence, arousal = (float(text or "nan") for text in texts)
    if valence == arousal == _NO_VALUE:
        return None
    if not all(-1 <= value <= 1 for value in (valence, arousal)):
        raise ValueError(f"expected valence and arousal in -1..1, or neither, got {texts[0]!r} and {texts[1]!r}")
    return valence, arousal


# -- images that are scored ------------------------------------------------------------------------------------------

# Formats that Pillow reads without another program, and that cameras or programs for pictures write.
IMAGE_SUFFIXES = PICTURE_SUFFIXES | suffixes("mpo apng dib pbm pnm pfm jp2 j2k jpx jpf avif tga pcx psd qoi sgi")
_UNREAD_SUFFIXES = _OTHER_PICTURE_SUFFIXES - IMAGE_SUFFIXES
_UNREAD = "images of formats that are not read, such as HEIC and RAW; convert them to JPEG or PNG"
_FOLDERS_CHECKED = 16
_BESIDE_VIDEOS = "images in a folder with videos; to score them, name the files, or a folder without videos"
_CROPS_OF_FACES = "images in folders of crops; extract --source reads them"
_NOT_SCHEDULED = "images, which are not scored on a schedule; affwild2 score predicts them"
_NOT_UTF8 = "images whose path is not UTF-8; rename them"


@dataclass(frozen=True)
class MediaListing:
    """Videos and images in some places.

    Attributes:
        videos: the videos, and the account of all files that are not images to score.
        images: path or URL -> file, sorted.
        account: the images that were found, used and skipped; None if there is none.
    """

    videos: VideoListing
    images: dict[str, Location]
    account: InputAccount | None


class _VideoAccount(InputAccount):
    """An account of videos that sets images aside."""

    def __init__(self, *places: Location) -> None:
        super().__init__("videos", *places)
        self.images: list[Location] = []

    def skip(self, path: Location | str, reason: str | None = None, *, harmless: bool = False) -> None:
        """Count a file that is not used, unless it is an image. A pipe would block when it is opened."""
        if isinstance(path, str) or is_harmless(path.name) or reason == PIPES or not is_image(path):
            super().skip(path, reason, harmless=harmless)
        else:
            self.images.append(path)


class ScheduledAccount(InputAccount):
    """An account of the videos of a scheduled run, which scores no images."""

    def skip(self, path: Location | str, reason: str | None = None, *, harmless: bool = False) -> None:
        """Count a file that is not used; an image with what predicts it."""
        if reason in (OTHER, NO_VIDEO) and not isinstance(path, str) and is_image(path):
            super().skip(path, _NOT_SCHEDULED, harmless=True)
        else:
            super().skip(path, reason, harmless=harmless)


def is_image(path: Location) -> bool:
    """Return whether the suffix of a file is one of images, also of formats that are not read."""
    return path.suffix.lower() in IMAGE_SUFFIXES | _UNREAD_SUFFIXES


def list_media(places: Sequence[Location]) -> MediaListing:
    """List videos as ``list_videos`` does, and the images to score.

    These are image files in ``places``, and those in and below folders of ``places`` that hold no video. So thumbnails
    of videos are no input. Stores, and folders of crops and annotations are not searched; folders of crops that are
    themselves in ``places`` are skipped. An animated GIF is a video.

    Raises:
        InputError: see ``list_videos``; or an image in ``places`` has a format that is not read.
    """
    named = [place for place in places if is_image(place) and _is_file(place) and not _is_video_file(place)]
    for place in named:
        if place.suffix.lower() in _UNREAD_SUFFIXES:
            raise InputError(
                f"{place}: expected an image that can be read, got {place.suffix}; convert it to JPEG or PNG"
            )
        if not _is_utf8(str(place)):
            raise InputError(f"{place}: expected an image whose path is UTF-8, got other bytes; rename it")
    others = [place for place in places if place not in named]
    videos = _VideoAccount(*others)
    listing = list_videos(others, account=videos)
    files = [*map(str, listing.videos.values()), *(str(file) for same in listing.same_names.values() for file in same)]
    without_videos = [place for place in others if not any(file.startswith(f"{place}/") for file in files)]
    account = InputAccount("images", *named, *without_videos)
    images = {str(place): place for place in named}
    for file in videos.images:
        inside = [place for place in without_videos if str(file).startswith(f"{place}/")]
        if not inside:
            InputAccount.skip(videos, file, _BESIDE_VIDEOS, harmless=True)
        elif all(map(_is_of_crops, inside)):
            account.skip(file, _CROPS_OF_FACES)
        elif file.suffix.lower() in _UNREAD_SUFFIXES:
            account.skip(file, _UNREAD)
        elif not _is_utf8(str(file)):
            account.skip(file, _NOT_UTF8)
        else:
            images[str(file)] = file
    account.use(len(images))
    return MediaListing(listing, dict(sorted(images.items())), account if account.found else None)


def _is_file(place: Location) -> bool:
    with reading_inputs(place):
        return place.is_file()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_video_file(place: Location) -> bool:
    return has_video_suffix(place) and is_video(place)


def _is_of_crops(folder: Location) -> bool:
    """Return whether a folder is one of crops, or of the crops of one subject, in the official layout."""
    return is_crop_folder(folder.parent.name) or (is_crop_folder(folder.name) and _holds_crops_below(folder))


def _holds_crops_below(folder: Location) -> bool:
    # On S3, the name of a folder decides.
    if not isinstance(folder, Path):
        return True
    inside = (Path(str(one)) for one in list_folders(folder)[:_FOLDERS_CHECKED])
    return any(map(holds_crops, (folder, *inside)))
