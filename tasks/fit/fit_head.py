"""Stage ``fit_head``: fit a head on labelled features, and score every seed."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.details.datasets import FeaturesDetails
from data_contracts.details.heads import ZERO_SHOT, HeadDetails, LabelCoverage
from data_contracts.errors import InputError, first_names
from data_contracts.store.bundles import Bundle, find_bundle, write_bundle
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import Manifest
from data_contracts.store.store import Store
from data_contracts.vocabulary import (
    BRANCHES_OF_TASK,
    Precision,
    ScoreForm,
    SetName,
    TaskName,
    is_simulated_subject,
    mark_name,
)
from models.backbones.registry import REGISTRY
from models.engines.devices import default_device
from models.engines.precision import native_precision
from models.heads.head import head_class, head_to_bytes
from models.heads.metrics import MAIN_METRIC
from models.heads.recipes import Features, TaskRecipe
from models.recipes.recipe import Recipe
from models.recipes.registry import DEFAULT
from models.recipes.toml_files import recipe_to_toml
from tasks.fit.import_labels import labels_key
from tasks.fit.subject_features import FeaturesVariant, with_frames
from tasks.fit.subject_split import SubjectSplit, split_subjects
from tasks.units import Files, Job

if TYPE_CHECKING:
    from models.heads.fitting import FittedHead, TrainingData
    from tasks.backbones import BackboneChoice
    from tasks.extract.crop_faces import CropParams

CODE_VERSION = 5
RECIPE_FILE = "recipe.toml"
# A part of the names of heads. It is not raised, so that a head replaces the one that an earlier version fitted.
_NAME_VERSION = 4
_ZERO_SHOT_VERSION = 1


@dataclass(frozen=True)
class HeadChoice:
    """A task, a recipe, and values that override those of the recipe (None: not overridden)."""

    task: TaskName
    recipe: Recipe = DEFAULT
    features: Features | None = None
    hidden_units: int | None = None
    seeds: int | None = None
    kind: str | None = None

    @property
    def has_gate(self) -> bool:
        """Whether post-processing compares the outputs with the backbone's own expressions."""
        return "expr" in BRANCHES_OF_TASK[self.task] and bool(self.recipe.postprocessing_of(self.task).gate_levels)

    def head_recipe(self, features: FeaturesDetails) -> TaskRecipe:
        """Return the recipe with all overrides, for heads on these features.

        Of a recipe ``as_published``, it is the published variant with these hidden layers.

        Raises:
            InputError: the recipe has no such task, or an override does not fit it.
        """
        overrides = {name: getattr(self, name) for name in ("features", "seeds", "kind")}
        given = {name: value for name, value in overrides.items() if value is not None}
        scores = _published_scores(features)
        try:
            recipe = self.recipe.variant(self.task, hidden_units=self.hidden_units, published_scores=scores)
            recipe = recipe.replace(**given)
            for part in recipe.parts:
                head_class(part.kind).check_recipe(part)
            return recipe
        except ValueError as error:
            raise InputError(f"recipe {self.recipe.name}: {error}") from error

    def effective_recipe(self, features: FeaturesDetails) -> Recipe:
        """Return the part of the recipe for this task. If options of ``fit`` changed it, its name says so."""
        heads, postprocessing = self.head_recipe(features), self.recipe.postprocessing_of(self.task)
        is_changed = heads != replace(self, features=None, hidden_units=None, seeds=None, kind=None).head_recipe(
            features
        )
        return replace(
            self.recipe,
            name=f"{self.recipe.name}_changed"[:32] if is_changed else self.recipe.name,
            heads={self.task: heads},
            postprocessing={self.task: postprocessing},
        )


def _published_scores(features: FeaturesDetails) -> ScoreForm:
    """Return what the authors' heads take as scores of the backbone."""
    if features.published_scores is None and features.backbone_name in REGISTRY:
        return REGISTRY[features.backbone_name].published_scores
    return features.published_scores or "logits"


@dataclass(frozen=True)
class FitHeadArgs:
    """What one head is fitted on, and how.

    Attributes:
        features: of the labelled subjects.
        labels: units of the training and validation labels.
        split: subjects of the two sets.
        annotations: folder that the labels were read from.
        epochs: numbers of epochs per seed and part, to fit on both sets; None to fit on the training set and select the
            best epoch on the validation set.
        precision: of matrix products.
        scores_of: the head fitted on the training set alone that ``epochs`` are from.
    """

    choice: HeadChoice
    features: FeaturesVariant
    labels: dict[SetName, Manifest]
    split: SubjectSplit
    epochs: list[list[int]] | None
    precision: Precision
    scores_of: str | None = None
    annotations: str | None = None

    @property
    def fitted_on(self) -> tuple[SetName, ...]:
        """Sets of the rows that the head is fitted on."""
        return ("train", "validation") if self.epochs else ("train",)


