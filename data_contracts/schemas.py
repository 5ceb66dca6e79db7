"""Datasets of the store and their columns.

The unit, value range and meaning of each column are written into the metadata of every Parquet file.
"""

from dataclasses import dataclass, replace

import pyarrow as pa

from data_contracts.vocabulary import (
    ACTION_UNITS,
    DIMENSIONS,
    EXPRESSIONS,
    FACE_STATUSES,
    SHORT_TRACK_FRAMES,
    BranchName,
)


@dataclass(frozen=True)
class Column:
    """A column of a dataset."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    value_range: str = ""
    nullable: bool = False

    def to_arrow(self) -> pa.Field:
        """Return the Arrow field, with unit, range and meaning as field metadata."""
        described = {"meaning": self.meaning, "unit": self.unit, "range": self.value_range}
        metadata = {key: value for key, value in described.items() if value}
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


@dataclass(frozen=True)
class Dataset:
    """A table of the store.

    Attributes:
        key: columns that identify a row within its partition.
        partitions: keys of the folders of the files.
        statistics: columns whose minimum and maximum are stored per row group.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partitions: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ("frame",)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of every file of the dataset; partition keys are folders, not columns."""
        metadata = {"dataset": self.name, "meaning": self.meaning, "key": ",".join((*self.partitions, *self.key))}
        return pa.schema([column.to_arrow() for column in self.columns], metadata=metadata)


FRAME = Column("frame", pa.int32(), "frame number in decoder output order; frame 1 is 00001.jpg", "frames", ">= 1")
SUBJECT = Column("subject", pa.string(), "one person in one video: video stem, or stem + _left / _right")
FACE = Column("face", pa.int16(), "rank of the face in its frame by box area, largest first", "", ">= 0", nullable=True)
STATUS = Column("status", pa.string(), "what became of the frame or face", "", " | ".join(FACE_STATUSES))
PROBABILITY = Column("probability", pa.float32(), "detector's face probability", "", "0..1", nullable=True)
HAS_FACE = Column("has_face", pa.bool_(), "whether the frame shows the subject's face; other values are null if not")


def _pixels(name: str, meaning: str) -> Column:
    return Column(name, pa.float32(), meaning, "px of the displayed frame; may lie outside it", nullable=True)


BOX = (
    _pixels("box_x1_px", "left edge of the face box"),
    _pixels("box_y1_px", "top edge of the face box"),
    _pixels("box_x2_px", "right edge of the face box"),
    _pixels("box_y2_px", "bottom edge of the face box"),
)
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
# Where a face of a prediction is, and how sure the detector is of it.
FACE_COLUMNS = (
    *BOX,
    *(
        _pixels(f"{name}_{axis}_px", f"{axis} of the {_POINTS[name]}; left is left in the picture")
        for name in LANDMARK_NAMES
        for axis in "xy"
    ),
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

PERSON = Column("person", pa.int32(), "number of the person in the video, by first appearance", "", ">= 1")
PERSONS = Dataset(
    "persons",
    "which face of which frame is which person; every detected face has a row",
    (FRAME, Column("face", pa.int16(), "rank of the face in its frame, as in faces", "", ">= 0"), PERSON),
    key=("frame", "face"),
    partitions=("source", "video"),
)

PICTURES = Dataset(
    "pictures",
    "labelled pictures for training a backbone: one row per picture, with the face that was cut out of it",
    (
        Column("row", pa.int64(), "position in the list of pictures, from 0", "", ">= 0"),
        Column("picture", pa.string(), "where the file was found"),
        STATUS,
        Column("identity", pa.string(), "who the picture shows", nullable=True),
        Column("expression", pa.string(), "name of the expression", nullable=True),
        Column("valence", pa.float32(), "valence", "", "-1..1", nullable=True),
        Column("arousal", pa.float32(), "arousal", "", "-1..1", nullable=True),
        *BOX,
        PROBABILITY,
        CROP,
    ),
    key=("row",),
    partitions=("source", "collection"),
    statistics=("row",),
)

LABEL_COLUMNS: dict[BranchName, tuple[Column, ...]] = {
    "expr": (
        Column(
            "expression",
            pa.int8(),
            "expression class; null if unlabelled",
            value_range=", ".join(f"{index} {name}" for index, name in enumerate(EXPRESSIONS)),
            nullable=True,
        ),
    ),
    "va": tuple(
        Column(name, pa.float32(), f"{name}; null if unlabelled", "", "-1..1", nullable=True)
        for name in ("valence", "arousal")
    ),
    "au": tuple(
        Column(name, pa.int8(), f"action unit {name[2:]} present; null if unlabelled", "", "0 | 1", nullable=True)
        for name in ACTION_UNITS
    ),
}

LABELS = Dataset(
    "labels",
    "annotations of one set for one task; columns of the other tasks are null",
    (
        Column("row", pa.int64(), "position in the organisers' order, from 0: the key where names repeat", "", ">= 0"),
        SUBJECT,
        FRAME,
        *(column for columns in LABEL_COLUMNS.values() for column in columns),
    ),
    key=("row",),
    partitions=("task", "set"),
    statistics=("subject", "frame"),
)

CANDIDATES = Dataset(
    "candidates",
    "what the tuning of a post-processing tried, in order: one row per candidate",
    (
        Column("outputs", pa.string(), "branch of the head", "", "expr | va | au"),
        Column(
            "step",
            pa.string(),
            "smoothing: a window, with the best thresholds for it; class bias: one bias differs from the chosen ones; "
            "gate: a level, with the best class bias for it; threshold: one action unit",
            "",
            "smoothing | class bias | gate | threshold",
        ),
        Column("method", pa.string(), "smoothing of the outputs"),
        Column("half_width_frames", pa.int32(), "half width of the window", "frames", ">= 0", nullable=True),
        Column("half_width_seconds", pa.float64(), "half width of a window in seconds", "s", ">= 0", nullable=True),
        Column("space", pa.string(), "what is smoothed", "", "probability | logit"),
        Column("name", pa.string(), "expression or action unit that is changed", nullable=True),
        Column("value", pa.float64(), "class bias, level of the gate or threshold", nullable=True),
        Column(
            "score",
            pa.float64(),
            "in-sample score on all validation subjects: main metric of the outputs, or F1 of the action unit",
            "",
            "-1..1",
        ),
    ),
    key=("outputs", "step", "method", "half_width_frames", "half_width_seconds", "space", "name", "value"),
    statistics=(),
)

OUTPUT_COLUMNS: dict[BranchName, tuple[Column, ...]] = {
    "expr": tuple(
        Column(f"p_{name.lower()}", pa.float32(), f"probability of {name}", "", "0..1; the eight sum to 1", True)
        for name in EXPRESSIONS
    ),
    "va": tuple(
        Column(f"{name}_value", pa.float32(), f"predicted {name}", "", "-1..1", nullable=True)
        for name in ("valence", "arousal")
    ),
    "au": tuple(
        Column(f"p_{name.lower()}", pa.float32(), f"probability of action unit {name[2:]}", "", "0..1", True)
        for name in ACTION_UNITS
    ),
}
# The backbone's own expressions, in outputs of heads whose post-processing has a gate.
BACKBONE_COLUMNS = tuple(
    Column(
        f"backbone_p_{name.lower()}",
        pa.float32(),
        f"probability of {name} by the classes of the backbone; 0 if it is none of them",
        "",
        "0..1",
        True,
    )
    for name in EXPRESSIONS
)


def _smoothed(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    return tuple(replace(column, meaning=f"smoothed {column.meaning}; {_NO_VALUE}") for column in columns)


_NO_VALUE = "null without a head for it, or where missing faces carry null"

# What the heads say about a face, whatever heads there are.
DECISION_COLUMNS = (
    Column(
        "expression",
        pa.string(),
        "decided expression: largest log-probability after adding the class bias of the post-processing, which may "
        f"differ from the largest probability; {_NO_VALUE}",
        "",
        " | ".join(EXPRESSIONS),
        nullable=True,
    ),
    *_smoothed(OUTPUT_COLUMNS["expr"]),
    *(
        Column(name, pa.float32(), f"predicted {name}, smoothed and cut to the range; {_NO_VALUE}", "", "-1..1", True)
        for name in DIMENSIONS
    ),
    *(
        Column(
            name,
            pa.int8(),
            f"decision: action unit {name[2:]} is active (1), because its probability reaches the threshold of the "
            f"post-processing, or not (0); {_NO_VALUE}",
            "",
            "0 | 1",
            nullable=True,
        )
        for name in ACTION_UNITS
    ),
    *_smoothed(OUTPUT_COLUMNS["au"]),
)

PREDICTIONS = Dataset(
    "predictions",
    "what the heads predict for the persons in one video; every frame of the video has at least one row",
    (
        replace(PERSON, meaning=f"{PERSON.meaning}; null in the row of a frame that no person covers", nullable=True),
        FRAME,
        Column(
            "time_seconds", pa.float64(), "presentation time since the first frame; null if unknown", "s", ">= 0", True
        ),
        Column(
            "has_face",
            pa.bool_(),
            "whether the frame shows the person's face; if not, box and landmarks are null, and the columns of the "
            "heads null or interpolated",
        ),
        *FACE_COLUMNS,
        Column(
            "is_short_track",
            pa.bool_(),
            f"whether the person is seen in fewer than {SHORT_TRACK_FRAMES} frames, too few to trust smoothed values; "
            "null without a person",
            nullable=True,
        ),
        *DECISION_COLUMNS,
    ),
    key=("person", "frame"),
)

IMAGE = Column("image", pa.string(), "path or URL of the image")
IMAGE_FACE = Column(
    "face", pa.int16(), "rank of the face in its image by box area, largest first", "", ">= 1", nullable=True
)
_IMAGE_SIZE = (
    Column("width_px", pa.int32(), "width of the upright image; null if it cannot be read", "px", ">= 1", True),
    Column("height_px", pa.int32(), "height of the upright image; null if it cannot be read", "px", ">= 1", True),
)

IMAGE_FACES = Dataset(
    "image_faces",
    "one row per face of an image; an image without a face has one row that says so",
    (IMAGE, *_IMAGE_SIZE, IMAGE_FACE, STATUS, *BOX, LANDMARKS, PROBABILITY, CROP),
    key=("image", "face"),
    partitions=("source", "block"),
    statistics=("image",),
)


def _of_image(column: Column) -> Column:
    """Return a column of decisions without words about time."""
    meaning = column.meaning.removeprefix("smoothed ").replace(", smoothed and cut", ", cut")
    return replace(column, meaning=meaning.replace(_NO_VALUE, "null without a head for it, or without a face"))


IMAGES = Dataset(
    "images",
    "what the heads predict for the faces of images; an image without a face has one row",
    (IMAGE, IMAGE_FACE, *_IMAGE_SIZE, *FACE_COLUMNS, *map(_of_image, DECISION_COLUMNS)),
    key=("image", "face"),
    statistics=("image",),
)

_OF_FRAMES = "0..1"

SUMMARY = Dataset(
    "summary",
    "one row per video and person of a folder of predictions; a video without any person has one row",
    (
        Column("video", pa.string(), "name of the video"),
        Column("person", pa.int32(), "number of the person in the video; null without any person", "", ">= 1", True),
        Column("frames", pa.int64(), "rows of the person: from its first to its last frame", "frames", ">= 1"),
        Column("seconds", pa.float64(), "time from the first to the last of these frames", "s", ">= 0", nullable=True),
        Column("face_share", pa.float64(), "share of these frames that show the face", "", _OF_FRAMES),
        Column("face_size_px", pa.float64(), "mean of face_size_px", "px of the displayed frame", "> 0", True),
        Column("is_short_track", pa.bool_(), "as in the predictions", nullable=True),
        *(
            Column(f"share_{name.lower()}", pa.float64(), f"share of decided frames with {name}", "", _OF_FRAMES, True)
            for name in EXPRESSIONS
        ),
        *(
            Column(f"{name}_{kind}", pa.float64(), f"{word} of {name}", "", "-1..1", nullable=True)
            for name in DIMENSIONS
            for kind, word in (("mean", "mean"), ("min", "smallest value"), ("max", "largest value"))
        ),
        *(
            Column(
                f"rate_{name.lower()}",
                pa.float64(),
                f"share of decided frames in which action unit {name[2:]} is active",
                "",
                _OF_FRAMES,
                nullable=True,
            )
            for name in ACTION_UNITS
        ),
    ),
    key=("video", "person"),
    statistics=("video",),
)


def features_dataset(embedding_size: int, class_names: tuple[str, ...]) -> Dataset:
    """Return the dataset of the features of one backbone.

    ``class_names``: classes of the backbone in the order of its logits.
    """
    return Dataset(
        "features",
        "what a backbone sees in the face of one subject, frame by frame",
        (FRAME, HAS_FACE, *_vector_columns(embedding_size, class_names, nullable=True)),
        key=("frame",),
        partitions=("backbone", "source", "subject"),
    )


def imported_features_dataset(embedding_size: int, score_names: tuple[str, ...]) -> Dataset:
    """Return the dataset of features that another program computed; without scores, it has no column for them."""
    usual = features_dataset(embedding_size, score_names)
    meanings = {
        "has_face": "whether the imported file has a row for the frame; other values are null if not",
        "embedding": "numbers of the imported file",
        "logits": f"scores of the imported file: {', '.join(score_names)}",
    }
    columns = [replace(one, meaning=meanings.get(one.name, one.meaning)) for one in usual.columns]
    return replace(
        usual,
        meaning="what another program computed for one subject, frame by frame",
        columns=tuple(columns if score_names else columns[:-1]),
    )


def other_features_dataset(embedding_size: int, class_names: tuple[str, ...]) -> Dataset:
    """Return the dataset of the features of faces that are not a subject's."""
    return Dataset(
        "other_features",
        "what a backbone sees in the faces of one video that are not a subject's",
        (
            FRAME,
            Column("face", pa.int16(), "rank of the face in its frame, as in faces", "", ">= 0"),
            *_vector_columns(embedding_size, class_names, nullable=False),
        ),
        key=("frame", "face"),
        partitions=("backbone", "source", "video"),
    )


