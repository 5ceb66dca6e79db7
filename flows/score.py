"""Flow ``score``: predict every frame of any video, with stored heads or the classes of the bundled backbone."""

from collections.abc import Mapping, Sequence

from data_contracts.challenge.videos import VideoListing, list_videos
from data_contracts.errors import InputError, counted
from data_contracts.files.locations import Location
from data_contracts.store.bundles import Bundle
from data_contracts.store.details import HeadDetails, InputsDetails
from data_contracts.store.store import Store
from data_contracts.vocabulary import MissingFaces
from flows.engine.console import print_line, print_table
from flows.engine.run import Run
from flows.extract import Extracted, extract_videos, report_videos
from flows.options import takes
from flows.parameters import DEFAULT_BACKBONE, RescoreParameters, ScoreParameters
from tasks.extract.crop_faces import crop_params_of
from tasks.extract.embed_faces import BackboneChoice
from tasks.fit import predict_outputs
from tasks.fit.fit_head import provide_zero_shot_head
from tasks.fit.head_selection import ServingHead, select_heads
from tasks.fit.subject_features import find_features
from tasks.results.prediction_folder import DESCRIPTION, describe_others
from tasks.results.write_predictions import write_predictions


def score_videos(
    run: Run,
    videos: Mapping[str, Location],
    *,
    heads: Sequence[ServingHead],
    missing_faces: MissingFaces,
    out: Location,
) -> list[Location]:
    """Extract missing features of videos (stem -> file), and predict with each head the branches that it serves.

    Write one Parquet and one CSV file per subject; return their locations. Videos with missing results, because of a
    failure or a quarantine, keep their existing predictions.
    """
    extracted: dict[str, Extracted] = {}
    for group in _by_features([one.head for one in heads]).values():
        extracted |= dict.fromkeys((head.name for head in group), _extract_for(run, group[0], videos))
    complete = set(videos).intersection(*(found.complete for found in extracted.values()))
    units = []
    for head in (one.head for one in heads) if complete else ():
        variant = find_features(run.store, backbone=HeadDetails.of(head).backbone, source=extracted[head.name].source)
        units += predict_outputs.plan_predict_outputs(run.store, variant, head=head, subjects=sorted(complete))
    run.stage("predict_outputs", units, predict_outputs.compute, cheap=True)
    chosen = [(one, extracted[one.head.name].source) for one in heads]
    return write_predictions(run.store, sorted(complete), heads=chosen, missing_faces=missing_faces, out=out)


def _extract_for(run: Run, head: Bundle, videos: Mapping[str, Location]) -> Extracted:
    """Extract features with the settings that the head was fitted with; faces are always detected in the videos."""
    details = HeadDetails.of(head)
    params = crop_params_of(details.crop_params)
    backbone = BackboneChoice(details.backbone_name, details.weights, details.precision or "float32")
    if backbone.variant != details.backbone:
        raise InputError(
            f"head {head.name}: expected one fitted on features of this version ({backbone.variant}), got one fitted "
            f"on {details.backbone}; run extract and fit again"
        )
    return extract_videos(run, videos, params=params, backbone=backbone, people={})


def choose_heads(run: Run, parameters: ScoreParameters | RescoreParameters) -> list[ServingHead]:
    """Return the heads that serve a request, or the zero-shot head if no head was fitted.

    Raises:
        InputError: see ``select_heads``.
    """
    selected = select_heads(run.store, parameters.heads, postprocessings=parameters.postprocessings)
    if selected:
        return selected
    return [ServingHead(provide_zero_shot_head(run.store, BackboneChoice(DEFAULT_BACKBONE)), ("expr",))]


def _by_features(heads: Sequence[Bundle]) -> dict[tuple[str, str], list[Bundle]]:
    groups: dict[tuple[str, str], list[Bundle]] = {}
    for head in heads:
        details = HeadDetails.of(head)
        groups.setdefault((details.backbone, details.source), []).append(head)
    return groups


def find_videos(paths: Sequence[Location]) -> VideoListing:
    """Return the videos among files and below folders.

    Raises:
        InputError: a path does not exist, or there is no video; or S3 does not answer.
    """
    listing = list_videos(paths)
    if not (listing.videos or listing.same_names):
        _, *skipped = InputsDetails.of_account(listing.account).format_lines()
        but = f"; {skipped[0]}" if skipped else ""
        raise InputError(f"{paths[0]}: expected video files here or in folders below, found none{but}")
    return listing


@takes(ScoreParameters)
def score(parameters: ScoreParameters) -> list[str]:
    """Predict every frame of any video; write Parquet and CSV files with the time in seconds."""
    store, out = parameters.store or str(parameters.out / "store"), parameters.out
    # A wrong path ends the run before the store is created.
    listing = find_videos(parameters.videos)
    with Run(store, dask_address=parameters.dask_address, workers=parameters.workers) as run:
        report_videos(run, listing)
        heads, missing_faces, written = choose_heads(run, parameters), parameters.missing_faces, []
        if listing.videos:
            written = score_videos(run, listing.videos, heads=heads, missing_faces=missing_faces, out=out)
        run.print_summary()
        if written:
            print_table("Predictions", ["file"], [[path] for path in written])
        described = f"; {DESCRIPTION} there describes their columns and heads" if written else ""
        print_line(f"{counted(len(written), 'file')} in {out}{described}")
        if others := describe_others(Store(out)):
            print_line(others)
        run.raise_for_failures()
    return [str(path) for path in written]
