"""Flow ``rescore``: predict new and changed videos in folders, on a schedule."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from data_contracts.challenge.pictures import ScheduledAccount
from data_contracts.challenge.videos import list_videos
from data_contracts.errors import InputError, counted, first_names
from data_contracts.files.local import check_output_folder
from data_contracts.files.locations import Location, location
from data_contracts.store.arrivals import Arrivals, count_known_skipped, remember_skipped, split_settled
from data_contracts.store.input_accounts import count_used_before
from data_contracts.store.store import Store
from flows.engine.console import print_line, print_result
from flows.engine.run import Run
from flows.extract import report_videos
from flows.options import takes
from flows.parameters import RescoreParameters, scheduler_of
from flows.score import check_named_backbone, count_scored, predictors_of, print_predictors, score_videos
from flows.scoring.annotate import describe_outdated
from flows.scoring.persons import print_persons, select_videos, summarize_folder
from flows.scoring.result import ScoredVideos, describe_run
from tasks.extract import index_videos
from tasks.extract.deleted_videos import remove_notes_of_deleted
from tasks.images.write_images import WrittenImages
from tasks.results.prediction_folder import describe_others, read_record
from tasks.units import MAX_TRIES

_LINES_SHOWN = 20


@dataclass(frozen=True)
class Rescored:
    """Names of videos by the result of a run.

    Attributes:
        scored: predictions were missing or outdated, and were written.
        up_to_date: predictions existed.
        waiting: the file may still be growing; the next run checks again.
        quarantined: failed too often; skipped until the file or the model changes.
        failed: failed in this run.
        without_video: predictions exist, but the video does not.
    """

    scored: tuple[str, ...]
    up_to_date: tuple[str, ...]
    waiting: tuple[str, ...]
    quarantined: tuple[str, ...]
    failed: tuple[str, ...]
    without_video: tuple[str, ...]


@takes(RescoreParameters)
def rescore(parameters: RescoreParameters) -> Rescored:
    """Predict all videos with missing or outdated predictions."""
    places, out = parameters.videos, parameters.out
    check_output_folder(out)
    check_named_backbone(parameters, parameters.store)
    with Run(
        parameters.store,
        dask_address=scheduler_of(parameters),
        workers=parameters.workers,
        max_tries=MAX_TRIES,
        retry_quarantined=parameters.retry_quarantined,
    ) as run:
        predictors = predictors_of(run, parameters)
        run.lock_output(Store(out))
        # Folders of affwild2 contain many files and no videos to score.
        listing = list_videos(
            places, leave_out=[run.store.root, Store(out).root], account=ScheduledAccount("videos", *places)
        )
        arrivals = split_settled(
            run.store, listing.videos, roots=places, settle_seconds=parameters.settle_seconds, now=time.time()
        )
        before = read_record(Store(out))
        known = count_known_skipped(run.store, places, listing.account.paths)
        used_before = 0 if listing.account.used else count_used_before(run.store, listing.account)
        report_videos(run, listing, known=known)
        written: list[Location] = []
        if arrivals.settled:
            written = score_videos(run, arrivals.settled, parameters, predictors=predictors)
        elif not used_before:
            # The folders may not be mounted if an earlier run found videos; the quarantine must stay then.
            remove_notes_of_deleted(run.store, [])
        after = read_record(Store(out))
        found = count_scored(run, arrivals.settled, before=before, after=after, waiting=len(arrivals.waiting))
        rescored = Rescored(
            scored=tuple(sorted(found.done)),
            up_to_date=tuple(sorted(found.up_to_date)),
            waiting=tuple(sorted(arrivals.waiting)),
            quarantined=tuple(sorted(found.quarantined)),
            failed=tuple(sorted(found.failed)),
            without_video=tuple(_without_video(run, set(after) - {*listing.videos, *listing.same_names})),
        )
        if any(summary.done or summary.failures for summary in run.summaries):
            run.print_summary()
            print_predictors(predictors)
        else:
            run.print_causes()
        run.persons = persons = summarize_folder(Store(out), arrivals.settled)
        print_persons(select_videos(persons, found.done), out)
        videos = ScoredVideos.of(found, waiting=rescored.waiting, without_video=rescored.without_video)
        print_result(
            describe_run(
                run,
                "rescore",
                out=out,
                videos=videos,
                images=WrittenImages(),
                files=written,
                predictors=predictors,
            )
        )
        _print_rescored(run, arrivals, rescored, out)
        remember_skipped(run.store, places, listing.account.paths)
        run.raise_for_failures(known=False)
        if used_before:
            raise InputError(
                f"{', '.join(listing.account.places)}: expected videos, found none; the last run found "
                f"{used_before:,}; mount the folder if it is not mounted; if you removed them, the next run accepts it"
            )
    return rescored


def _without_video(run: Run, names: Collection[str]) -> list[str]:
    """Return the names of videos that do not exist at their indexed paths, which may be in other folders."""
    known = index_videos.details_of_videos(run.store) if names else {}
    paths = {name: known[name].path for name in names if name in known}
    return sorted(name for name in names if not (name in paths and location(paths[name]).exists()))


def _print_rescored(run: Run, arrivals: Arrivals, rescored: Rescored, out: Location) -> None:
    waiting = [f"waiting: {path}: {why}" for path, why in arrivals.waiting.values()]
    _print_some(waiting, "waiting")
    _print_some([f"scored: {name}" for name in rescored.scored], "scored")
    if others := describe_others(Store(out)):
        print_line(others)
    if outdated := describe_outdated(run.store, out):
        print_line(outdated)
    if rescored.without_video:
        videos = counted(len(rescored.without_video), "deleted or moved video")
        print_line(
            f"note: {out} has predictions of {videos} ({first_names(rescored.without_video)}); "
            f"to delete everything derived from one: affwild2 forget NAME --store {run.store.url} --out {out}"
        )
    run.print_counts()


def _print_some(lines: Sequence[str], what: str) -> None:
    for line in lines[:_LINES_SHOWN]:
        print_line(line)
    if len(lines) > _LINES_SHOWN:
        print_line(f"... and {len(lines) - _LINES_SHOWN} more: {what}")
