"""Names that every module may use: tasks, classes, action units, statuses.

Class order and action unit order are those of the ABAW3 annotation headers (Kollias 2022, arXiv 2202.10659).
"""

import re
import unicodedata
from typing import Literal, get_args

TaskName = Literal["expr", "va", "au", "mtl"]
BranchName = Literal["expr", "va", "au"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
EditionName = Literal["abaw3", "abaw4", "abaw5", "abaw6", "abaw7", "abaw8"]
BRANCHES: tuple[BranchName, ...] = get_args(BranchName)

EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
DIMENSIONS = ("valence", "arousal")
ACTION_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")

BRANCHES_OF_TASK: dict[TaskName, tuple[BranchName, ...]] = {
    "expr": ("expr",),
    "va": ("va",),
    "au": ("au",),
    "mtl": ("va", "expr", "au"),
}

# Status of a row of ``faces``. A frame without a face has a row too.
FACE_FOUND = "face"
NO_FACE = "no_face"
NOT_DECODED = "not_decoded"
UNREADABLE_CROP = "unreadable_crop"
FACE_STATUSES = (FACE_FOUND, NO_FACE, NOT_DECODED, UNREADABLE_CROP)

# A person seen in fewer frames has a short track: a second at 25 frames per second, the width of common smoothings.
SHORT_TRACK_FRAMES = 25

# Whose faces are embedded and predicted: the subjects' of a video, or those of every person in it.
People = Literal["main", "all"]

# What predictions of frames without a face carry.
MissingFaces = Literal["null", "interpolate"]

SetName = Literal["train", "validation", "test"]

# Larger frame numbers of crops are refused, because every frame becomes a row. 55 hours at 25 frames per second.
MAX_FRAME = 5_000_000

# Default number of frames per unit of work.
SEGMENT_FRAMES = 512


def suffixes(*names: str) -> frozenset[str]:
    """Return the suffixes of files that are listed without dots, separated by spaces."""
    return frozenset(f".{name}" for text in names for name in text.split())


# Suffixes of the containers and streams of video that FFmpeg reads and ``data_contracts.video.container`` opens.
VIDEO_SUFFIXES = suffixes(
    "mp4 m4v mov qt 3gp 3gpp 3g2 3gp2 f4v mj2 ismv mkv mk3d webm avi divx amv ts mts m2ts m2t tp mpg mpeg mpe vob m2p",
    "evo m1v m2v mpv h264 264 avc h26l hevc h265 265 ivf flv wmv asf dvr-ms ogv ogg ogm ogx mxf dv dif nut gif rm rmvb",
    "wtv y4m mjpeg mjpg obu vc1 dav apng vvc 266 h266",
)
# End of the names of annotated copies of videos, which are results and no inputs.
ANNOTATED_SUFFIX = ".annotated.mp4"
# A folder with this file is a store of affwild2.
STORE_FILE = "_code_versions.json"
SUBJECT_SIDES = ("_left", "_right")
# How heads take the class outputs of a backbone, its scores: as they are, or their softmax.
ScoreForm = Literal["logits", "probabilities"]
# Of matrix products.
Precision = Literal["bfloat16", "float32"]
# Names of features that ``simulate`` wrote start with this, and so do the names of everything made from them: heads,
# post-processings, outputs, submissions and their files.
SIMULATED_PREFIX = "simulated_"
# Names of features that another program computed start with this.
IMPORTED_PREFIX = "imported_"
# What tables, pages and zip files say about such results.
SIMULATED_NOTICE = "SIMULATED DATA, NOT AFF-WILD2"


def is_simulated(name: str) -> bool:
    """Return whether a backbone, features variant, head, post-processing or submission is simulated, by its name."""
    return name.startswith(SIMULATED_PREFIX)


def is_imported(name: str) -> bool:
    """Return whether a backbone or features variant was imported from a file, by its name."""
    return name.startswith(IMPORTED_PREFIX)


def is_simulated_subject(name: str) -> bool:
    """Return whether a video or subject is one that ``simulate`` names: ``simulated001``, ``simulated002_left``."""
    return re.fullmatch(r"simulated\d{3,}", video_of_subject(name), re.ASCII) is not None


def mark_name(name: str, *, simulated: bool) -> str:
    """Return the name of something that is made from simulated or other features."""
    return f"{SIMULATED_PREFIX}{name}" if simulated else name


def video_of_subject(subject: str) -> str:
    """Return the stem of the subject's video: the name of the subject without ``_left`` or ``_right``."""
    for side in SUBJECT_SIDES:
        if subject.endswith(side):
            return subject.removesuffix(side)
    return subject


def normalize_name(name: str) -> str:
    """Return the form in which names of videos and subjects are compared and stored: Unicode NFC.

    The same visible name has two spellings, one with composed characters (NFC) and one without (NFD, as macOS writes).
    Bytes of a file name that Python could not decode are read as UTF-8, or as Latin-1 if they are not UTF-8.
    """
    if any("\udc80" <= character <= "\udcff" for character in name):
        raw = name.encode("utf-8", "surrogateescape")
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name = raw.decode("latin-1")
    return unicodedata.normalize("NFC", name)
