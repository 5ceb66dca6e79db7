"""Units of work and jobs: find the ones to compute, and compute one on a worker.

A unit results in rows of a dataset, a job in a bundle of files. A stage module has a ``CODE_VERSION``, a ``plan_...``
function that lists its units or jobs, and a ``compute`` or ``make`` function that returns the result of one.
``flows.engine`` sends them to workers.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import pyarrow as pa

from data_contracts.details.datasets import FacesDetails
from data_contracts.details.records import Details, has_unread_files, problems_of
from data_contracts.errors import (
    InputError,
    InvalidFileError,
    RefusedFilesError,
    StoreError,
    WrongUnitError,
    has_machine_cause,
)
from data_contracts.schemas.dataset import Dataset
from data_contracts.store.bundles import Bundle, find_bundle, write_bundle
from data_contracts.store.manifest import Failure, Manifest, StoredUnit, UnitKey
from data_contracts.store.store import Store
from models.engines.progress import ReportLine, reporting_to, track

# Scheduled runs skip a unit after this number of failed tries.
MAX_TRIES = 3
_PROBLEMS_KEPT = 5
# What caused a failure: the input (its content, or its name), too little memory, or something else. Only failures that
# the input caused count as tries; another machine, another setting or another version may solve all others.
Fault = Literal["input", "names", "memory", "other"]
Args = TypeVar("Args")


@dataclass(frozen=True)
class Unit(Generic[Args]):
    """One piece of work with one result in the store. Units are sent to workers, which list nothing.

    Attributes:
        key: where the result is stored.
        fingerprint: hash of everything that the result depends on.
        arguments: what ``compute`` needs, the manifests of its inputs included.
        companions: units of other datasets that the same work writes, with the fingerprint of each; all must exist for
            the unit to be done.
        input_files: paths outside the store that ``compute`` reads; workers are checked for access to them.
        stale_parts: data files of earlier versions of the unit, relative to the store; ``split_pending`` finds them,
            and ``run_unit`` removes them once the new version exists.
    """

    key: UnitKey
    fingerprint: str
    arguments: Args
    companions: tuple[tuple[UnitKey, str], ...] = ()
    input_files: tuple[str, ...] = ()
    stale_parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in messages; unique together with the fingerprint."""
        return str(self.key)

    @property
    def written(self) -> dict[UnitKey, str]:
        """Everything that the work writes: the unit and its companions, and the fingerprint of each."""
        return {self.key: self.fingerprint, **dict(self.companions)}

    def note_failure(self, store: Store, cause: str) -> None:
        """Store the cause in the folder of the unit, if the store accepts the name of the folder.

        Whether the failure counts as a try is known at the end of the stage (``flows.engine.quarantine``).
        """
        before = None
        with contextlib.suppress(OSError):
            before = store.failure_of(self.key)
        if before is None or before.fingerprint != self.fingerprint or not before.since:
            before = Failure(self.fingerprint, cause, since=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        with contextlib.suppress(InputError):
            store.note_failure(self.key, replace(before, cause=cause, files=self.input_files))


@dataclass(frozen=True)
class Job(Generic[Args]):
    """Work that results in a bundle: a head, a post-processing, a submission, a backbone; or in a file elsewhere.

    Attributes:
        folder: where the bundle is stored, or the name of the file.
        fingerprint, arguments, input_files: as of a ``Unit``.
        cost: time that the job takes, relative to others of its stage; for progress.
        is_made: whether a file elsewhere exists as planned; None: the bundle in the store decides.
    """

    folder: str
    fingerprint: str
    arguments: Args
    input_files: tuple[str, ...] = ()
    cost: float = 1.0
    is_made: bool | None = None

    @property
    def name(self) -> str:
        """The folder or file, which is unique in a stage."""
        return self.folder

    def find(self, store: Store) -> Bundle | None:
        """Return the bundle if it exists as planned, and not as an earlier run made it from other inputs."""
        bundle = find_bundle(store, self.folder)
        return bundle if bundle and bundle.fingerprint == self.fingerprint else None

    def exists(self, store: Store) -> bool:
        """Return whether the result exists as planned."""
        return self.find(store) is not None if self.is_made is None else self.is_made

    def note_failure(self, store: Store, cause: str) -> None:
        """Do nothing: the run reports failures of jobs, and the next run tries again."""


@dataclass(frozen=True)
class UnitReport:
    """Result of computing a unit: rows per status and problems of its input, or the cause of its failure.

    ``fault``: what caused the failure. ``reads_wrong_unit``: another unit, which must be computed again.
    """

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cause: str | None = None
    fault: Fault = "other"
    problems: tuple[str, ...] = ()
    ends_the_run: bool = False
    reads_wrong_unit: bool = False


@dataclass
class Product:
    """Rows of a unit, iterated once. The other fields may be filled during the iteration.

    ``problems``: a line for every part of the input that was lost while the rest of it was used.
    """

    dataset: Dataset
    tables: Iterable[pa.Table]
    counts: Counter[str] = field(default_factory=Counter)
    details: Details = field(default_factory=Details)
    identity: str | None = None
    problems: list[str] = field(default_factory=list)

    def note_unread_file(self) -> None:
        """Note that a file that was listed cannot be opened: the next run computes the unit again."""
        self.details = replace(self.details, has_unread_files=True)

    def write(self, store: Store, unit: Unit[Any], *, started: float) -> UnitReport:
        """Write the unit, and remove its earlier versions. ``started``: ``time.monotonic()`` when the unit started."""
        manifest = write_product(store, unit.key, self, fingerprint=unit.fingerprint, started=started)
        for path in unit.stale_parts:
            store.remove(path)
        return UnitReport(unit.name, manifest.counts, manifest.seconds, problems=tuple(problems_of(manifest)))


@dataclass
class Files:
    """Files of a bundle, and the details for its manifest."""

    files: dict[str, bytes]
    details: Details

    def write(self, store: Store, job: Job[Any], *, started: float) -> UnitReport:
        """Write the bundle of a job."""
        write_bundle(store, job.folder, self.files, fingerprint=job.fingerprint, details=self.details)
        return UnitReport(job.name, seconds=time.monotonic() - started)


@dataclass
class WrittenFile:
    """A file that a job has written elsewhere: rows per status, and lines about what was lost of its input."""

    counts: Counter[str]
    problems: Sequence[str] = ()

    def write(self, store: Store, job: Job[Any], *, started: float) -> UnitReport:
        """Only report: the file exists."""
        seconds = time.monotonic() - started
        return UnitReport(job.name, dict(+self.counts), seconds, problems=tuple(first_few(self.problems)))


Compute = Callable[[Store, Unit[Any]], Product]
Make = Callable[[Store, Job[Any]], Files | WrittenFile]
Work = Unit[Any] | Job[Any]


class Pending(NamedTuple):
    """Units or jobs split by state.

    Attributes:
        ready: they exist as planned.
        todo: they do not.
        problems: (unit, line) of inputs of ready units that were used in part.
        quarantined: they failed too often and are skipped; with the note of the last try.
    """

    ready: list[Any]
    todo: list[Any]
    problems: list[tuple[str, str]]
    quarantined: Sequence[tuple[Any, Failure]] = ()


def split_pending(store: Store, work: Sequence[Work], *, max_tries: int | None = None) -> Pending:
    """Find the units and jobs that exist as planned. Manifests are listed once per dataset and variant.

    With ``max_tries``, units that failed in this number of runs with the same input are quarantined.
    """
    jobs = [job for job in work if isinstance(job, Job)]
    units = [unit for unit in work if isinstance(unit, Unit)]
    known: dict[UnitKey, Manifest] = {}
    orphans: dict[str, list[str]] = {}
    for dataset, partitions in sorted({_listing_root(key) for unit in units for key in unit.written}):
        manifests, parts = store.manifests_and_orphans(dataset, **dict(partitions))
        known.update(manifests)
        for path in parts:
            orphans.setdefault(_without_fingerprint(path), []).append(path)

    def is_done(unit: Unit[Any]) -> bool:
        found = ((known.get(key), wanted) for key, wanted in unit.written.items())
        return all(m is not None and m.fingerprint == wanted and not has_unread_files(m) for m, wanted in found)

    def with_stale_parts(unit: Unit[Any]) -> Unit[Any]:
        stale: list[str] = []
        for key, unit_fingerprint in unit.written.items():
            new = key.part_path(unit_fingerprint)
            old = [f"{key.folder}/{known[key].part}"] if key in known else []
            stale += [path for path in (*old, *orphans.get(_without_fingerprint(new), ())) if path != new]
        return replace(unit, stale_parts=tuple(stale)) if stale else unit

    done = [unit for unit in units if is_done(unit)]
    finished = {unit.key for unit in done}
    problems = [(unit.name, line) for unit in done for line in problems_of(known[unit.key])]
    todo = [with_stale_parts(unit) for unit in units if unit.key not in finished]
    quarantined = _given_up(store, todo, max_tries) if max_tries else {}
    made = [job for job in jobs if job.exists(store)]
    return Pending(
        [*done, *made],
        [*(unit for unit in todo if unit.key not in quarantined), *(job for job in jobs if job not in made)],
        problems,
        [(unit, quarantined[unit.key]) for unit in todo if unit.key in quarantined],
    )


def _without_fingerprint(part_path: str) -> str:
    return part_path[: -len("12345678.parquet")]


def _given_up(store: Store, units: Sequence[Unit[Any]], max_tries: int) -> dict[UnitKey, Failure]:
    """Return the notes of units that failed ``max_tries`` times with the same fingerprint."""
    notes: dict[UnitKey, Failure] = {}
    for dataset, partitions in sorted({_listing_root(unit.key) for unit in units}):
        notes.update(store.failures(dataset, **dict(partitions)))
    found = ((unit, notes.get(unit.key)) for unit in units)
    return {u.key: n for u, n in found if n and n.fingerprint == u.fingerprint and n.tries >= max_tries}


def stored_units(store: Store, units: Sequence[Unit[Any]]) -> dict[UnitKey, StoredUnit]:
    """Return the planned units that exist as planned, in order; those that were made from other inputs do not."""
    known: dict[UnitKey, Manifest] = {}
    for dataset, partitions in sorted({_listing_root(unit.key) for unit in units}):
        known |= store.manifests(dataset, **dict(partitions))
    found = ((unit, known.get(unit.key)) for unit in units)
    return {u.key: StoredUnit(u.key, m) for u, m in found if m is not None and m.fingerprint == u.fingerprint}


def complete_videos(store: Store, units: Sequence[Unit[Any]]) -> dict[str, list[StoredUnit]]:
    """Return video -> its planned units, in order, for videos all of whose units exist as planned."""
    found = stored_units(store, units)
    keys: dict[str, list[UnitKey]] = {}
    for unit in units:
        keys.setdefault(unit.key.value("video"), []).append(unit.key)
    return {video: [found[key] for key in of] for video, of in keys.items() if all(key in found for key in of)}


def remove_unplanned(store: Store, units: Sequence[Unit[Any]]) -> None:
    """Remove units that are in a folder of planned units but are not planned.

    They are left over from a longer video of the same name, or from another length of segments.
    """
    planned = {key for unit in units for key in unit.written}
    folders = {key.folder for key in planned}
    for dataset, partitions in sorted({_listing_root(key) for key in planned}):
        for key, manifest in store.manifests(dataset, **dict(partitions)).items():
            if key.folder in folders and key not in planned:
                store.remove_unit(key, manifest)


def _listing_root(key: UnitKey) -> tuple[str, tuple[tuple[str, str], ...]]:
    variants = tuple(pair for pair in key.partitions if pair[0] in ("source", "backbone", "head", "task"))
    return key.dataset, variants


def write_product(store: Store, key: UnitKey, product: Product, *, fingerprint: str, started: float) -> Manifest:
    """Write a unit's rows, then its manifest. ``started``: ``time.monotonic()`` when the unit started."""
    part, size, rows = store.write_unit(key, product.dataset, _tracked_tables(product), fingerprint=fingerprint)
    manifest = Manifest(
        fingerprint=fingerprint,
        identity=product.identity or fingerprint,
        part=part,
        part_bytes=size,
        rows=rows,
        counts=dict(+product.counts),
        seconds=round(time.monotonic() - started, 3),
        details=product.details.with_problems(first_few(product.problems)).to_json(),
    )
    store.finish_unit(key, manifest)
    return manifest


def _tracked_tables(product: Product) -> Iterator[pa.Table]:
    details = product.details
    if not isinstance(details, FacesDetails):
        return track(product.tables, "{} parts")
    first, count = details.first_frame, details.frame_count

    def frames_until(table: pa.Table) -> int:
        # A frame with several faces has several rows.
        return table["frame"][-1].as_py() - first + 1 if len(table) else count

    return track(product.tables, "{} frames", total=count, reached=frames_until)


def run_unit(
    store_url: str, compute: Compute | Make, unit: Work, *, report_line: ReportLine | None = None
) -> UnitReport:
    """Compute and write one unit or job. Errors of the input are stored and returned; other errors are raised.

    ``report_line`` receives lines about the progress of the unit.
    """
    store, started = Store(store_url), time.monotonic()
    try:
        with reporting_to(report_line):
            return compute(store, unit).write(store, unit, started=started)  # type: ignore[arg-type]
    except StoreError as error:
        return UnitReport(unit.name, cause=str(error), ends_the_run=True)
    except WrongUnitError as error:
        return UnitReport(unit.name, seconds=time.monotonic() - started, cause=str(error), reads_wrong_unit=True)
    except InputError as error:
        unit.note_failure(store, str(error))
        return UnitReport(unit.name, seconds=time.monotonic() - started, cause=str(error), fault=_fault_of(error))


def _fault_of(error: InputError) -> Fault:
    if not isinstance(error, InvalidFileError) or has_machine_cause(error):
        return "other"
    return "names" if isinstance(error, RefusedFilesError) else "input"


def first_few(lines: Sequence[str]) -> list[str]:
    """Return the first lines and, as the last line, the number of further ones."""
    more = len(lines) - _PROBLEMS_KEPT
    return list(lines) if more <= 1 else [*lines[:_PROBLEMS_KEPT], f"... and {more} more like these"]
