"""Predictions: decisions about the faces of videos and images, and their summary."""

from dataclasses import replace

import pyarrow as pa

from data_contracts.schemas.dataset import FRAME, PERSON, Column, Dataset
from data_contracts.schemas.faces import FACE_COLUMNS, IMAGE, IMAGE_FACE, IMAGE_SIZE
from data_contracts.schemas.outputs import OUTPUT_COLUMNS
from data_contracts.vocabulary import ACTION_UNITS, DIMENSIONS, EXPRESSIONS, SHORT_TRACK_FRAMES

_NO_VALUE = "null without a head for it, or where missing faces carry null"


def _smoothed(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    return tuple(replace(column, meaning=f"smoothed {column.meaning}; {_NO_VALUE}") for column in columns)


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


def _of_image(column: Column) -> Column:
    """Return a column of decisions without words about time."""
    meaning = column.meaning.removeprefix("smoothed ").replace(", smoothed and cut", ", cut")
    return replace(column, meaning=meaning.replace(_NO_VALUE, "null without a head for it, or without a face"))


IMAGES = Dataset(
    "images",
    "what the heads predict for the faces of images; an image without a face has one row",
    (IMAGE, IMAGE_FACE, *IMAGE_SIZE, *FACE_COLUMNS, *map(_of_image, DECISION_COLUMNS)),
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
