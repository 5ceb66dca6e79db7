"""Flow ``fit``: labels and features to a head with tuned post-processing, stages 6 to 9."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts.challenge.layout import find_data
from data_contracts.challenge.test_lists import names_in_list
from data_contracts.details.heads import HeadDetails, PostprocessingDetails, label_coverage_columns
from data_contracts.errors import InputError
from data_contracts.files.inputs import reading_inputs
from data_contracts.files.locations import Location
from data_contracts.store.bundles import Bundle
from data_contracts.store.manifest import Manifest, StoredUnit
from data_contracts.vocabulary import SetName, is_simulated
from flows.engine.console import print_line, print_table
from flows.engine.run import Run
from flows.options import takes
from flows.parameters import FitParameters, scheduler_of
from models.decisions.recipes import PostProcessingRecipe
from models.recipes.recipe import Recipe
from tasks.fit import blend_heads as blend_stage
from tasks.fit import fit_head, import_labels, predict_outputs, tune_postprocessing
from tasks.fit.head_selection import find_head
from tasks.fit.subject_features import FeaturesVariant, find_features, frame_rates
from tasks.fit.subject_split import (
    SubjectSplit,
    describe_other_lengths,
    describe_seen,
    seen_subjects,
    split_subjects,
)
from tasks.recipe_files import load_recipe
from tasks.results.head_scores import attainable_column, score_columns, scores_of
from tasks.units import Job, Unit


@dataclass(frozen=True)
class Fitted:
    """A head and its post-processing; None if the stage failed."""

    head: Bundle | None
    postprocessing: Bundle | None


@dataclass(frozen=True)
class _Planned:
    """A request with its recipe, its features and the units of its labels."""

    request: FitParameters
    recipe: Recipe
    variant: FeaturesVariant
    labels: Sequence[Unit[import_labels.ImportLabelsArgs]]
    test_lists: tuple[Location, ...]

    @property
    def annotations(self) -> str:
        """The challenge's folder that the labels are read from."""
        return self.labels[0].arguments.annotations

    @property
    def choice(self) -> fit_head.HeadChoice:
        """What to fit."""
        asked = self.request
        return fit_head.HeadChoice(asked.task, self.recipe, asked.features, asked.hidden_units, asked.seeds, asked.kind)


def fit_heads(run: Run, requests: Sequence[FitParameters]) -> list[Fitted]:
    """Fit one head per request in parallel, predict outputs of all subjects, and tune the post-processing.

    Raises:
        InputError: the features or annotations of a request are missing, ambiguous or unreadable.
    """
    planned = [_plan(run, request) for request in requests]
    jobs = []
    for one in planned:
        run.stage(f"import_labels {one.request.task}", one.labels, import_labels.compute)
        labels = import_labels.imported_labels(run.store, one.labels)
        job = fit_head.plan_fit_head(run.store, one.variant, one.choice, labels=labels, annotations=one.annotations)
        run.is_simulated |= is_simulated(job.folder.removeprefix("heads/"))
        _report_labels(run, one, labels, job.arguments.split)
        jobs.append(job)
    run.jobs("fit_head", jobs, fit_head.make)
    heads = [job.find(run.store) for job in jobs]
    to_tune = [
        _ToTune(
            head,
            one.variant,
            job.arguments.labels["validation"],
            job.arguments.split,
            one.recipe.postprocessing_of(one.request.task),
        )
        for one, job, head in zip(planned, jobs, heads, strict=True)
        if head
    ]
    tuned = _predict_and_tune(run, to_tune)
    fitted = [Fitted(head, tuned.get(head.name) if head else None) for head in heads]
    for at, one in enumerate(planned):
        if one.request.train_on_validation:
            fitted[at] = _refit_on_all(run, one, jobs[at], fitted[at])
    return fitted


