"""Details of the units of datasets, one class per dataset. On disk they are JSON; the fields are its keys."""

from dataclasses import dataclass

from data_contracts.details.records import Details, JsonObject, LeftOut, Record
from data_contracts.files.inputs import FileState
from data_contracts.vocabulary import Precision, ScoreForm


@dataclass(frozen=True, kw_only=True)
class VideoDetails(Details):
    """``videos``: path and state (size, and time in ns or ETag) of the file when it was indexed, and its frames.

    ``display``: how frames are mirrored, cropped and scaled to square pixels before they are rotated; None if they are
    not.
    ``index_method``: ``packets`` if they prove the number of frames, or ``decoding``.
    ``average_fps``: average frame rate; None if it is unknown, or an earlier version did not store it here.
    """

    path: str
    file_state: FileState
    frame_count: int
    width_px: int
    display: LeftOut[str | None] = None
    index_method: LeftOut[str] = "packets"
    average_fps: LeftOut[float | None] = None


@dataclass(frozen=True, kw_only=True)
class FacesDetails(Details):
    """``faces``: which frames a unit covers.

    Attributes:
        first_frame, frame_count: 1-based number of the first frame, and number of frames.
        crop_params: how faces were detected and cropped; None for the organisers' crops.
        subject: the subject that the organisers' crops show; None for detected faces.
        frames_known_from: for the organisers' crops, the source of the number of frames: ``video`` or ``last crop``.
    """

    first_frame: int
    frame_count: int
    crop_params: LeftOut[JsonObject | None] = None
    subject: LeftOut[str | None] = None
    frames_known_from: LeftOut[str | None] = None


@dataclass(frozen=True, kw_only=True)
class FeaturesDetails(FacesDetails):
    """``features``: facts of the faces, and how the features were computed.

    Attributes:
        weights: the file; None for bundled weights.
        precision: None if an earlier version did not store it.
        published_scores: what the authors' heads take as scores of this backbone; None if an earlier version did not
            store it. The features are logits.
        class_names: classes of the backbone in the order of its logits; empty if an earlier version did not store them.
    """

    backbone_name: str
    weights: str | None = None
    precision: Precision | None = None
    engine: str | None = None
    published_scores: LeftOut[ScoreForm | None] = None
    class_names: LeftOut[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class SubjectsDetails(Details):
    """``subjects``: names of the subjects in a video, and the number of its segments (None: not stored)."""

    subjects: tuple[str, ...]
    segments: int | None = None


@dataclass(frozen=True, kw_only=True)
class PersonsDetails(Details):
    """``persons``: number of persons, and name of the backbone that compared their faces."""

    persons: int
    compared_with: str


@dataclass(frozen=True, kw_only=True)
class LabelsDetails(Details):
    """``labels``: what was read.

    Attributes:
        subjects: sorted names of all subjects that have labels.
        annotations: the challenge's folder; None if an earlier version read it.
        skipped_files: names of files that cannot be read or have another format.
    """

    subjects: tuple[str, ...] = ()
    annotations: LeftOut[str | None] = None
    skipped_files: LeftOut[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class PicturesDetails(Details):
    """``pictures``: whether photos were read as displayed: turned by EXIF data, on white, 16 bits scaled to 8."""

    as_displayed: LeftOut[bool] = False


@dataclass(frozen=True, kw_only=True)
class StoredImage(Record):
    """An image of a block: path or URL, digest of its bytes (on S3, of its ETag), and its state when it was read."""

    path: str
    digest: str
    state: FileState


@dataclass(frozen=True, kw_only=True)
class ImageFacesDetails(Details):
    """``image_faces``: the images of a block, also those without a face, and how faces were found and cropped."""

    images: tuple[StoredImage, ...]
    crop_params: JsonObject


@dataclass(frozen=True, kw_only=True)
class OutputsDetails(Details):
    """``outputs``, ``person_outputs``: number of frames of the video, and its source: ``video`` or ``last crop``."""

    frame_count: int = 0
    frames_known_from: str = "video"
