"""Units of work: find the ones to compute, and compute one on a worker.

A stage module has a ``CODE_VERSION``, a ``plan_...`` function that lists its units, and a ``compute`` function that
returns the rows of one unit. ``flows.engine`` sends units to workers.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import pyarrow as pa

from data_contracts.errors import InputError, StoreError
from data_contracts.schemas import Dataset
from data_contracts.store.details import Details, problems_of
from data_contracts.store.manifest import Failure, Manifest, UnitKey
from data_contracts.store.store import Store

# Scheduled runs skip a unit after this number of failed tries.
MAX_TRIES = 3
_PROBLEMS_KEPT = 5
Args = TypeVar("Args")


@dataclass(frozen=True)
class Unit(Generic[Args]):
    """One piece of work with one result in the store. Units are sent to workers, which list nothing.

    Attributes:
        key: where the result is stored.
        fingerprint: hash of everything that the result depends on.
        arguments: what ``compute`` needs, the manifests of its inputs included; a dataclass of the stage.
        companions: units of other datasets that the same work writes; all must exist for the unit to be done.
        input_files: paths outside the store that ``compute`` reads; workers are checked for access to them.
    """

    key: UnitKey
    fingerprint: str
    arguments: Args
    companions: tuple[UnitKey, ...] = ()
    input_files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in messages; unique together with the fingerprint."""
        return str(self.key)

    def note_failure(self, store: Store, cause: str, *, is_a_try: bool = True) -> None:
        """Store the cause in the folder of the unit, if the store accepts the name of the folder.

        ``is_a_try``: the input or the program caused the failure. Failures of clusters and networks do not count.
        """
        before = None
        with contextlib.suppress(OSError):
            before = store.failure_of(self.key)
        tries = before.tries if before and before.fingerprint == self.fingerprint else 0
        with contextlib.suppress(InputError):
            store.note_failure(self.key, Failure(self.fingerprint, cause, tries + is_a_try))


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


@dataclass(frozen=True)
class UnitReport:
    """Result of computing a unit: rows per status and problems of its input, or the cause of its failure."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cause: str | None = None
    problems: tuple[str, ...] = ()
    ends_the_run: bool = False


class Pending(NamedTuple):
    """Units split by state.

    Attributes:
        ready: they exist as planned.
        todo: they do not.
        problems: (unit, line) of inputs of ready units that were used in part.
        quarantined: they do not exist and are skipped; with the note of the last try.
    """

    ready: list[Any]
    todo: list[Any]
    problems: list[tuple[str, str]]
    quarantined: Sequence[tuple[Any, Failure]] = ()


Compute = Callable[[Store, Unit[Any]], Product]


def split_pending(store: Store, units: Sequence[Unit[Any]], *, max_tries: int | None = None) -> Pending:
    """Find the units that exist as planned. Manifests are listed once per dataset and variant.

    With ``max_tries``, units that failed in this number of runs with the same input are quarantined.
    """
    known: dict[UnitKey, Manifest] = {}
    roots = {_listing_root(key) for unit in units for key in (unit.key, *unit.companions)}
    for dataset, partitions in sorted(roots):
        known.update(store.manifests(dataset, **dict(partitions)))

    def is_done(unit: Unit[Any]) -> bool:
        manifests = [known.get(key) for key in (unit.key, *unit.companions)]
        return all(m is not None and m.fingerprint == unit.fingerprint for m in manifests)

    done = [unit for unit in units if is_done(unit)]
    finished = {unit.key for unit in done}
    problems = [(u.name, line) for u in done for line in problems_of(known[u.key])]
    todo = [unit for unit in units if unit.key not in finished]
    quarantined = _given_up(store, todo, max_tries) if max_tries else {}
    return Pending(
        done,
        [unit for unit in todo if unit.key not in quarantined],
        problems,
        [(unit, quarantined[unit.key]) for unit in todo if unit.key in quarantined],
    )


def _given_up(store: Store, units: Sequence[Unit[Any]], max_tries: int) -> dict[UnitKey, Failure]:
    """Notes of units that failed ``max_tries`` times with the same fingerprint."""
    notes: dict[UnitKey, Failure] = {}
    for dataset, partitions in sorted({_listing_root(unit.key) for unit in units}):
        notes.update(store.failures(dataset, **dict(partitions)))
    found = ((unit, notes.get(unit.key)) for unit in units)
    return {u.key: n for u, n in found if n and n.fingerprint == u.fingerprint and n.tries >= max_tries}


def remove_unplanned(store: Store, units: Sequence[Unit[Any]]) -> None:
    """Remove units that are in a folder of planned units but are not planned.

    They are left over from a longer video of the same name, or from another length of segments.
    """
    planned = {unit.key for unit in units}
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
    part, size, rows = store.write_unit(key, product.dataset, product.tables, fingerprint=fingerprint)
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


def run_unit(store_url: str, compute: Compute, unit: Unit[Any]) -> UnitReport:
    """Compute and write one unit. Errors of the input are stored and returned; other errors are raised."""
    store, started = Store(store_url), time.monotonic()
    try:
        manifest = write_product(store, unit.key, compute(store, unit), fingerprint=unit.fingerprint, started=started)
    except StoreError as error:
        return UnitReport(unit.name, cause=str(error), ends_the_run=True)
    except InputError as error:
        # A user can grant access to a file or restore it. The unit has the same fingerprint afterwards.
        unit.note_failure(
            store, str(error), is_a_try=not isinstance(error.__cause__, PermissionError | FileNotFoundError)
        )
        return UnitReport(unit.name, seconds=time.monotonic() - started, cause=str(error))
    problems = tuple(problems_of(manifest))
    return UnitReport(unit.name, counts=manifest.counts, seconds=manifest.seconds, problems=problems)


def first_few(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - _PROBLEMS_KEPT
    return list(lines) if more <= 1 else [*lines[:_PROBLEMS_KEPT], f"... and {more} more like these"]