def blend_heads(run: Run, request: FitParameters) -> Fitted:
    """Blend fitted heads, predict outputs of all subjects, and tune the post-processing.

    Raises:
        InputError: a named head is unknown or cannot be blended; or see ``fit_heads``.
    """
    members = [find_head(run.store, name, option="--blend") for name in request.blend or ()]
    _check_blend(request, members)
    features = [HeadDetails.of(member) for member in members]
    variants = [find_features(run.store, backbone=one.backbone, source=one.source) for one in features]
    planned = _plan(run, request, variants[0])
    run.stage(f"import_labels {request.task}", planned.labels, import_labels.compute)
    labels = import_labels.imported_labels(run.store, planned.labels)
    split = split_subjects(labels, task=request.task, known=variants[0].subjects)
    _report_labels(run, planned, labels, split)
    validation = sorted(split.validation().values())
    units = [
        predict_outputs.plan_predict_outputs(run.store, variant, head=member, subjects=validation)
        for variant, member in zip(variants, members, strict=True)
    ]
    run.stage("predict_outputs of members", [unit for of in units for unit in of], predict_outputs.compute, cheap=True)
    outputs = [predict_outputs.predicted_outputs(run.store, of) for of in units]
    recipe = planned.recipe.postprocessing_of(request.task)
    job = blend_stage.plan_blend_heads(
        members, outputs, labels=labels["validation"], split=split, recipe=recipe, annotations=planned.annotations
    )
    run.is_simulated |= is_simulated(job.folder.removeprefix("heads/"))
    run.jobs("blend_heads", [job], blend_stage.make)
    head = job.find(run.store)
    if head is None:
        return Fitted(None, None)
    tuned = _predict_and_tune(run, [_ToTune(head, variants[0], labels["validation"], split, recipe, outputs)])
    header = ["member", "features", "weights", "validation subjects", "frames", "frames without outputs"]
    rows = blend_stage.describe_coverage(head, job.arguments.outputs)
    print_table("Blend", header, rows, simulated=run.is_simulated)
    return Fitted(head, tuned[head.name])


def _check_blend(request: FitParameters, members: Sequence[Bundle]) -> None:
    blend_stage.check_members(request.task, members)
    others = ("features", "hidden_units", "seeds", "kind", "features_variant", "source")
    given = [name for name in others if getattr(request, name) is not None]
    if request.train_on_validation:
        given.append("train_on_validation")
    if given:
        option = given[0].replace("_", "-")
        raise InputError(f"--blend: the named heads are blended as they are; leave out --{option}")


def _plan(run: Run, request: FitParameters, variant: FeaturesVariant | None = None) -> _Planned:
    recipe = load_recipe(request.recipe)
    if request.task not in recipe.tasks:
        raise InputError(f"{request.recipe}: expected a table [{request.task}], found {', '.join(recipe.tasks)}")
    if variant is None:
        variant = find_features(run.store, backbone=request.features_variant, source=request.source)
    if line := variant.describe_incomplete():
        print_line(line)
    layout = find_data(request.annotations)
    annotations = layout.annotations_of(request.task)
    sets: tuple[SetName, ...] = ("train", "validation")
    with reading_inputs(annotations):
        labels = import_labels.plan_import_labels(annotations, task=request.task, sets=sets)
        import_labels.check_new_labels(run.store, labels)
    return _Planned(request, recipe, variant, labels, layout.test_lists.get(request.task, ()))


def _report_labels(run: Run, planned: _Planned, labels: Mapping[SetName, Manifest], split: SubjectSplit) -> None:
    """Print which annotations are used, and which test subjects they contain."""
    task = planned.request.task
    account = import_labels.account_of_labels(run.store, planned.labels)
    for set_name, line in split.describe_respelled().items():
        account.note(f"{set_name}: {line}")
    for set_name, manifest in labels.items() if task != "mtl" else ():
        unit = StoredUnit(import_labels.labels_key(task, set_name), manifest)
        if line := describe_other_lengths(run.store, unit, split.names[set_name], planned.variant):
            account.note(f"{set_name}: {line}")
    run.report_inputs(account)
    for path in planned.test_lists:
        for set_name, subjects in split.subjects.items():
            if shared := seen_subjects(names_in_list(path), subjects):
                print_line(describe_seen(shared, place=str(path), others=f"the {set_name} set of {task}"))


def _refit_on_all(run: Run, planned: _Planned, first: Job[fit_head.FitHeadArgs], base: Fitted) -> Fitted:
    """Fit the head again on both sets, with the epochs and the post-processing of the first fit."""
    if base.head is None or base.postprocessing is None:
        return base
    labels = first.arguments.labels
    job = fit_head.plan_fit_head(
        run.store,
        planned.variant,
        planned.choice,
        labels=labels,
        annotations=planned.annotations,
        first=base.head,
    )
    run.jobs("fit_head on all", [job], fit_head.make)
    head = job.find(run.store)
    if head is None:
        return Fitted(None, None)
    adopt = tune_postprocessing.plan_adopt_postprocessing(base.postprocessing, head=head)
    run.jobs("adopt_postprocessing", [adopt], tune_postprocessing.make_adopted)
    return Fitted(head, _current(run, adopt))


