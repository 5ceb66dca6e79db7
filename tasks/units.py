"""What a unit of work is, which units are still to do, and how one is run on a worker.

A stage module offers ``CODE_VERSION``, a ``plan_...`` that lists its units, and a ``compute`` that makes one unit's
rows. How units reach workers is the business of ``flows``.
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

# After so many tries, a unit is left alone by runs that nobody watches.
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
        """For people; with the fingerprint, also unique for schedulers."""
        return str(self.key)

    def note_failure(self, store: Store, cause: str, *, is_a_try: bool = True) -> None:
        """Keep the cause beside the place where the data would lie, if that place can be.

        ``is_a_try``: the unit was really tried; a cause that is the cluster's or the network's does not count.
        """
        before = None
        with contextlib.suppress(OSError):
            before = store.failure_of(self.key)
        tries = before.tries if before and before.fingerprint == self.fingerprint else 0
        with contextlib.suppress(InputError):
            store.note_failure(self.key, Failure(self.fingerprint, cause, tries + is_a_try))


@dataclass
class Product:
    """Rows of a unit, to be drawn once; all else may be filled while they are drawn.

    ``problems``: a line for every part of the input that is lost, while the rest of it was used.
    """

    dataset: Dataset
    tables: Iterable[pa.Table]
    counts: Counter[str] = field(default_factory=Counter)
    details: Details = field(default_factory=Details)
    identity: str | None = None
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class UnitReport:
    """What came of a unit: rows per status and what is wrong with its input, or the cause why there are no rows."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cause: str | None = None
    problems: tuple[str, ...] = ()
    ends_the_run: bool = False


class Pending(NamedTuple):
    """Work that exists as planned, work still to do, and what was wrong with the inputs of the former.

    ``quarantined``: work that is not done and is not to be tried either, with the note of its last try.
    """

    ready: list[Any]
    todo: list[Any]
    problems: list[tuple[str, str]]
    quarantined: Sequence[tuple[Any, Failure]] = ()


Compute = Callable[[Store, Unit[Any]], Product]


def split_pending(store: Store, units: Sequence[Unit[Any]], *, max_tries: int | None = None) -> Pending:
    """Which units exist as planned; manifests are listed once per dataset and variant.

    With ``max_tries``, a unit that so many runs have failed to make of the same input is quarantined.
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
    """Notes of the units that have failed so often as they are."""
    notes: dict[UnitKey, Failure] = {}
    for dataset, partitions in sorted({_listing_root(unit.key) for unit in units}):
        notes.update(store.failures(dataset, **dict(partitions)))
    found = ((unit, notes.get(unit.key)) for unit in units)
    return {u.key: n for u, n in found if n and n.fingerprint == u.fingerprint and n.tries >= max_tries}


def remove_unplanned(store: Store, units: Sequence[Unit[Any]]) -> None:
    """Remove units that share a folder with planned ones but are not planned.

    They are what a longer video of that name, or another length of segments, has left.
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
    """Write a unit's rows and then its manifest; ``started`` is the ``time.monotonic()`` of its begin."""
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
    """Compute and write one unit. A cause that is the input's is noted and returned; others are raised."""
    store, started = Store(store_url), time.monotonic()
    try:
        manifest = write_product(store, unit.key, compute(store, unit), fingerprint=unit.fingerprint, started=started)
    except StoreError as error:
        return UnitReport(unit.name, cause=str(error), ends_the_run=True)
    except InputError as error:
        # Whoever may not read a file gets permission, or brings it back: the file is then the same as before.
        unit.note_failure(
            store, str(error), is_a_try=not isinstance(error.__cause__, PermissionError | FileNotFoundError)
        )
        return UnitReport(unit.name, seconds=time.monotonic() - started, cause=str(error))
    problems = tuple(problems_of(manifest))
    return UnitReport(unit.name, counts=manifest.counts, seconds=manifest.seconds, problems=problems)


def first_few(lines: Sequence[str]) -> list[str]:
    """So many lines as a person reads, and how many more there are."""
    more = len(lines) - _PROBLEMS_KEPT
    return list(lines) if more <= 1 else [*lines[:_PROBLEMS_KEPT], f"... and {more} more like these"]
