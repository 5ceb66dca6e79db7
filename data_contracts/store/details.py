"""Facts in manifests, one class per dataset and kind of bundle. On disk they are JSON; the fields are its keys."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

from data_contracts.errors import counted
from data_contracts.files.inputs import FileState
from data_contracts.store.records import Details, JsonObject, LeftOut, Record
from data_contracts.vocabulary import (
    BRANCHES_OF_TASK,
    EditionName,
    ScoreForm,
    TaskName,
    is_imported,
    is_simulated,
    is_simulated_subject,
)

# Recipe of a head that was not fitted: the classes of a backbone.
ZERO_SHOT = "zero-shot"
# Recipe and kind of a head that blends others.
BLEND = "blend"
Precision = Literal["bfloat16", "float32"]

# -- datasets ------------------------------------------------------------------------------------------------------


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
class BlendMember(Record):
    """A head in a blend: what it was when it was blended, its features, and its weight in each branch, 0..1."""

    head: str
    fingerprint: str
    backbone: str
    source: str
    backbone_name: str
    weights: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class WeightsOfFold(Record):
    """Validation subjects of a fold of videos; and branch -> weight of each member, chosen without them."""

    subjects: tuple[str, ...]
    weights: dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class HeadDetails(Details):
    """``heads``: the data and settings that a head was fitted with, and its scores on the validation set.

    Attributes:
        recipe, recipe_version: of the recipe; ``zero-shot`` for a head that was not fitted.
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
        members: of a blend; its features are those of the first one.
        weights_of_folds: of a blend, for the outputs of validation subjects.
        fitted_labels: branches whose labels the head was fitted on; empty: those of its task.
        gate_classes: classes of the backbone, whose own expressions the outputs contain for the gate of the
            post-processing; empty without a gate.
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
    recipe_version: LeftOut[int | None] = None
    scores_of: LeftOut[str | None] = None
    annotations: LeftOut[str | None] = None
    train_subjects: LeftOut[tuple[str, ...]] = ()
    validation_subjects: LeftOut[tuple[str, ...]] = ()
    excluded_subjects: LeftOut[tuple[str, ...]] = ()
    members: LeftOut[tuple[BlendMember, ...]] = ()
    weights_of_folds: LeftOut[tuple[WeightsOfFold, ...]] = ()
    gate_classes: LeftOut[tuple[str, ...]] = ()

    @property
    def _features(self) -> list[str]:
        """Names of all features variants and backbones."""
        of_members = [name for one in self.members for name in (one.backbone, one.backbone_name)]
        return [self.backbone, self.backbone_name, *of_members]

    fitted_labels: LeftOut[tuple[str, ...]] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Branches whose labels the head was fitted on; none for ``zero-shot``."""
        return () if self.recipe == ZERO_SHOT else self.fitted_labels or BRANCHES_OF_TASK[self.task]

    @property
    def has_simulated_features(self) -> bool:
        """Return whether the head was fitted on simulated features, also if their folder was renamed."""
        return any(map(is_simulated, self._features))

    @property
    def not_from_videos(self) -> str | None:
        """What the head was fitted on, if no network computes it from videos: simulated or imported features."""
        if self.has_simulated_features:
            return "simulated features"
        return "imported features" if any(map(is_imported, self._features)) else None

    @property
    def is_simulated(self) -> bool:
        """Return whether the head was fitted on simulated features, or on the labels of simulated subjects."""
        return self.has_simulated_features or any(map(is_simulated_subject, self.train_subjects))

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
        words += [f"{'/'.join(f'{value:.2f}' for value in one.weights.values())} of {one.head}" for one in self.members]
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
        tuning: name of the recipe.
        tuned_with: the head on whose outputs it was tuned and that the metrics belong to, if it is not ``head``.
        scored_rows: labelled rows that thresholds and scores depend on; None if an earlier version tuned it.
        scored_without_face: those of them whose frame shows no face; they have interpolated outputs.
        excluded_without_face: further labelled rows, which are excluded because their frame shows no face.
        recipe: all values of the recipe; None if they follow from its name, ``paper`` or ``default``.
    """

    head: str
    task: TaskName
    tuning: str
    figures: TuningFigures
    subjects: tuple[str, ...] = ()
    tuned_with: LeftOut[str | None] = None
    scored_rows: LeftOut[int | None] = None
    scored_without_face: LeftOut[int] = 0
    excluded_without_face: LeftOut[int] = 0
    recipe: LeftOut[JsonObject | None] = None


@dataclass(frozen=True, kw_only=True)
class CellDetails(Details):
    """``reproduction/cells``: one head with one seed, and the scores that the paper publishes of such a head.

    It names no subjects: after ``forget``, the labels are other ones, and the head is fitted again.

    Attributes:
        features, is_hidden: what the head is fitted on, and whether it has a hidden layer.
        settings: all values of the recipe.
        backbone, source: variants of the features.
        backbone_name: as in ``FeaturesDetails``.
        trained_on: names of sets.
        best_epochs: of each part of the recipe.
        scores: decisions -> metric -> value on the validation set; empty if it was fitted on the validation set too.
        coverage: how the labels of each set were used.
        seconds: time of the fit and the scores.
        fitted_in: precision of the fit.
    """

    task: TaskName
    features: str
    is_hidden: bool
    seed: int
    settings: JsonObject
    backbone: str
    source: str
    backbone_name: str
    trained_on: tuple[str, ...]
    best_epochs: list[int]
    scores: dict[str, dict[str, float]]
    coverage: tuple[LabelCoverage, ...]
    seconds: float
    fitted_in: str


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
        smoothing: name of the published smoothing that replaces that of the post-processing; None: its own.
        test_list: path or URL of the list; None if an earlier version wrote the submission, as for ``annotations``.
        annotations: the folder of the labels that the head was fitted on.
        labels: branches whose labels the head was fitted on; empty if an earlier version wrote the submission.
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
    smoothing: LeftOut[str | None] = None
    labels: LeftOut[tuple[str, ...]] = ()

    @property
    def is_simulated(self) -> bool:
        """Return whether the head was fitted on simulated data."""
        return is_simulated(self.zip)

    def format_labels(self) -> str:
        """Return the labels that the head was fitted on in one line, and whether the rules of the task allow them."""
        others = set(self.labels) - set(BRANCHES_OF_TASK[self.task])
        rule = "; challenges of a single task allow only labels of that task" if others else ""
        return f"fitted on labels of {', '.join(self.labels) or 'unknown tasks'}{rule}"

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
            found = f"{counted(count, 'fault')}, first: {self.checks.faults[0]}"
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


@dataclass(frozen=True, kw_only=True)
class SimulationDetails(Details):
    """``simulation``: how the data in the store was simulated, and the best scores that any prediction can reach.

    Attributes:
        scale, seed: of the simulation.
        subjects, frames: numbers of them; frames of a video with two persons count twice.
        attainable: task -> set -> metric -> score of the best decisions given the latent state of every frame.
    """

    scale: float
    seed: int
    subjects: int
    frames: int
    attainable: dict[str, dict[str, dict[str, float]]]
