"""Score images: find their faces, compute features and outputs, and write their predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from data_contracts.errors import InputError, counted, first_names
from data_contracts.files.inputs import reading_inputs
from data_contracts.files.locations import Location
from data_contracts.store.manifest import Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from flows.engine.console import print_line
from flows.engine.run import Run
from flows.engine.stage_summary import StageSummary
from tasks.backbones import BackboneChoice
from tasks.extract.crop_faces import CropParams
from tasks.fit.head_selection import ServingHead
from tasks.fit.predictors import Predictor
from tasks.images import embed_images, image_faces, image_features, image_outputs
from tasks.images.write_images import ImageBlock, WrittenImages, write_images
from tasks.results.prediction_folder import IMAGES_TABLE, prediction_files
from tasks.units import Unit, stored_units

_Outputs = tuple[ServingHead, UnitKey, Manifest]


def score_images(
    run: Run, images: Mapping[str, Location], *, predictors: Sequence[Predictor], keep_crops: bool, out: Location
) -> WrittenImages:
    """Predict every face of images (path -> file) with each head, and write the table of images.

    Crops are used where the store has them; ``keep_crops``: also store them for other images. Images of blocks that
    failed keep their existing predictions. Blocks may hold images that were deleted or replaced since, or that are not
    requested; their problems are not reported.

    Raises:
        InputError: the heads were fitted on faces that were found with different settings.
    """
    params = replace(_params_of(predictors), keep_crops=keep_crops)
    with reading_inputs(*images.values()):
        planned = image_faces.plan_image_faces(run.store, images, params)
    images_of: dict[str, list[str]] = {}
    for path, unit in planned.of_images.items():
        images_of.setdefault(unit.key.value("block"), []).append(path)
    cropped = [unit for unit in planned.units if unit.arguments.params.keep_crops]
    others = [unit for unit in planned.units if not unit.arguments.params.keep_crops]
    if cropped:
        _keep_problems_of(images_of, run.stage("image_faces", cropped, image_faces.compute))
    if cropped and not keep_crops:
        count = sum(unit.arguments.params.keep_crops for unit in planned.of_images.values())
        print_line(f"note: {counted(count, 'image')}: the crops that the store has are used")
    outputs: dict[str, list[_Outputs]] = {}
    ready = {
        backbone.variant: _features_of(run, cropped, others, backbone, images_of)
        for backbone in dict.fromkeys(one.backbone for predictor in predictors for one in predictor.features)
    }
    for predictor in predictors:
        for serving in predictor.heads:
            units = image_outputs.plan_image_outputs(run.store, ready, serving.head)
            run.stage("image_outputs", units, image_outputs.compute, cheap=True)
            for block, (key, manifest) in _by_block(run.store, units).items():
                outputs.setdefault(block, []).append((serving, key, manifest))
    faces = _by_block(run.store, cropped) | _by_block(run.store, others)
    heads = sum(len(predictor.heads) for predictor in predictors)
    blocks = [
        ImageBlock(tuple(images_of[block]), faces[block], tuple(found))
        for block, found in outputs.items()
        if len(found) == heads
    ]
    written, damaged = write_images(run.store, Store(out), blocks)
    run.add_failures("write_images", damaged)
    return written


def _features_of(
    run: Run,
    cropped: Sequence[Unit[image_faces.ImageFacesArgs]],
    others: Sequence[Unit[image_faces.ImageFacesArgs]],
    backbone: BackboneChoice,
    images_of: Mapping[str, Sequence[str]],
) -> dict[str, StoredUnit]:
    """Compute features from stored crops, and from the ``others`` without storing crops; return units by block."""
    features: dict[str, StoredUnit] = {}
    if cropped:
        units = image_features.plan_image_features(list(_by_block(run.store, cropped).values()), backbone)
        run.stage("image_features", units, image_features.compute)
        features |= _by_block(run.store, units)
    if others:
        embedding = embed_images.plan_embed_images(run.store, others, backbone)
        _keep_problems_of(images_of, run.stage("embed_images", embedding, embed_images.compute))
        features |= _by_block(run.store, embedding)
    return features


def _keep_problems_of(images_of: Mapping[str, Sequence[str]], summary: StageSummary) -> None:
    """Remove the problems of images that are not requested from a stage, whose units are named by their blocks."""
    for problems in (summary.problems, summary.known_problems):
        kept = [(name, line) for name, line in problems if line.startswith(tuple(f"{p}: " for p in images_of[name]))]
        named = {name for name, _ in kept}
        # The last of many lines counts those that are left out.
        problems[:] = [one for one in problems if one in kept or (one[0] in named and one[1].startswith("... and "))]


def _params_of(predictors: Sequence[Predictor]) -> CropParams:
    """Return how faces are found in images: as for the heads, but every image is searched as a whole.

    Blends have the faces of their first member.
    """
    found = {_whole(one.crop_params): one for one in predictors}
    for predictor in predictors:
        if any(_whole(one.crop_params) != _whole(predictor.crop_params) for one in predictor.features):
            print_line(
                "note: members of blends were fitted on faces that were found with other settings; the faces of images "
                f"are those of the first member of {predictor.heads[0].head.name}"
            )
    if len(found) > 1:
        names = "; ".join(", ".join(head.head.name for head in one.heads) for one in found.values())
        raise InputError(
            f"heads: expected heads on faces that were found with the same settings, to predict images, got {names}; "
            "choose among them with --head"
        )
    return next(iter(found))


def _whole(params: CropParams) -> CropParams:
    """Return the parameters for images, each of which is searched as a whole."""
    return replace(params, detector=replace(params.detector, search_every_frames=1))


def _by_block(store: Store, units: Sequence[Unit[Any]]) -> dict[str, StoredUnit]:
    """Return the planned units that exist, by block."""
    return {key.value("block"): unit for key, unit in stored_units(store, units).items()}


def image_files(images: WrittenImages, out: Location) -> list[Location]:
    """Return the paths of the predictions of images, if there are any."""
    has_rows = images.scored or images.up_to_date or images.unreadable
    return [out / name for name in prediction_files(IMAGES_TABLE)] if has_rows else []


def print_images(images: WrittenImages, out: Location) -> None:
    """Print how many images and faces there are, where their predictions are, and which are of other heads."""
    count = len(images.scored) + len(images.up_to_date)
    if count:
        what = f"{counted(count, 'image')} with {counted(images.faces, 'face')}"
        print_line(f"{what}: {out}/{IMAGES_TABLE}.csv and .parquet")
    if images.replaces_damaged:
        print_line(
            f"note: {out}/{IMAGES_TABLE}.parquet could not be read and was written anew, with the images of this run "
            "alone; score the others again"
        )
    if others := images.other_heads:
        print_line(
            f"note: {counted(len(others), 'other image')} in these files with predictions of other heads "
            f"({first_names(others)}); score them again, or choose another --out"
        )
