"""What a unit of work is, which units are still to do, and how one is run on a worker.

A stage module offers ``CODE_VERSION``, a ``plan_...`` that lists its units, and a ``compute`` that makes one unit's
rows. How units reach workers is the business of ``flows``.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from data_contracts.errors import InputError
from data_contracts.manifest import Failure, Manifest, UnitKey
from data_contracts.schemas import Dataset
from data_contracts.store import Store


@dataclass(frozen=True)
class Unit:
    """One piece of work: where its result lies, what it depends on, and what ``compute`` needs to know.

    ``companions`` are units of other datasets that the same work writes; all must exist for the unit to be done.
    """

    key: UnitKey
    fingerprint: str
    arguments: dict[str, Any] = field(default_factory=dict)
    companions: tuple[UnitKey, ...] = ()

    @property
    def name(self) -> str:
        """For people; with the fingerprint, also unique for schedulers."""
        return str(self.key)

    def note_failure(self, store: Store, cause: str) -> None:
        """Keep the cause beside the place where the data would lie."""
        store.note_failure(self.key, Failure(self.fingerprint, cause))


@dataclass
class Product:
    """Rows of a unit, to be drawn once; ``counts`` and ``details`` may be filled while they are drawn."""

    dataset: Dataset
    tables: Iterable[pa.Table]
    counts: Counter[str] = field(default_factory=Counter)
    details: dict[str, Any] = field(default_factory=dict)
    identity: str | None = None


@dataclass(frozen=True)
class UnitReport:
    """What came of a unit: rows per status, or the cause why there are none."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cause: str | None = None


Compute = Callable[[Store, Unit], Product]


def split_pending(store: Store, units: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Units that exist as planned, and units still to do; manifests are listed once per dataset and variant."""
    known: dict[UnitKey, Manifest] = {}
    roots = {_listing_root(key) for unit in units for key in (unit.key, *unit.companions)}
    for dataset, partitions in sorted(roots):
        known.update(store.manifests(dataset, **dict(partitions)))

    def is_done(unit: Unit) -> bool:
        manifests = [known.get(key) for key in (unit.key, *unit.companions)]
        return all(m is not None and m.fingerprint == unit.fingerprint for m in manifests)

    done = [unit for unit in units if is_done(unit)]
    finished = {unit.key for unit in done}
    return done, [unit for unit in units if unit.key not in finished]


def remove_unplanned(store: Store, units: Sequence[Unit]) -> None:
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
        counts=dict(product.counts),
        seconds=round(time.monotonic() - started, 3),
        details=product.details,
    )
    store.finish_unit(key, manifest)
    return manifest


def run_unit(store_url: str, compute: Compute, unit: Unit) -> UnitReport:
    """Compute and write one unit. A cause that is the input's is noted and returned; others are raised."""
    store, started = Store(store_url), time.monotonic()
    try:
        manifest = write_product(store, unit.key, compute(store, unit), fingerprint=unit.fingerprint, started=started)
    except InputError as error:
        unit.note_failure(store, str(error))
        return UnitReport(unit.name, seconds=time.monotonic() - started, cause=str(error))
    return UnitReport(unit.name, counts=manifest.counts, seconds=manifest.seconds)
