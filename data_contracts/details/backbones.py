"""Details of trained backbones: the training photos and the metrics on the validation photos."""

from dataclasses import dataclass

from data_contracts.details.records import Details, LeftOut, Record


@dataclass(frozen=True, kw_only=True)
class PictureSetSize(Record):
    """Numbers of photos and of people in a set."""

    pictures: int
    people: int


@dataclass(frozen=True, kw_only=True)
class PictureCoverage(Record):
    """The photos that a backbone was trained on.

    Attributes:
        status: number of photos per status of their crop.
        untrained_pictures: number of photos that are skipped because the labels of the person are doubtful.
        train, validation: sizes of the sets.
        excluded_pictures: number of validation photos of people who are in the training photos too.
        train_pictures_per_class: empty if there are more than 16 classes.
        too_rare: number of photos of each class that is skipped because it has too few.
    """

    status: dict[str, int]
    untrained_pictures: int = 0
    train: PictureSetSize
    validation: PictureSetSize
    train_pictures_per_class: dict[str, int]
    too_rare: dict[str, int]
    excluded_pictures: LeftOut[int] = 0


@dataclass(frozen=True, kw_only=True)
class PictureFigures(Record):
    """Metrics on the validation photos; None without such photos, and for outputs that are not trained.

    ``recall``, ``pictures``, ``confusion``: per class, for up to 16 classes; recall is None without photos.
    """

    accuracy: LeftOut[float | None] = None
    balanced_accuracy: LeftOut[float | None] = None
    mean_ccc: LeftOut[float | None] = None
    recall: LeftOut[dict[str, float | None] | None] = None
    pictures: LeftOut[dict[str, int] | None] = None
    confusion: LeftOut[list[list[int]] | None] = None


@dataclass(frozen=True, kw_only=True)
class BackboneDetails(Details):
    """``backbones``: the training photos, the metrics, and the epoch (from 1) with the kept weights."""

    coverage: PictureCoverage
    figures: PictureFigures
    kept_epoch: int
