"""Annotated copies of scored videos."""

from collections.abc import Collection

from data_contracts.files.locations import Location
from data_contracts.store.store import Store
from flows.engine.run import Run
from tasks.annotate import annotate_video
from tasks.results.annotated_copies import add_annotated
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

    summary = run.jobs("annotate_video", jobs, annotate_video.make, on_done=record)
    return [out / job.folder for job in jobs if job.folder not in summary.missing]
