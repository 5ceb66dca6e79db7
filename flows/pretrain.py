"""Flow ``pretrain``: labelled faces to a backbone of one's own (Savchenko 2022, section 2, steps 1 and 2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, validate_call

from data_contracts.challenge.pictures import read_pictures
from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, find_bundle
from data_contracts.store.fingerprint import fingerprint, variant_name
from data_contracts.store.manifest import Manifest, UnitKey
from flows.engine.console import print_line, print_table
from flows.engine.run import Run
from flows.parameters import BackboneName, DaskAddress, Limit, StoreUrl, Workers
from models.pretraining.recipes import Goal, PretrainingName, get_pretraining
from tasks.extract.embed_faces import BackboneChoice
from tasks.pretrain import crop_pictures, pretrain_backbone
from tasks.pretrain.pretrain_backbone import WEIGHTS_FILE, PretrainingChoice

PictureUnits = list[tuple[UnitKey, Manifest]]


@dataclass(frozen=True)
class PretrainRequest:
    """Pictures (labels file or folder of people), and how to train on them; None keeps the recipe's value.

    ``validation``: other pictures to measure on; none holds out a share of the people (or of their pictures).
    """

    goal: Goal
    data: Path
    choice: PretrainingChoice
    validation: Path | None = None
    images: Path | None = None
    limit: int | None = None


def pretrain_backbone_on(run: Run, request: PretrainRequest) -> Bundle | None:
    """Crop the faces that are not cropped yet, then train; the bundle, or None if it failed.

    Raises:
        InputError: no pictures are there, the labels cannot be read, or an untrained person is not among them.
    """
    train = _crops(run, request.data, request)
    validation = _crops(run, request.validation, request) if request.validation else None
    job = pretrain_backbone.plan_pretrain_backbone(train, validation, request.choice)
    job.arguments["report"] = print_line
    run.jobs_here("pretrain_backbone", [job], pretrain_backbone.make)
    return find_bundle(run.store, job.folder)


def _crops(run: Run, data: Path, request: PretrainRequest) -> PictureUnits:
    pictures = read_pictures(data, images=request.images)
    strangers = set(request.choice.untrained) - {picture.identity for picture in pictures}
    if strangers and data == request.data:
        raise InputError(
            f"--untrained: expected people in {data}, no picture there shows {', '.join(sorted(strangers))}"
        )
    pictures = pictures[: request.limit]
    collection = variant_name(data.stem, fingerprint(data=str(data.resolve()), limit=request.limit))
    units = crop_pictures.plan_crop_pictures(pictures, collection=collection)
    run.stage("crop_pictures", units, crop_pictures.compute, remove_others=True)
    known = run.store.manifests("pictures", **dict(units[0].key.partitions))
    return [(u.key, known[u.key]) for u in units if u.key in known and known[u.key].fingerprint == u.fingerprint]


def print_trained(run: Run, bundle: Bundle, choice: PretrainingChoice) -> None:
    """Figures of a trained backbone, and how to use it."""
    figures, coverage = bundle.details["figures"], bundle.details["coverage"]
    rows = [
        [name, coverage["train_pictures_per_class"].get(name, 0), figures["pictures"][name], value]
        for name, value in figures.get("recall", {}).items()
    ]
    if rows:
        print_table("Validation", ["class", "training pictures", "validation pictures", "recall"], rows)
    for name in ("accuracy", "balanced_accuracy", "mean_ccc"):
        if name in figures:
            print_line(f"{name.replace('_', ' ')}: {figures[name]:.3f}")
    if coverage["too_rare"]:
        print_line(f"too rare to learn: {', '.join(f'{n} ({c})' for n, c in coverage['too_rare'].items())}")
    path = run.store.locate(f"{bundle.folder}/{WEIGHTS_FILE}")
    print_line(f"backbone: {path}")
    print_line(f"use it: affwild2 extract DATA --store STORE --backbone {choice.backbone} --weights {path}")


@validate_call
def pretrain(
    goal: Annotated[Goal, Field(description="Identity: who it is (step 1); emotion: expressions (step 2)")],
    data: Annotated[Path, Field(description="CSV file with labels, AffectNet's CSV, or a folder of people")],
    store: StoreUrl,
    backbone: BackboneName = "efficientnet_lite0",
    weights: Annotated[str | None, Field(description="Safetensors file to start from")] = None,
    validation: Annotated[Path | None, Field(description="Pictures to measure on; none holds out people")] = None,
    images: Annotated[Path | None, Field(description="Folder of the pictures that a CSV names")] = None,
    recipe: Annotated[PretrainingName, Field(description="Named setting of the training")] = "default",
    input_px: Annotated[
        int | None, Field(ge=32, le=1024, description="Input size in pixels; none: the backbone's own")
    ] = None,
    valence_arousal: Annotated[bool, Field(description="Train valence and arousal outputs as well")] = False,
    untrained: Annotated[
        list[str] | None, Field(description="People to learn no emotions from; still measured")
    ] = None,
    seed: Annotated[int, Field(description="Of the split, the order and the variations")] = 0,
    limit: Limit = None,
    dask_address: DaskAddress = None,
    workers: Workers = None,
) -> str | None:
    """Train a backbone; interrupted at any moment, the same call goes on from the last checkpoint."""
    if untrained and goal == "identity":
        raise InputError("--untrained: expected the goal emotion, got identity, which is about telling people apart")
    settings = get_pretraining(recipe, goal).replace(valence_arousal=valence_arousal)
    start = BackboneChoice.find(backbone, weights)
    choice = PretrainingChoice(
        start.name, settings, start.weights, input_px, untrained=tuple(sorted(set(untrained or ()))), seed=seed
    )
    with Run(store, dask_address=dask_address, workers=workers) as run:
        request = PretrainRequest(goal, data, choice, validation, images, limit)
        bundle = pretrain_backbone_on(run, request)
        run.print_summary()
        if bundle:
            print_trained(run, bundle, choice)
        run.raise_for_failures()
    return bundle.name if bundle else None