def plan_fit_head(
    store: Store,
    variant: FeaturesVariant,
    choice: HeadChoice,
    *,
    labels: dict[SetName, Manifest],
    annotations: str | None = None,
    first: Bundle | None = None,
) -> Job[FitHeadArgs]:
    """Plan the job that fits one head. It depends on the features and labels of the labelled subjects only.

    The head replaces the head of the same name that an earlier version fitted in another way. Validation subjects whose
    video is in the training set too are excluded.

    With ``first``, the same head fitted on the training set alone, it is fitted on the training and validation sets for
    the numbers of epochs that were best then.

    Raises:
        InputError: no labelled subject has features, or all validation subjects are in the training set too.
    """
    epochs = HeadDetails.of(first).best_epochs if first else None
    split = split_subjects(labels, task=choice.task, known=variant.subjects)
    subjects = sorted({subject for names in split.names.values() for subject in names.values()})
    if not subjects:
        raise InputError(
            f"features {variant.backbone} {variant.source}: expected subjects with labels of {choice.task}, found none "
            f"among {first_names(sorted(variant.subjects))}; extract the "
            "labelled videos into this store, or name another folder with --annotations"
        )
    used, recipe = variant.of_subjects(subjects), choice.head_recipe(variant.origin)
    _check_scores(store, variant, recipe)
    if head_class(recipe.kind).works_on == "sequences":
        used = with_frames(store, used)
    native = native_precision(default_device())
    # As published; products in bfloat16 would be faster by a quarter.
    precision: Precision = "float32" if choice.recipe.as_published else native
    parts = {
        "stage": "fit_head",
        "version": _NAME_VERSION,
        "recipe": recipe,
        "precision": native,
        "epochs": epochs,
        "labels": [(name, manifest.identity) for name, manifest in labels.items()],
        "features": [(subject, used.identity(subject)) for subject in subjects],
        "backbone": variant.backbone,
    }
    readable = f"{choice.task}-{choice.recipe.name}{'-all' if epochs else ''}"
    is_made_up = variant.is_simulated or any(map(is_simulated_subject, split.subjects["train"]))
    readable = mark_name(readable, simulated=is_made_up)
    name = variant_name(readable, fingerprint(**parts))
    job_fingerprint = fingerprint(
        **parts,
        code_version=CODE_VERSION,
        settings=recipe.set_fields(),
        fitted_in=precision,
        excluded=sorted(split.excluded),
    )
    scores_of = first.name if first else None
    arguments = FitHeadArgs(choice, used, labels, split, epochs, precision, scores_of, annotations)
    return Job(f"heads/{name}", job_fingerprint, arguments)


def _check_scores(store: Store, variant: FeaturesVariant, recipe: TaskRecipe) -> None:
    """Check that imported features have the scores that a recipe needs.

    Raises:
        InputError: they have none.
    """
    if not variant.is_imported or all(part.features == "embeddings" for part in recipe.parts):
        return
    if "logits" not in store.schema_of(*next(iter(variant.subjects.values()))[0]).names:
        raise InputError(
            f"features {variant.backbone}: expected scores, which the recipe is fitted on, found none in the imported "
            "file; pass --features embeddings, or import a file with scores"
        )


def make(store: Store, job: Job[FitHeadArgs]) -> Files:
    """Fit one head on features in temporary memory-mapped files.

    Raises:
        InputError: no row has a label and a face, a branch has no label, or the features are not finite.
    """
    # Planning does not need torch.
    from models.heads.fitting import fit_seeds

    given = job.arguments
    recipe = given.choice.head_recipe(given.features.origin)
    with tempfile.TemporaryDirectory(prefix="affwild2-rows-") as scratch:
        train, coverage = _gather(store, given, recipe, given.fitted_on, scratch)
        validation = None
        if not given.epochs:
            validation, more = _gather(store, given, recipe, ("validation",), scratch)
            coverage += more
        try:
            fitted = fit_seeds(
                train,
                validation,
                task=given.choice.task,
                recipe=recipe,
                epochs=given.epochs,
                precision=given.precision,
                device=default_device(),
            )
        except ValueError as error:
            raise InputError(f"{job.name}: {error}") from error
    metrics = {"figures": fitted.figures, "seeds": fitted.seed_figures, "history": fitted.histories}
    if given.scores_of:
        metrics["scores_of"] = given.scores_of
    files = head_to_bytes(fitted.head)
    files[RECIPE_FILE] = recipe_to_toml(given.choice.effective_recipe(given.features.origin)).encode()
    files["metrics.json"] = json.dumps(metrics, indent=1, sort_keys=True).encode() + b"\n"
    return Files(files, _details(given, recipe, fitted, coverage))