def _vector_columns(embedding_size: int, class_names: tuple[str, ...], *, nullable: bool) -> tuple[Column, Column]:
    names = ", ".join(class_names) if len(class_names) <= 16 else f"{len(class_names)} classes"
    return (
        Column(
            "embedding",
            pa.list_(pa.field("item", pa.float16(), nullable=False), embedding_size),
            "penultimate layer of the backbone (global average pool)",
            nullable=nullable,
        ),
        Column(
            "logits",
            pa.list_(pa.field("item", pa.float32(), nullable=False), len(class_names)),
            f"class outputs of the backbone: {names}",
            nullable=nullable,
        ),
    )


def image_features_dataset(embedding_size: int, class_names: tuple[str, ...]) -> Dataset:
    """Return the dataset of the features of one backbone for faces of images, as ``features_dataset``."""
    vectors = _vector_columns(embedding_size, class_names, nullable=False)
    return Dataset(
        "image_features",
        "what a backbone sees in the faces of images",
        (IMAGE, replace(IMAGE_FACE, nullable=False), *vectors),
        key=("image", "face"),
        partitions=("backbone", "source", "block"),
        statistics=("image",),
    )


def image_outputs_dataset(branches: tuple[BranchName, ...], *, has_backbone: bool = False) -> Dataset:
    """Return the dataset of the outputs of a head for faces of images, before decisions."""
    columns = (replace(column, nullable=False) for column in _output_columns(branches, has_backbone=has_backbone))
    return Dataset(
        "image_outputs",
        "probabilities or values of a head for faces of images, before any decision",
        (IMAGE, replace(IMAGE_FACE, nullable=False), *columns),
        key=("image", "face"),
        partitions=("head", "source", "block"),
        statistics=("image",),
    )


