"""Outputs: what a head returns for a face, before any decision; and what tuning tries on them."""

from dataclasses import replace

import pyarrow as pa

from data_contracts.schemas.dataset import FRAME, HAS_FACE, PERSON, Column, Dataset
from data_contracts.schemas.faces import IMAGE, IMAGE_FACE
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS, BranchName

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
