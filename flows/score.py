"""Flow ``score``: predict every frame of any video, and images, with stored heads or the outputs of a backbone."""

from collections.abc import Collection, Mapping, Sequence

from data_contracts.challenge.pictures import MediaListing, list_media
from data_contracts.errors import InputError, counted
from data_contracts.files.local import check_output_folder
from data_contracts.files.locations import Location
from data_contracts.store.store import Store
from data_contracts.vocabulary import People
from flows.engine.console import print_line, print_result, print_table
from flows.engine.run import Run
from flows.engine.run_counts import SortedInputs
from flows.extract import Extracted, extract_everyone, extract_videos, find_cropped, index, report_videos
from flows.options import takes
from flows.parameters import RescoreParameters, ScoreParameters, scheduler_of
from flows.scoring.annotate import annotate_videos, describe_outdated
from flows.scoring.images import image_files, print_images, score_images
from flows.scoring.persons import print_persons, summarize_folder
from flows.scoring.result import ScoredVideos, describe_run
from models.backbones.registry import DEFAULT_BACKBONE
from tasks.backbones import BackboneChoice
from tasks.extract.index_videos import IndexedVideo
from tasks.fit import predict_outputs, predict_persons
from tasks.fit.head_selection import ServingHead
from tasks.fit.predictors import FaceFeatures, Predictor, PredictorRequest, choose_predictors
from tasks.fit.stored_heads import members_of
from tasks.fit.subject_features import find_features
from tasks.images.write_images import WrittenImages
from tasks.results.prediction_folder import (
    DESCRIPTION,
    PredictionRecord,
    describe_others,
    describe_rewritten,
    read_record,
)
from tasks.results.write_predictions import write_predictions


def score_videos(
    run: Run,
    videos: Mapping[str, Location],
    parameters: ScoreParameters | RescoreParameters,
    *,
    predictors: Sequence[Predictor],
) -> list[Location]:
    """Extract missing features of videos (stem -> file), and predict with each head the branches that it serves.

    Write one Parquet and one CSV file per video, and a copy with annotations if requested; return their locations.
    Videos with missing results, because of a failure or a quarantine, keep their existing predictions. Crops are used
    where the store has them; ``parameters.crops``: also store them for other videos.
    """
    people, out = parameters.people, parameters.out
    if people == "all":
        # Persons are those of one set of faces.
        first = predictors[0]
        if any(one.crop_params != first.crop_params for predictor in predictors for one in predictor.features):
            print_line(
                "note: the heads were fitted on faces that were detected with other settings; the persons are those "
                f"of {first.heads[0].head.name}; --people main detects the faces of each head"
            )
        predictors = [one.on_faces(first.crop_params) for one in predictors]
    indexed = index(run, videos)
    cropped = frozenset(indexed)
    if not parameters.crops:
        found_with = {one.crop_params for predictor in predictors for one in predictor.features}
        cropped = find_cropped(run, indexed, found_with)
        if cropped:
            print_line(f"note: {counted(len(cropped), 'video')}: the crops that the store has are used")
    paths: list[Location] = []
    for names in (cropped, indexed.keys() - cropped):
        if names:
            some = {name: indexed[name] for name in sorted(names)}
            of_names = [one.with_crops(names is cropped) for one in predictors]
            heads, complete = _predict(run, some, of_names, people)
            written = write_predictions(
                run.store,
                sorted(complete),
                heads=heads,
                people=people,
                missing_faces=parameters.missing_faces,
                out=out,
            )
            paths += written.paths
            run.add_failures("write_predictions", written.failures)
    return [*paths, *(annotate_videos(run, videos, out=out) if parameters.annotate else [])]


def _predict(
    run: Run, videos: Mapping[str, IndexedVideo], predictors: Sequence[Predictor], people: People
) -> tuple[list[tuple[ServingHead, str]], set[str]]:
    """Extract missing features and predict; return each head with its faces variant, and the complete videos."""
    of_subjects = people == "main"
    extracted = {
        one: extract_videos(
            run, videos, params=one.crop_params, backbone=one.backbone, subjects={}, of_subjects=of_subjects
        )
        for one in dict.fromkeys(one for predictor in predictors for one in predictor.features)
    }
    predict = _predict_subjects if of_subjects else _predict_persons
    complete = predict(run, predictors, extracted)
    heads = [(head, extracted[one.features[0]].source) for one in predictors for head in one.heads]
    return sorted(heads, key=_by_name), {*videos} & complete


def _predict_subjects(
    run: Run, predictors: Sequence[Predictor], extracted: Mapping[FaceFeatures, Extracted]
) -> frozenset[str]:
    """Predict the subjects of videos; return those with all features."""
    complete = frozenset[str].intersection(*(one.complete for one in extracted.values()))
    units = []
    for predictor in predictors if complete else ():
        made = {one: extracted[one] for one in predictor.features}
        variants = {f: find_features(run.store, backbone=one.backbone, source=one.source) for f, one in made.items()}
        for one in predictor.heads:
            members = members_of(run.store, one.head)
            units += predict_outputs.plan_predict_outputs(
                run.store,
                variants[predictor.features[0]],
                head=one.head,
                subjects=sorted(complete),
                members={member.name: variants[predictor.features_of(member)] for member in members},
            )
    run.stage("predict_outputs", units, predict_outputs.compute, cheap=True)
    return complete


