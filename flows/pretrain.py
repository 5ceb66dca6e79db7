"""Flow ``pretrain``: train a backbone on labelled faces (Savchenko 2022, section 2, steps 1 and 2)."""

import logging
from dataclasses import replace
from pathlib import Path

from data_contracts.challenge.pictures import PictureListing, read_pictures
from data_contracts.details.backbones import BackboneDetails
from data_contracts.errors import InputError, first_names
from data_contracts.store.bundles import Bundle
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import StoredUnit
from data_contracts.store.store import Store
from flows.engine.console import print_line, print_table
from flows.engine.run import Run
from flows.options import takes
from flows.parameters import PretrainParameters, scheduler_of
from models.pretraining.recipes import get_pretraining
from tasks.backbones import WEIGHTS_FILE, BackboneChoice
from tasks.pretrain import crop_pictures, pretrain_backbone
from tasks.pretrain.pretrain_backbone import PretrainingChoice
from tasks.units import stored_units


def pretrain_backbone_on(run: Run, request: PretrainParameters, choice: PretrainingChoice) -> Bundle | None:
    """Crop missing faces, then train. Return the bundle, or None if training failed.

    Raises:
        InputError: no pictures, unreadable labels, or an untrained person without a picture.
    """
    # Both sets are read before the first picture is decoded.
    listing = _read(request.data, request)
    validation_listing = _read(request.validation, request) if request.validation else None
    train, people = _crops(run, request.data, listing, request)
    validation = None
    if request.validation and validation_listing:
        validation, validation_people = _crops(run, request.validation, validation_listing, request)
        shared = sorted(people & validation_people) if choice.recipe.goal == "emotion" else []
        if shared:
            print_line(
                f"warning: people of {request.validation} that are in {request.data} too: "
                f"{first_names(shared)} ({len(shared):,}); their validation pictures are excluded",
                level=logging.WARNING,
            )
        choice = replace(choice, excluded=tuple(shared))
    job = pretrain_backbone.plan_pretrain_backbone(train, validation, choice, report=print_line)
    run.jobs("pretrain_backbone", [job], pretrain_backbone.make, here=True)
    return job.find(run.store)


def _read(data: Path, request: PretrainParameters) -> PictureListing:
    listing = read_pictures(data, images=request.images)
    unknown = set(request.untrained or ()) - {picture.identity for picture in listing.pictures}
    if unknown and data == request.data:
        raise InputError(f"--untrained: expected people in {data}, found no picture of {', '.join(sorted(unknown))}")
    return listing


def _crops(
    run: Run, data: Path, listing: PictureListing, request: PretrainParameters
) -> tuple[list[StoredUnit], set[str]]:
    """Crop missing faces; return the units of all pictures, and the names of the people."""
    run.report_inputs(listing.account)
    pictures = listing.pictures[: request.limit]
    collection = variant_name(data.stem, fingerprint(data=str(data.resolve()), limit=request.limit))
    partitions = {"source": crop_pictures.source_of(), "collection": collection}
    known = run.store.manifests("pictures", **partitions)
    units = crop_pictures.plan_crop_pictures(pictures, collection=collection, known=known)
    run.stage("crop_pictures", units, crop_pictures.compute, remove_others=True)
    stored = list(stored_units(run.store, units).values())
    return stored, {picture.identity for picture in pictures if picture.identity}


def print_trained(run: Run, bundle: Bundle) -> None:
    """Print the scores of a trained backbone, and how to use it."""
    details = BackboneDetails.of(bundle)
    figures, coverage = details.figures, details.coverage
    rows = [
        [name, coverage.train_pictures_per_class.get(name, 0), (figures.pictures or {})[name], value]
        for name, value in (figures.recall or {}).items()
    ]
    if rows:
        print_table("Validation", ["class", "training pictures", "validation pictures", "recall"], rows)
    for name in ("accuracy", "balanced_accuracy", "mean_ccc"):
        if (value := getattr(figures, name)) is not None:
            print_line(f"{name.replace('_', ' ')}: {value:.3f}")
    if coverage.too_rare:
        print_line(f"too rare to learn: {', '.join(f'{n} ({c})' for n, c in coverage.too_rare.items())}")
    path = run.store.locate(f"{bundle.folder}/{WEIGHTS_FILE}")
    print_line(f"backbone: {path}")
    print_line(f"use it: affwild2 extract DATA --store {run.store.url} --backbone {bundle.name}")


@takes(PretrainParameters)
def pretrain(parameters: PretrainParameters) -> str | None:
    """Train a backbone. An interrupted run continues from the last checkpoint."""
    if parameters.untrained and parameters.goal == "identity":
        raise InputError("--untrained: expected the goal emotion, got identity, which must distinguish all people")
    if parameters.images and not any(one and one.is_file() for one in (parameters.data, parameters.validation)):
        raise InputError(
            f"--images: expected a CSV file that names these pictures, got {parameters.data}; leave the option out"
        )
    settings = get_pretraining(parameters.recipe, parameters.goal)
    settings = settings.replace(valence_arousal=parameters.valence_arousal)
    store = Store(parameters.store)
    start = BackboneChoice.find(parameters.backbone, parameters.weights, store=store)
    start.check(store)
    choice = PretrainingChoice(
        start.name,
        settings,
        start.weights,
        parameters.input_px,
        untrained=tuple(sorted(set(parameters.untrained or ()))),
        seed=parameters.seed,
    )
    with Run(parameters.store, dask_address=scheduler_of(parameters), workers=parameters.workers) as run:
        bundle = pretrain_backbone_on(run, parameters, choice)
        run.print_summary()
        if bundle:
            print_trained(run, bundle)
        run.print_counts()
        run.raise_for_failures()
    return bundle.name if bundle else None
