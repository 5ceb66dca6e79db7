"""Work whose result is a bundle (a head, a post-processing, a submission) instead of rows of a dataset."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from data_contracts.errors import InputError, StoreError
from data_contracts.store.bundles import find_bundle, write_bundle
from data_contracts.store.details import Details
from data_contracts.store.store import Store
from tasks.units import Args, Pending, UnitReport


@dataclass(frozen=True)
class Job(Generic[Args]):
    """One bundle to make: its folder, the hash of what it depends on, and what ``make`` needs.

    ``input_files``: paths outside the store that ``make`` reads; workers are checked for access to them.
    """

    folder: str
    fingerprint: str
    arguments: Args
    input_files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder, which is unique in a store."""
        return self.folder

    def note_failure(self, store: Store, cause: str, *, is_a_try: bool = True) -> None:
        """Do nothing: failures of jobs are reported by the run, and the next run tries again."""


@dataclass
class Files:
    """Files of a bundle, and the details for its manifest."""

    files: dict[str, bytes]
    details: Details


Make = Callable[[Store, Job[Any]], Files]


def split_pending_jobs(store: Store, jobs: Sequence[Job[Any]], *, max_tries: int | None = None) -> Pending:
    """Find the jobs whose bundles exist as planned. ``max_tries`` has no effect, because jobs leave no notes."""
    done = [job for job in jobs if _exists(store, job)]
    return Pending(done, [job for job in jobs if job not in done], [])


def _exists(store: Store, job: Job[Any]) -> bool:
    bundle = find_bundle(store, job.folder)
    return bundle is not None and bundle.fingerprint == job.fingerprint


def run_job(store_url: str, make: Make, job: Job[Any]) -> UnitReport:
    """Make and write one bundle. Errors of the input are returned; other errors are raised."""
    store, started = Store(store_url), time.monotonic()
    try:
        made = make(store, job)
        write_bundle(store, job.folder, made.files, fingerprint=job.fingerprint, details=made.details)
    except StoreError as error:
        return UnitReport(job.name, cause=str(error), ends_the_run=True)
    except InputError as error:
        return UnitReport(job.name, seconds=time.monotonic() - started, cause=str(error))
    return UnitReport(job.name, seconds=time.monotonic() - started)