def _gather(
    store: Store, given: FitHeadArgs, recipe: TaskRecipe, names: Sequence[SetName], scratch: str
) -> tuple["TrainingData", list[LabelCoverage]]:
    """Gather what the recipe's kind of head is fitted on, of one or both sets, in a new folder."""
    from tasks.fit.training_rows import gather_rows, gather_sequences

    task, folder = given.choice.task, Path(tempfile.mkdtemp(dir=scratch))
    tables = {name: store.read_unit(labels_key(task, name), given.labels[name]) for name in names}
    if head_class(recipe.kind).works_on == "sequences":
        return gather_sequences(store, given.features, tables, task=task, split=given.split, folder=folder)
    with_embeddings = any(part.features != "scores" for part in recipe.parts)
    return gather_rows(
        store,
        given.features,
        tables,
        task=task,
        split=given.split,
        folder=folder,
        with_embeddings=with_embeddings,
    )


def _details(
    given: FitHeadArgs, recipe: TaskRecipe, fitted: "FittedHead", coverage: list[LabelCoverage]
) -> HeadDetails:
    choice, origin = given.choice, given.features.origin
    metric = MAIN_METRIC[choice.task]
    return HeadDetails(
        task=choice.task,
        recipe=choice.recipe.name,
        recipe_version=choice.recipe.version,
        kind=recipe.kind,
        settings=recipe.set_fields(),
        backbone=given.features.backbone,
        source=given.features.source,
        backbone_name=origin.backbone_name,
        weights=origin.weights,
        precision=origin.precision,
        crop_params=origin.crop_params,
        coverage=tuple(coverage),
        figure=metric,
        figures=fitted.figures,
        seed_figures=[seed[metric] for seed in fitted.seed_figures],
        best_epochs=fitted.best_epochs,
        trained_on=given.fitted_on,
        fitted_in=given.precision,
        scores_of=given.scores_of,
        annotations=given.annotations,
        train_subjects=given.split.subjects["train"],
        validation_subjects=given.split.subjects["validation"],
        excluded_subjects=given.split.excluded,
        gate_classes=origin.class_names if choice.has_gate else (),
    )


def provide_zero_shot_heads(store: Store, backbone: "BackboneChoice", params: "CropParams") -> list[Bundle]:
    """Return the heads for a store without fitted heads: the outputs of the backbone. Write them if necessary.

    ``params``: how faces are cropped.

    Raises:
        InputError: the backbone's outputs are neither expressions nor valence and arousal.
    """
    # Fitting does not need the stages that decode videos, which take long to import.
    from models.heads.mlp import zero_shot_heads
    from tasks.extract.crop_faces import source_of

    spec = backbone.spec
    try:
        heads = zero_shot_heads(spec.class_names, spec.embedding_size)
    except ValueError as error:
        raise InputError(f"backbone {backbone.name}: {error}; fit a head on its features") from error
    bundles = []
    for task, head in heads.items():
        head_fingerprint = fingerprint(
            stage="zero_shot_head",
            version=_ZERO_SHOT_VERSION,
            backbone=backbone.variant,
            classes=spec.class_names,
            crop=params,
            # Heads of earlier versions predict expressions.
            **({} if task == "expr" else {"task": task}),
        )
        folder = f"heads/{variant_name(f'{task}-{ZERO_SHOT}', head_fingerprint)}"
        found = find_bundle(store, folder)
        if found is None or found.fingerprint != head_fingerprint:
            details = HeadDetails(
                task=task,
                recipe=ZERO_SHOT,
                backbone=backbone.variant,
                source=source_of(params),
                backbone_name=backbone.name,
                weights=backbone.weights,
                precision=backbone.precision,
                crop_params=params.to_json(),
                coverage=(),
                figure=MAIN_METRIC[task],
                figures={},
                seed_figures=[],
            )
            found = write_bundle(store, folder, head_to_bytes(head), fingerprint=head_fingerprint, details=details)
        bundles.append(found)
    return bundles