def _predict_persons(
    run: Run, predictors: Sequence[Predictor], extracted: Mapping[FaceFeatures, Extracted]
) -> frozenset[str]:
    """Predict the persons of videos; return the videos with all features."""
    everyone = {of.backbone: extract_everyone(run, of, one.backbone) for one, of in extracted.items()}
    complete = frozenset[str].intersection(*(one.videos for one in everyone.values()))
    source = next(iter(extracted.values())).source
    subjects = [one for one in next(iter(everyone.values())).subjects if one.video in complete]
    units = predict_persons.plan_predict_persons(
        run.store,
        subjects,
        source=source,
        others={variant: one.others for variant, one in everyone.items()},
        heads=[one.head for predictor in predictors for one in predictor.heads],
    )
    run.stage("predict_persons", units, predict_persons.compute, cheap=True)
    return complete


def count_scored(
    run: Run,
    videos: Collection[str],
    *,
    before: Mapping[str, PredictionRecord],
    after: Mapping[str, PredictionRecord],
    waiting: int = 0,
    images: WrittenImages | None = None,
) -> SortedInputs:
    """Count videos and images by result; videos are scored whose record of predictions has changed.

    ``waiting``: number of other videos.
    """
    images = images or WrittenImages()
    done = [*(name for name in videos if after.get(name) != before.get(name)), *images.scored]
    names = [*videos, *images.scored, *images.up_to_date]
    noun = "video" if not (images.unreadable or len(names) > len(videos)) else "file" if videos else "image"
    failed = images.unreadable
    return run.count_inputs([*names, *failed], noun=noun, verb="scored", done=done, failed=failed, waiting=waiting)


def _by_name(head: tuple[ServingHead, str]) -> str:
    return head[0].head.name


def check_named_backbone(parameters: ScoreParameters | RescoreParameters, store: str) -> None:
    """Open the weights that a request names, before a store is created.

    Raises:
        InputError: the backbone is unknown, or the file is not a safetensors file.
    """
    if parameters.backbone or parameters.weights:
        BackboneChoice.find(parameters.backbone or DEFAULT_BACKBONE, parameters.weights, store=Store(store))


def predictors_of(run: Run, parameters: ScoreParameters | RescoreParameters) -> list[Predictor]:
    """Choose what predicts, and open all of it, before a video is decoded.

    Raises:
        InputError: see ``choose_predictors``.
    """
    request = PredictorRequest(parameters.heads, parameters.postprocessings, parameters.backbone, parameters.weights)
    return choose_predictors(run.store, request)


def print_predictors(predictors: Sequence[Predictor]) -> None:
    """Print which heads and backbones were used, and why."""
    rows: list[list[object]] = []
    for predictor in predictors:
        for one in predictor.heads:
            rule = one.postprocessing.name if one.postprocessing else "none: decisions are not tuned"
            rows.append([", ".join(one.branches), one.head.name, one.why, rule])
    print_table("Heads", ["tasks", "head", "why", "post-processing"], rows)
    used = {one.backbone: predictor.why for predictor in predictors for one in predictor.features}
    for backbone, why in used.items():
        print_line(f"backbone: {backbone.name} ({backbone.weights or 'bundled weights'}): {why}")
    unused = {name: what for predictor in predictors for name, what in predictor.unused.items()}
    for name, what in unused.items():
        print_line(f"note: head {name} was not used: it was fitted on {what}")


def find_media(paths: Sequence[Location]) -> MediaListing:
    """Return the videos and images among files and in folders.

    Raises:
        InputError: a path does not exist, or there is neither a video nor an image; or S3 does not answer.
    """
    listing = list_media(paths)
    if not (listing.videos.videos or listing.videos.same_names or listing.images):
        skipped = (listing.account or listing.videos.account).describe_first()
        raise InputError(f"{paths[0]}: expected video files or images here or in folders below, found none{skipped}")
    return listing


@takes(ScoreParameters)
def score(parameters: ScoreParameters) -> list[str]:
    """Predict every frame of any video, and every face of images; write Parquet and CSV files."""
    store, out = parameters.store or str(parameters.out / "store"), parameters.out
    # A wrong path ends the run before the store is created.
    check_output_folder(out)
    listing = find_media(parameters.videos)
    videos = listing.videos.videos
    check_named_backbone(parameters, store)
    with Run(store, dask_address=scheduler_of(parameters), workers=parameters.workers) as run:
        predictors, written = predictors_of(run, parameters), []
        run.lock_output(Store(out))
        before = read_record(Store(out))
        if videos or listing.videos.same_names or listing.videos.account.lost:
            report_videos(run, listing.videos)
        if listing.account:
            run.report_inputs(listing.account)
        if videos:
            written = score_videos(run, videos, parameters, predictors=predictors)
        images = WrittenImages()
        if listing.images:
            images = score_images(run, listing.images, predictors=predictors, keep_crops=parameters.crops, out=out)
        found = count_scored(run, videos, before=before, after=read_record(Store(out)), images=images)
        run.persons = summarize_folder(Store(out), videos)
        run.print_summary()
        print_predictors(predictors)
        print_persons(run.persons, out)
        if written or not listing.images:
            described = f"; {DESCRIPTION} there describes their columns and heads" if written else ""
            print_line(f"{counted(len(written), 'file')} in {out}{described}")
        print_images(images, out)
        if again := describe_rewritten(Store(out), before, [path.name for path in written]):
            print_line(again)
        # A run that predicts only images has nothing to say about videos.
        if written and (others := describe_others(Store(out))):
            print_line(others)
        if outdated := describe_outdated(run.store, out):
            print_line(outdated)
        files = [*written, *image_files(images, out)]
        print_result(
            describe_run(
                run,
                "score",
                out=out,
                videos=ScoredVideos.of(found, leave_out=listing.images),
                images=images,
                files=files,
                predictors=predictors,
            )
        )
        run.print_counts()
        run.raise_for_failures()
    return [str(path) for path in files]
