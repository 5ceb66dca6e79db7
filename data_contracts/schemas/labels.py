"""Annotations of videos, and labelled pictures."""

import pyarrow as pa

from data_contracts.schemas.dataset import FRAME, SUBJECT, Column, Dataset
from data_contracts.schemas.faces import BOX, CROP, PROBABILITY, STATUS
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS, BranchName

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
