"""Annotated copies of scored videos."""

from collections.abc import Collection

from data_contracts.errors import counted, first_names
from data_contracts.files.locations import Location
from data_contracts.store.store import Store
from flows.engine.run import Run
from flows.engine.run_counts import ANNOTATE
from tasks.annotate import annotate_video
from tasks.results.annotated_copies import add_annotated, read_annotated
from tasks.units import Job, Work


def annotate_videos(run: Run, names: Collection[str], *, out: Location) -> list[Location]:
    """Write annotated copies of videos with predictions in ``out``, if they are missing or outdated; return all.

    Raises:
        StoreError: ``out`` cannot be written to, or workers write to another disk.
    """
    target, jobs = Store(out), annotate_video.plan_annotate_videos(run.store, names, out=out)

    def record(job: Work) -> None:
        assert isinstance(job, Job)
        add_annotated(target, job.arguments.video.stem, job.fingerprint)

    summary = run.jobs(ANNOTATE, jobs, annotate_video.make, on_done=record)
    return [out / job.folder for job in jobs if job.folder not in summary.missing]


def describe_outdated(store: Store, out: Location) -> str | None:
    """Return a line about annotated copies that show other predictions than those in ``out``; None without any."""
    target = Store(out)
    copies = read_annotated(target)
    if not copies:
        return None
    jobs = annotate_video.plan_annotate_videos(store, copies, out=out)
    outdated = [job.folder for job in jobs if not job.is_made and target.exists(job.folder)]
    if not outdated:
        return None
    copies_of = f"{counted(len(outdated), 'annotated video')} in {out}"
    return f"note: {copies_of} outdated ({first_names(outdated)}); --annotate writes them again"
