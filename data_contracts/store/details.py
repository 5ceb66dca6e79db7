"""Facts in manifests, one class per dataset and kind of bundle. On disk they are JSON; the fields are its keys.

A field with a default may be missing in manifests of earlier versions, which then count as having the default.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount
from data_contracts.files.inputs import FileState
from data_contracts.vocabulary import EditionName, TaskName

JsonObject = dict[str, Any]
# Recipe of a head that was not fitted: the classes of a backbone.
ZERO_SHOT = "zero-shot"
_LEFT_OUT = "left out"
_Value = TypeVar("_Value")
# A field that is left out of the JSON while it has its default.
LeftOut = Annotated[_Value, _LEFT_OUT]
Precision = Literal["bfloat16", "float32"]


class HasDetails(Protocol):
    """A manifest of a unit or a bundle."""

    @property
    def details(self) -> JsonObject:
        """The facts as JSON values."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object with known keys."""

    def to_json(self) -> JsonObject:
        """Return the JSON values."""
        return {
            one.name: _to_json(value)
            for one, _, is_left_out in _fields_of(type(self))  # type: ignore[arg-type]  # mypy looks at __hash__ of instances
            if (value := getattr(self, one.name)) != one.default or not is_left_out
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the record that ``to_json`` of this or an earlier version wrote. Unknown keys are ignored.

        Raises:
            InputError: a key without a default is missing.
        """
        known = {}
        for one, read, _ in _fields_of(cls):  # type: ignore[arg-type]
            value = values.get(one.name, MISSING)
            if value is not MISSING:
                known[one.name] = read(value) if read and value is not None else value
            elif one.default is MISSING:
                raise InputError(
                    f"manifest: expected {one.name} among its details, got {', '.join(sorted(values)) or 'none'}; "
                    "it was written by another version of affwild2: use that one, or a new store"
                )
        return cls(**known)


@functools.cache
def _fields_of(record: type[Record]) -> "list[tuple[Field[Any], Callable[[Any], Any] | None, bool]]":
    """Return each field, the function that reads its JSON value (None: identity), and whether it may be left out."""
    hints = get_type_hints(record, include_extras=True)
    return [(one, _reader(hints[one.name]), _LEFT_OUT in get_args(hints[one.name])) for one in fields(record)]


def _reader(hint: Any) -> Callable[[Any], Any] | None:
    if get_origin(hint) is Annotated:
        return _reader(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
        return _reader(hint)
    if get_origin(hint) is tuple:
        read = _reader(get_args(hint)[0])
        return (lambda values: tuple(one if one is None else read(one) for one in values)) if read else tuple
    if hint is FileState:
        return lambda values: FileState(*values)
    return hint.from_json if isinstance(hint, type) and issubclass(hint, Record) else None


def _to_json(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_to_json(one) for one in value]
    return value


@dataclass(frozen=True, kw_only=True)
class Details(Record):
    """Facts that every manifest may hold.

    ``problems``: a line for every part of the input that was lost while the rest of it was used.
    """

    problems: LeftOut[tuple[str, ...]] = ()

    @classmethod
    def of(cls, manifest: HasDetails) -> Self:
        """Return the facts in the manifest of a unit or a bundle.

        Raises:
            InputError: see ``from_json``.
        """
        return cls.from_json(manifest.details)

    def with_problems(self, problems: Sequence[str]) -> Self:
        """Return the same facts with these problems, if there are any."""
        return replace(self, problems=tuple(problems)) if problems else self


def problems_of(manifest: HasDetails) -> Sequence[str]:
    """Return a line for every part of a unit's input that was lost."""
    lines: Sequence[str] = manifest.details.get("problems", ())
    return lines


# -- datasets ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class VideoDetails(Details):
    """``videos``: path and state (size, and time in ns or ETag) of the file when it was indexed, and its frames.

    ``display``: how frames are mirrored, cropped and scaled to square pixels before they are rotated; None if they are
    not.
    ``index_method``: ``packets`` if they prove the number of frames, or ``decoding``.
    """

    path: str
    file_state: FileState
    frame_count: int
    width_px: int
    display: LeftOut[str | None] = None
    index_method: LeftOut[str] = "packets"


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

    ``weights``: the file; None for bundled weights. ``precision``: None if an earlier version did not store it.
    """

    backbone_name: str
    weights: str | None = None
    precision: Precision | None = None
    engine: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubjectsDetails(Details):
    """``subjects``: names of the subjects in a video, and the number of its segments (None: not stored)."""

    subjects: tuple[str, ...]
    segments: int | None = None


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
class OutputsDetails(Details):
    """``outputs``: number of frames, and its source: ``video`` or ``last crop``."""

    frame_count: int = 0
    frames_known_from: str = "video"


# -- bundles -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LabelCoverage(Record):
    """How the label lines of one set were used to fit a head.

    Attributes:
        set_name: ``train`` or ``validation``.
        subjects, subjects_without_features: numbers of subjects.
        labelled: lines with a label of the task; the sum of the next three and ``excluded``.
        used: lines with a label and a face.
        labelled_without_face: lines whose frame shows no face of the subject.
        labelled_beyond_video: lines whose frame is not in the video.
        unlabelled: lines without a label of the task.
        faces_without_label: frames with a face and without a label.
        excluded: labelled lines of validation subjects whose video is in the training set too; part of ``labelled``.
    """

    set_name: str
    subjects: int
    subjects_without_features: int
    labelled: int
    used: int
    labelled_without_face: int
    labelled_beyond_video: int
    unlabelled: int
    faces_without_label: int
    excluded: LeftOut[int] = 0


def label_coverage_columns(coverage: Iterable[LabelCoverage]) -> tuple[str, ...]:
    """Return the columns of a table of label coverage: all fields, without ``excluded`` where nothing is."""
    names = tuple(one.name for one in fields(LabelCoverage))
    return names if any(one.excluded for one in coverage) else names[:-1]


@dataclass(frozen=True, kw_only=True)
class HeadDetails(Details):
    """``heads``: the data and settings that a head was fitted with, and its scores on the validation set.

    Attributes:
        recipe: name of the recipe, or ``zero-shot`` for a head that was not fitted.
        kind: name in ``models.heads.recipes.HEAD_KINDS``.
        settings: all values of the recipe; None for ``zero-shot``.
        backbone, source: variants of the features.
        backbone_name, weights, precision, crop_params: how the features were made, as in ``FeaturesDetails``.
        coverage: how the labels of each set were used.
        figure: name of the metric by which the task is ranked.
        figures, seed_figures: all metrics of the head, and the one named ``figure`` for each seed.
        best_epochs: per seed and part, the number of epochs with the best score.
        trained_on: names of sets.
        scores_of: the head that was fitted on the training set alone, if this one was fitted on the validation set too;
            it has no scores of its own.
        fitted_in: precision of the fit.
        annotations: the folder that the labels were read from; None if an earlier version read them.
        train_subjects, validation_subjects: all subjects of the two sets; empty if an earlier version fitted the head.
        excluded_subjects: validation subjects whose video is in the training set too; no score depends on their rows.
    """

    task: TaskName
    recipe: str
    settings: LeftOut[JsonObject | None] = None
    backbone: str
    source: str
    backbone_name: str
    weights: str | None = None
    precision: Precision | None = None
    crop_params: JsonObject | None = None
    coverage: tuple[LabelCoverage, ...]
    figure: str
    figures: dict[str, float]
    seed_figures: list[float]
    best_epochs: LeftOut[list[list[int]] | None] = None
    trained_on: LeftOut[tuple[str, ...]] = ()
    fitted_in: LeftOut[str | None] = None
    kind: LeftOut[str] = "mlp"
    scores_of: LeftOut[str | None] = None
    annotations: LeftOut[str | None] = None
    train_subjects: LeftOut[tuple[str, ...]] = ()
    validation_subjects: LeftOut[tuple[str, ...]] = ()
    excluded_subjects: LeftOut[tuple[str, ...]] = ()

    def part_settings(self) -> dict[str, str]:
        """Return features, hidden units and seeds, each with its different values in the parts of the head."""
        parts = (self.settings or {}).get("parts", ())
        return {
            name: "/".join(dict.fromkeys(str(part[name]) for part in parts if name in part))
            for name in ("features", "hidden_units", "seeds")
        }

    def format_settings(self) -> str:
        """Return the settings that distinguish the head from others of its task, in one line."""
        words = [f"on {self.backbone} {self.source}", f"recipe {self.recipe}"]
        words += [f"{name.replace('_', ' ')} {value}" for name, value in self.part_settings().items() if value]
        words.append(f"kind {self.kind}")
        if len(self.trained_on) > 1:
            words.append(f"trained on {' and '.join(self.trained_on)}")
            words.append(f"scores of {self.scores_of or 'the head'}, trained on train alone")
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class TuningFigures(Record):
    """Metrics on the validation set.

    Attributes:
        untuned: thresholds of 0.5, no smoothing.
        tuned: with the chosen rule, on all validation subjects: in-sample, if anything was tuned on them.
        held_out: rules tuned on the other folds of videos; None if there are fewer than two videos.
    """

    untuned: dict[str, float] | None = None
    tuned: dict[str, float] | None = None
    held_out: dict[str, float] | None = None

    def of_metric(self, name: str) -> tuple[float | None, float | None, float | None]:
        """Return the untuned, tuned and held-out value of one metric."""
        untuned, tuned, held_out = ((one or {}).get(name) for one in (self.untuned, self.tuned, self.held_out))
        return untuned, tuned, held_out


@dataclass(frozen=True, kw_only=True)
class PostprocessingDetails(Details):
    """``postprocessing``: the head, how and on which subjects it was tuned, and the metrics.

    Attributes:
        tuned_with: the head on whose outputs it was tuned and that the metrics belong to, if it is not ``head``.
        scored_rows: labelled rows that thresholds and scores depend on; None if an earlier version tuned it.
        scored_without_face: those of them whose frame shows no face; they have interpolated outputs.
        excluded_without_face: further labelled rows, which are excluded because their frame shows no face.
    """

    head: str
    task: TaskName
    tuning: Literal["paper", "default"]
    figures: TuningFigures
    subjects: tuple[str, ...] = ()
    tuned_with: LeftOut[str | None] = None
    scored_rows: LeftOut[int | None] = None
    scored_without_face: LeftOut[int] = 0
    excluded_without_face: LeftOut[int] = 0


@dataclass(frozen=True, kw_only=True)
class SubjectCoverage(Record):
    """Sources of the rows of one subject in a submission; the counts sum to ``rows``.

    Attributes:
        with_face: frames that show the subject's face.
        interpolated: frames between two frames with a face.
        before_first_face, after_last_face: frames that get the first or last prediction.
        without_any_face: all frames, if the face is never found; they get Neutral, 0 and no action unit.
        beyond_video: expected frames after the end of the video or crops; they get the last prediction.
        frames_known_from: ``video``, or ``last crop`` if there is no video; rows may be missing then.
    """

    subject: str
    rows: int
    with_face: int
    interpolated: int
    before_first_face: int
    after_last_face: int
    without_any_face: int
    beyond_video: int
    frames_known_from: str


# ``rows``, and the counts that sum to it.
COVERAGE_COUNTS = tuple(one.name for one in fields(SubjectCoverage))[1:-1]


@dataclass(frozen=True, kw_only=True)
class SubmissionChecks(Record):
    """Result of ``affwild2 verify``: number of faults, the first ones, and the reference of the comparison."""

    fault_count: int
    faults: tuple[str, ...]
    against: str


@dataclass(frozen=True, kw_only=True)
class SubmissionDetails(Details):
    """``submissions``: the head and post-processing, the sources of the rows, and the result of the checks.

    Attributes:
        recipe: of the head.
        fingerprints: of ``head`` and ``postprocessing``.
        figures: metrics of the post-processing on the validation set.
        figures_of: the head that the metrics belong to, if it is not ``head``.
        zip: file name of the submission.
        test_list: path or URL of the list; None if an earlier version wrote the submission, as for ``annotations``.
        annotations: the folder of the labels that the head was fitted on.
        in_train, in_validation: subjects of the list that are, or whose video is, in a set that the head was fitted on.
        checks: None if rows were removed later, or an earlier version wrote the submission.
    """

    edition: EditionName
    task: TaskName
    head: str
    recipe: str
    postprocessing: str
    fingerprints: dict[str, str]
    figures: TuningFigures
    coverage: tuple[SubjectCoverage, ...]
    zip: str
    checks: LeftOut[SubmissionChecks | None] = None
    test_list: LeftOut[str | None] = None
    annotations: LeftOut[str | None] = None
    in_train: LeftOut[tuple[str, ...]] = ()
    in_validation: LeftOut[tuple[str, ...]] = ()
    figures_of: LeftOut[str | None] = None

    @property
    def has_no_fault(self) -> bool:
        """Return whether the submission was checked and no fault was found."""
        return self.checks is not None and self.checks.fault_count == 0

    def format_checks(self) -> str:
        """Return the result of the checks in one line."""
        if self.checks is None:
            return "not checked: rows were removed, or an earlier version wrote it"
        count, found = self.checks.fault_count, "no fault"
        if count:
            found = f"{count} fault{'s' if count > 1 else ''}, first: {self.checks.faults[0]}"
        return f"{found} ({self.checks.against})"


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


# -- accounts of inputs --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SkippedInputs(Record):
    """Files that a reader skipped for one reason. ``is_harmless``: no input is lost."""

    reason: str
    count: int
    is_harmless: bool = False
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InputsDetails(Details):
    """``inputs``: what a reader of inputs found, used and skipped, as in ``InputAccount``."""

    kind: str
    places: tuple[str, ...]
    found: int
    used: int
    skipped: tuple[SkippedInputs, ...] = ()
    notes: LeftOut[tuple[str, ...]] = ()

    @classmethod
    def of_account(cls, account: InputAccount) -> Self:
        """Return the counts of an account. Files that may be missing in the results come first."""
        skipped = [
            SkippedInputs(reason=reason, count=one.count, is_harmless=one.is_harmless, examples=tuple(one.examples))
            for reason, one in account.skipped.items()
        ]
        return cls(
            kind=account.kind,
            places=account.places,
            found=account.found,
            used=account.used,
            skipped=tuple(sorted(skipped, key=lambda one: (one.is_harmless, -one.count, one.reason))),
            notes=tuple(account.notes),
        )

    @property
    def lost(self) -> tuple[SkippedInputs, ...]:
        """The skipped files that are not harmless."""
        return tuple(one for one in self.skipped if not one.is_harmless)

    @property
    def place(self) -> str:
        """The first place, and the number of others."""
        more = f" and {len(self.places) - 1} more" if len(self.places) > 1 else ""
        return f"{self.places[0] if self.places else ''}{more}"

    def format_counts(self) -> str:
        """Return the counts in one line."""
        skipped = self.found - self.used
        return f"{self.kind} in {self.place}: {self.found:,} found, {self.used:,} used, {skipped:,} skipped"

    def format_lost(self) -> list[str]:
        """Return one line per reason for skipped files that are not harmless."""
        return [self._format_reason(one) for one in self.lost]

    def format_lines(self) -> list[str]:
        """Return the counts, one line per reason, and the notes."""
        notes = [f"note: {self.kind}: {line}" for line in self.notes]
        return [self.format_counts(), *map(self._format_reason, self.skipped), *notes]

    def _format_reason(self, one: SkippedInputs) -> str:
        more = ", ..." if one.count > len(one.examples) else ""
        what = "ignored" if one.is_harmless else "skipped"
        return f"{self.kind}: {one.count:,} {what}, {one.reason}: {', '.join(one.examples)}{more}"
