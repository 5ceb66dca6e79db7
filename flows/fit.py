"""Flow ``fit``: labels and features to a head with tuned post-processing, stages 6 to 9."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from data_contracts.challenge.layout import find_data
from data_contracts.files.inputs import reading_inputs
from data_contracts.store.bundles import Bundle, find_bundle
from data_contracts.store.details import LABEL_COVERAGE_COLUMNS, HeadDetails
from data_contracts.vocabulary import SetName
from flows.engine.console import print_line, print_table
from flows.engine.run import Run
from flows.options import takes
from flows.parameters import FitParameters
from models.heads.recipes import RecipeName
from tasks.fit import fit_head, import_labels, predict_outputs, tune_postprocessing
from tasks.fit.subject_features import FeaturesVariant, find_features
from tasks.results.head_scores import score_columns, scores_of


@dataclass(frozen=True)
class Fitted:
    """A head and its post-processing; None if the stage failed."""

    head: Bundle | None
    postprocessing: Bundle | None


def fit_heads(run: Run, requests: Sequence[FitParameters]) -> list[Fitted]:
    """Fit one head per request in parallel, predict outputs of all subjects, and tune the post-processing."""
    jobs = []
    for request in requests:
        variant = find_features(run.store, backbone=request.backbone, source=request.source)
        annotations = find_data(request.annotations).annotations_of(request.task)
        sets: tuple[SetName, ...] = ("train", "validation")
        with reading_inputs(annotations):
            labels = import_labels.plan_import_labels(annotations, task=request.task, sets=sets)
        run.stage(f"import_labels {request.task}", labels, import_labels.compute)
        choice = fit_head.HeadChoice(
            request.task, request.recipe, request.features, request.hidden_units, request.seeds, request.kind
        )
        jobs.append((variant, choice, fit_head.plan_fit_head(run.store, variant, choice)))
    run.jobs("fit_head", [job for _, _, job in jobs], fit_head.make)
    heads = [(variant, find_bundle(run.store, job.folder)) for variant, _, job in jobs]
    tuned = _predict_and_tune(run, [(v, h, r.recipe) for (v, h), r in zip(heads, requests, strict=True) if h])
    fitted = [Fitted(head, tuned.get(head.name) if head else None) for _, head in heads]
    for at, (request, (variant, choice, _)) in enumerate(zip(requests, jobs, strict=True)):
        if request.train_on_validation:
            fitted[at] = _refit_on_all(run, variant, choice, fitted[at])
    return fitted


def _refit_on_all(run: Run, variant: FeaturesVariant, choice: fit_head.HeadChoice, base: Fitted) -> Fitted:
    """Fit the head again on both sets, with the epochs and the post-processing of the first fit."""
    if base.head is None or base.postprocessing is None:
        return base
    job = fit_head.plan_fit_head(run.store, variant, choice, first=base.head)
    run.jobs("fit_head on all", [job], fit_head.make)
    head = find_bundle(run.store, job.folder)
    if head is None:
        return Fitted(None, None)
    adopt = tune_postprocessing.plan_adopt_postprocessing(base.postprocessing, head=head)
    run.jobs("adopt_postprocessing", [adopt], tune_postprocessing.make_adopted)
    return Fitted(head, find_bundle(run.store, adopt.folder))


def _predict_and_tune(
    run: Run, heads: Sequence[tuple[FeaturesVariant, Bundle, RecipeName]]
) -> dict[str, Bundle | None]:
    units = [
        unit
        for variant, head, _ in heads
        for unit in predict_outputs.plan_predict_outputs(run.store, variant, head=head)
    ]
    run.stage("predict_outputs", units, predict_outputs.compute, cheap=True)
    jobs = {
        head.name: tune_postprocessing.plan_tune_postprocessing(
            run.store, head=head, source=variant.source, tuning=recipe
        )
        for variant, head, recipe in heads
    }
    run.jobs("tune_postprocessing", list(jobs.values()), tune_postprocessing.make)
    return {name: find_bundle(run.store, job.folder) for name, job in jobs.items()}


def print_fitted(run: Run, fitted: Sequence[Fitted]) -> None:
    """Print label coverage and the scores of every head."""
    heads = [(HeadDetails.of(f.head), f.postprocessing) for f in fitted if f.head]
    scores = [scores_of(f.head, f.postprocessing) for f in fitted if f.head]
    rows: list[list[object]] = [[head.task, *astuple(coverage)] for head, _ in heads for coverage in head.coverage]
    print_table("Labels", ["task", *(name.replace("_", " ") for name in LABEL_COVERAGE_COLUMNS)], rows)
    rows = []
    columns = score_columns(scores)
    for (head, _), *cells in zip(heads, *columns.values(), strict=True):
        seeds = head.seed_figures
        spread = f"{min(seeds):.3f}..{max(seeds):.3f}" if seeds else "-"
        rows.append([head.task, head.recipe, head.figure, spread, *cells])
    print_table("Validation", ["task", "recipe", "metric", "seeds", *columns], rows)
    for line in (line for one in scores for line in one.notes()):
        print_line(line)
    for one in fitted:
        if one.head:
            print_line(f"head: {run.store.locate(one.head.folder)}")


@takes(FitParameters)
def fit(parameters: FitParameters) -> str:
    """Fit a head for one task and tune its post-processing; return the name of the head."""
    with Run(parameters.store, dask_address=parameters.dask_address, workers=parameters.workers) as run:
        fitted = fit_heads(run, [parameters])
        run.print_summary()
        print_fitted(run, fitted)
        run.raise_for_failures()
    assert fitted[0].head is not None
    return fitted[0].head.name
