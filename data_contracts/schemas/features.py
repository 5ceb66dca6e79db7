"""Features: what a backbone returns for a face."""

from dataclasses import replace

import pyarrow as pa

from data_contracts.schemas.dataset import FRAME, HAS_FACE, Column, Dataset
from data_contracts.schemas.faces import IMAGE, IMAGE_FACE


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


def face_features_dataset(embedding_size: int, class_names: tuple[str, ...]) -> Dataset:
    """Return the dataset of the features of all faces of videos whose crops are not stored."""
    meaning = "what a backbone sees in every face of one video, whose crops are not stored"
    return replace(other_features_dataset(embedding_size, class_names), name="face_features", meaning=meaning)


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
