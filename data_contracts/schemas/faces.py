"""Videos, images, and the faces in them."""

import pyarrow as pa

from data_contracts.schemas.dataset import FRAME, PERSON, Column, Dataset
from data_contracts.vocabulary import FACE_STATUSES

FACE = Column("face", pa.int16(), "rank of the face in its frame by box area, largest first", "", ">= 0", nullable=True)
STATUS = Column("status", pa.string(), "what became of the frame or face", "", " | ".join(FACE_STATUSES))
PROBABILITY = Column("probability", pa.float32(), "detector's face probability", "", "0..1", nullable=True)


def _pixels(name: str, meaning: str) -> Column:
    return Column(name, pa.float32(), meaning, "px of the displayed frame; may lie outside it", nullable=True)


BOX = (
    _pixels("box_x1_px", "left edge of the face box"),
    _pixels("box_y1_px", "top edge of the face box"),
    _pixels("box_x2_px", "right edge of the face box"),
    _pixels("box_y2_px", "bottom edge of the face box"),
)

BOX_NAMES = tuple(column.name for column in BOX)

LANDMARKS = Column(
    "landmarks_xy_px",
    pa.list_(pa.float32(), 10),
    "x, y of the eye, eye, nose, mouth corner, mouth corner (the one on the picture's left side first)",
    "px of the displayed frame",
    nullable=True,
)

# Points of the face as columns of predictions, in the order of ``LANDMARKS``.
LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")

_POINTS = {"left_eye": "left eye", "right_eye": "right eye", "nose": "tip of the nose"} | {
    f"{side}_mouth": f"{side} corner of the mouth" for side in ("left", "right")
}

LANDMARK_COLUMNS = tuple(
    _pixels(f"{name}_{axis}_px", f"{axis} of the {_POINTS[name]}; left is left in the picture")
    for name in LANDMARK_NAMES
    for axis in "xy"
)
# Where a face of a prediction is, and how sure the detector is of it.
FACE_COLUMNS = (
    *BOX,
    *LANDMARK_COLUMNS,
    PROBABILITY,
    Column(
        "face_size_px", pa.float32(), "square root of the area of the box", "px of the displayed frame", "> 0", True
    ),
)
CROP = Column("crop_jpeg", pa.binary(), "the face as a JPEG file", nullable=True)

VIDEOS = Dataset(
    "videos",
    "one row per video file",
    (
        Column("path", pa.string(), "where the file was found"),
        Column("size_bytes", pa.int64(), "file size", "bytes", ">= 1"),
        Column("sha256", pa.string(), "digest of the file's bytes; null for a file on S3", nullable=True),
        Column("width_px", pa.int32(), "width of the first frame as displayed, with square pixels", "px", ">= 1"),
        Column("height_px", pa.int32(), "height of the first frame as displayed, with square pixels", "px", ">= 1"),
        Column("rotation_degrees", pa.int16(), "display rotation that was applied", "degrees", "0 | 90 | 180 | 270"),
        Column("codec", pa.string(), "codec name as FFmpeg gives it"),
        Column("frame_count", pa.int32(), "frames that a decoder returns", "frames", ">= 1"),
        Column("claimed_frame_count", pa.int32(), "frames that the container claims; 0 if it does not say", "frames"),
        Column("average_fps", pa.float64(), "average frame rate", "1/s", "> 0", nullable=True),
        Column("duration_seconds", pa.float64(), "last minus first time, without jumps", "s", ">= 0", nullable=True),
        Column("problem", pa.string(), "what is wrong with a file that can still be read", nullable=True),
        Column("index_method", pa.string(), "how the frames were found", "", "packets | decoding", nullable=True),
    ),
    key=(),
    partitions=("video",),
    statistics=("path",),
)

FRAMES = Dataset(
    "frames",
    "one row per frame of a video that a decoder returns",
    (
        FRAME,
        Column("pts", pa.int64(), "presentation time stamp", "time base of the stream", nullable=True),
        Column("pts_seconds", pa.float64(), "presentation time since the first frame", "s", ">= 0", nullable=True),
        Column("keyframe", pa.bool_(), "whether decoding can start here and gives the same pixels"),
    ),
    key=("frame",),
    partitions=("video",),
)

FACES = Dataset(
    "faces",
    "one row per face; a frame without a face has one row that says so",
    (
        FRAME,
        FACE,
        STATUS,
        Column("subject", pa.string(), "set for the organisers' crops; null where we detect", nullable=True),
        *BOX,
        LANDMARKS,
        PROBABILITY,
        CROP,
    ),
    key=("frame", "face"),
    partitions=("source", "video"),
)

SUBJECTS = Dataset(
    "subjects",
    "which face of which frame is which subject",
    (
        FRAME,
        Column("face", pa.int16(), "rank of the face in its frame, as in faces", "", ">= 0"),
        Column("track", pa.int32(), "number of the track through the video", "", ">= 0"),
        Column("subject", pa.string(), "subject to whom the face was assigned; null for other people", nullable=True),
    ),
    key=("frame", "face"),
    partitions=("source", "video"),
)

PERSONS = Dataset(
    "persons",
    "which face of which frame is which person; every detected face has a row",
    (FRAME, Column("face", pa.int16(), "rank of the face in its frame, as in faces", "", ">= 0"), PERSON),
    key=("frame", "face"),
    partitions=("source", "video"),
)
IMAGE = Column("image", pa.string(), "path or URL of the image")

IMAGE_FACE = Column(
    "face", pa.int16(), "rank of the face in its image by box area, largest first", "", ">= 1", nullable=True
)

IMAGE_SIZE = (
    Column("width_px", pa.int32(), "width of the upright image; null if it cannot be read", "px", ">= 1", True),
    Column("height_px", pa.int32(), "height of the upright image; null if it cannot be read", "px", ">= 1", True),
)

IMAGE_FACES = Dataset(
    "image_faces",
    "one row per face of an image; an image without a face has one row that says so",
    (IMAGE, *IMAGE_SIZE, IMAGE_FACE, STATUS, *BOX, LANDMARKS, PROBABILITY, CROP),
    key=("image", "face"),
    partitions=("source", "block"),
    statistics=("image",),
)