def _output_columns(branches: tuple[BranchName, ...], *, has_backbone: bool) -> tuple[Column, ...]:
    columns = tuple(column for branch in branches for column in OUTPUT_COLUMNS[branch])
    return columns + (BACKBONE_COLUMNS if has_backbone else ())


def outputs_dataset(branches: tuple[BranchName, ...], *, has_backbone: bool = False) -> Dataset:
    """Return the dataset of the outputs of a head, before interpolation, smoothing and decisions.

    ``has_backbone``: with the backbone's own expressions, for post-processing with a gate.
    """
    return Dataset(
        "outputs",
        "probabilities or values of a head, before any decision",
        (FRAME, HAS_FACE, *_output_columns(branches, has_backbone=has_backbone)),
        key=("frame",),
        partitions=("head", "source", "subject"),
    )


def person_outputs_dataset(branches: tuple[BranchName, ...], *, has_backbone: bool = False) -> Dataset:
    """Return the dataset of the outputs of a head for each person in a video."""
    return Dataset(
        "person_outputs",
        "probabilities or values of a head for each person, from the first to the last face, before any decision",
        (
            PERSON,
            FRAME,
            replace(HAS_FACE, meaning="whether the frame shows the person's face; outputs are null if not"),
            *_output_columns(branches, has_backbone=has_backbone),
        ),
        key=("person", "frame"),
        partitions=("head", "source", "video"),
    )


def check_schema(table: pa.Table, dataset: Dataset) -> pa.Table:
    """Return the table with the columns in the order of the dataset, and with its metadata.

    Raises:
        ValueError: a column is missing, unknown, of another type, or contains nulls although it must not.
    """
    wanted = dataset.schema
    if set(table.column_names) != set(wanted.names):
        raise ValueError(f"{dataset.name}: expected columns {wanted.names}, got {table.column_names}")
    table = table.select(wanted.names)
    for column in wanted:
        got = table.schema.field(column.name).type
        if got != column.type and not (pa.types.is_null(got) and column.nullable):
            raise ValueError(f"{dataset.name}.{column.name}: expected type {column.type}, got {got}")
        if not column.nullable and table.column(column.name).null_count:
            raise ValueError(f"{dataset.name}.{column.name}: expected a value in every row, got nulls")
    return table.cast(wanted)
