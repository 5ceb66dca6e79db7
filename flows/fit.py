"""Flow ``fit``: labels and features to a head with tuned post-processing, stages 6 to 9."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from data_contracts.bundles import Bundle, find_bundle, read_file
from data_contracts.layout import find_data
from data_contracts.vocabulary import SetName, TaskName
from flows.console import print_line, print_table
from flows.run import Run
from tasks import fit_head, import_labels, predict_outputs, tune_postprocessing
from tasks.subject_features import FeaturesVariant, find_features

RecipeName = Literal["paper", "default"]
FeatureKind = Literal["embeddings", "scores", "both"]


@dataclass(frozen=True)
class FitRequest:
    """What to fit, on what.

    Attributes:
        task: ``expr``, ``va``, ``au`` or ``mtl``.
        annotations: the organisers' annotation folder, or a folder that holds it.
        recipe: named setting of everything from features to decisions.
        features: overrides the recipe's features.
        hidden_units: overrides the recipe's hidden layer; 0 is a linear head.
        seeds: overrides the recipe's number of seeds.
        train_on_validation: train on train + validation; the held-out figures are then those of the head
            that was fitted on train alone, and are not given.
        backbone: features variant to use, where the store holds several.
        source: likewise.
    """

    task: TaskName
    annotations: Path
    recipe: RecipeName = "default"
    features: FeatureKind | None = None
    hidden_units: int | None = None
    seeds: int | None = None
    train_on_validation: bool = False
    backbone: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Fitted:
    """A head and its post-processing; None where the stage failed."""

    head: Bundle | None
    postprocessing: Bundle | None


def fit_heads(run: Run, requests: Sequence[FitRequest]) -> list[Fitted]:
    """Fit one head per request, side by side; each gets outputs for all subjects and tuned post-processing."""
    jobs = []
    for request in requests:
        variant = find_features(run.store, backbone=request.backbone, source=request.source)
        annotations = find_data(request.annotations).annotations_of(request.task)
        sets: tuple[SetName, ...] = ("train", "validation")
        labels = import_labels.plan_import_labels(annotations, task=request.task, sets=sets)
        run.stage(f"import_labels {request.task}", labels, import_labels.compute)
        choice = fit_head.HeadChoice(
            request.task,
            request.recipe,
            request.features,
            request.hidden_units,
            request.seeds,
            request.train_on_validation,
        )
        jobs.append((variant, fit_head.plan_fit_head(run.store, variant, choice)))
    run.jobs("fit_head", [job for _, job in jobs], fit_head.make)
    heads = [(variant, find_bundle(run.store, job.folder)) for variant, job in jobs]
    tuned = _predict_and_tune(run, [(v, h, r.recipe) for (v, h), r in zip(heads, requests, strict=True) if h])
    return [Fitted(head, tuned.get(head.name) if head else None) for _, head in heads]


def _predict_and_tune(
    run: Run, heads: Sequence[tuple[FeaturesVariant, Bundle, RecipeName]]
) -> dict[str, Bundle | None]:
    units = [unit for variant, head, _ in heads for unit in predict_outputs.plan_predict_outputs(variant, head=head)]
    run.stage("predict_outputs", units, predict_outputs.compute)
    jobs = {
        head.name: tune_postprocessing.plan_tune_postprocessing(
            run.store, head=head, source=variant.source, tuning=recipe
        )
        for variant, head, recipe in heads
    }
    run.jobs("tune_postprocessing", list(jobs.values()), tune_postprocessing.make)
    return {name: find_bundle(run.store, job.folder) for name, job in jobs.items()}


def print_fitted(run: Run, fitted: Sequence[Fitted]) -> None:
    """Label coverage, and the figures of every head: untuned, tuned, and held out."""
    done = [f for f in fitted if f.head]
    rows = [
        [f.head.details["task"], *(c[name] for name in fit_head.COVERAGE_COLUMNS)]
        for f in done
        for c in f.head.details["coverage"]
    ]
    print_table("Labels", ["task", *(name.replace("_", " ") for name in fit_head.COVERAGE_COLUMNS)], rows)
    rows = []
    for f in done:
        figures = f.postprocessing.details["figures"] if f.postprocessing else {}
        name, seeds = f.head.details["figure"], f.head.details["seed_figures"]
        spread = f"{min(seeds):.3f}..{max(seeds):.3f}" if seeds else "-"
        kinds = [(figures.get(kind) or {}).get(name) for kind in ("untuned", "tuned", "held_out")]
        rows.append([f.head.details["task"], f.head.details["recipe"], name, spread, *kinds])
    header = ["task", "recipe", "figure", "seeds", "untuned", "tuned (optimistic)", "held out (honest)"]
    print_table("Validation", header, rows)
    for f in done:
        print_line(f"head: {run.store.locate(f.head.folder)}")


def read_metrics(run: Run, head: Bundle) -> bytes:
    """The head's own file of figures (JSON)."""
    return read_file(run.store, head, "metrics.json")


@flow(name="fit", flow_run_name="fit {task}")
def fit(
    task: TaskName,
    store: Annotated[str, Field(description="where features are and results go")],
    annotations: Annotated[Path, Field(description="the organisers' annotation folder, or one that holds it")],
    recipe: RecipeName = "default",
    features: FeatureKind | None = None,
    hidden_units: Annotated[int | None, Field(ge=0, description="0 is a linear head")] = None,
    seeds: Annotated[int | None, Field(ge=1, description="how many seeds are averaged")] = None,
    train_on_validation: Annotated[bool, Field(description="train on train + validation")] = False,
    backbone: Annotated[str | None, Field(description="features variant, if the store has several")] = None,
    source: Annotated[str | None, Field(description="faces variant, if the store has several")] = None,
    dask_address: str | None = None,
    workers: Annotated[int | None, Field(ge=1)] = None,
) -> str:
    """Fit a head for one task and tune its post-processing; returns the head's name."""
    request = FitRequest(
        task, annotations, recipe, features, hidden_units, seeds, train_on_validation, backbone, source
    )
    with Run(store, dask_address=dask_address, workers=workers) as run:
        fitted = fit_heads(run, [request])
        run.print_summary()
        print_fitted(run, fitted)
        run.raise_for_failures()
    assert fitted[0].head is not None
    return fitted[0].head.name