@dataclass(frozen=True)
class _ToTune:
    """A head, the features to predict with it, and the labels and recipe to tune its post-processing with.

    ``members``: of a blend, subject -> outputs of each member.
    """

    head: Bundle
    variant: FeaturesVariant
    labels: Manifest
    split: SubjectSplit
    recipe: PostProcessingRecipe
    members: Sequence[Mapping[str, StoredUnit]] = ()


def _predict_and_tune(run: Run, heads: Sequence[_ToTune]) -> dict[str, Bundle | None]:
    """Predict the outputs of all subjects, and tune the post-processing of each head; return it by name of the head."""
    units = {
        one.head.name: predict_outputs.plan_predict_outputs(run.store, one.variant, head=one.head) for one in heads
    }
    everything = [unit for of_head in units.values() for unit in of_head]
    run.stage("predict_outputs", everything, predict_outputs.compute, cheap=True)
    rates = frame_rates(run.store, {unit.key.value("subject") for unit in everything})
    jobs = {
        one.head.name: tune_postprocessing.plan_tune_postprocessing(
            head=one.head,
            outputs=predict_outputs.predicted_outputs(run.store, units[one.head.name]),
            labels=one.labels,
            split=one.split,
            recipe=one.recipe,
            frames_per_second=rates,
            members=one.members,
        )
        for one in heads
    }
    run.jobs("tune_postprocessing", list(jobs.values()), tune_postprocessing.make)
    return {name: _current(run, job) for name, job in jobs.items()}


def _current(run: Run, job: Job[Any]) -> Bundle | None:
    """Return the post-processing of a job, and remove those that it supersedes."""
    if rule := job.find(run.store):
        tune_postprocessing.remove_superseded(run.store, rule)
    return rule


def print_fitted(run: Run, fitted: Sequence[Fitted]) -> None:
    """Print label coverage and the scores of every head."""
    heads = [(HeadDetails.of(f.head), f.postprocessing) for f in fitted if f.head]
    scores = [scores_of(f.head, f.postprocessing) for f in fitted if f.head]
    coverage = [(head.task, one) for head, _ in heads for one in head.coverage]
    simulated = any(head.is_simulated for head, _ in heads)
    shown = label_coverage_columns(one for _, one in coverage)
    rows: list[list[object]] = [[task, *(getattr(one, name) for name in shown)] for task, one in coverage]
    print_table("Labels", ["task", *(name.replace("_", " ") for name in shown)], rows, simulated=simulated)
    rows = []
    columns = score_columns(scores) | attainable_column(run.store, [f.head for f in fitted if f.head])
    for (head, _), *cells in zip(heads, *columns.values(), strict=True):
        seeds = head.seed_figures
        spread = f"{min(seeds):.3f}..{max(seeds):.3f}" if seeds else "-"
        rows.append([head.task, head.recipe, head.figure, spread, *cells])
    print_table("Validation", ["task", "recipe", "metric", "seeds", *columns], rows, simulated=simulated)
    for line in (line for one in scores for line in one.notes()):
        print_line(line)
    for head, rule in heads:
        for line in _lines_about_rows(head, rule):
            print_line(line)
    for one in fitted:
        if one.head:
            print_line(f"head: {run.store.locate(one.head.folder)}")


def _lines_about_rows(head: HeadDetails, rule: Bundle | None) -> Iterator[str]:
    """Yield lines about validation rows that scores do not depend on, or that have no output of their own."""
    if head.excluded_subjects:
        place = f"the validation set of {head.task}"
        shared = describe_seen(head.excluded_subjects, place=place, others="the training set")
        yield f"{shared}; their rows are excluded from epochs, thresholds and scores"
    rows = PostprocessingDetails.of(rule) if rule else None
    if rows and rows.scored_without_face:
        yield (
            f"note: {head.task}: {rows.scored_without_face:,} of {rows.scored_rows:,} scored validation rows show no "
            "face; they are scored by interpolated outputs"
        )
    if rows and rows.excluded_without_face:
        yield (
            f"note: {head.task}: {rows.excluded_without_face:,} labelled validation rows show no face; they are "
            "excluded from thresholds and scores"
        )


@takes(FitParameters)
def fit(parameters: FitParameters) -> str:
    """Fit a head for one task, or blend some, and tune its post-processing; return the name of the head."""
    with Run(
        parameters.store, dask_address=scheduler_of(parameters), workers=parameters.workers, may_be_new=False
    ) as run:
        fitted = [blend_heads(run, parameters)] if parameters.blend else fit_heads(run, [parameters])
        run.print_summary()
        print_fitted(run, fitted)
        run.print_counts()
        run.raise_for_failures()
    assert fitted[0].head is not None
    return fitted[0].head.name
