"""Details of heads: the data and settings of a fit, and the scores; and of their post-processing."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from data_contracts.details.records import Details, JsonObject, LeftOut, Record
from data_contracts.vocabulary import (
    BRANCHES_OF_TASK,
    Precision,
    TaskName,
    is_imported,
    is_simulated,
    is_simulated_subject,
)

# Recipe of a head that was not fitted: the classes of a backbone.
ZERO_SHOT = "zero-shot"

# Recipe and kind of a head that blends others.
BLEND = "blend"


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
    fitted_labels: LeftOut[tuple[str, ...]] = ()

    @property
    def _features(self) -> list[str]:
        """Names of all features variants and backbones."""
        of_members = [name for one in self.members for name in (one.backbone, one.backbone_name)]
        return [self.backbone, self.backbone_name, *of_members]

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
