"""Stage ``refuse_twins``: files that share a name, which only one of them can have. None of them is taken."""

from collections.abc import Mapping, Sequence

from data_contracts.errors import InputError
from data_contracts.files.inputs import file_state
from data_contracts.files.locations import Location
from data_contracts.store.fingerprint import fingerprint
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from tasks.units import Product, Unit

CODE_VERSION = 1


def plan_refuse_twins(twins: Mapping[str, Sequence[Location]]) -> list[Unit]:
    """One unit per name (stem -> files), which fails until only one of the files is left."""
    units = []
    for stem, files in sorted(twins.items()):
        names = [str(path) for path in files]
        states = [(ascii(name), *file_state(path)) for name, path in zip(names, files, strict=True)]
        made_from = fingerprint(stage="refuse_twins", version=CODE_VERSION, files=states)
        units.append(Unit(UnitKey("videos", (("video", stem),)), made_from, {"files": names}))
    return units


def compute(store: Store, unit: Unit) -> Product:
    """Nothing.

    Raises:
        InputError: always.
    """
    first, *others = unit.arguments["files"]
    raise InputError(f"{first}: expected one video per name, got also {', '.join(others[:3])}; rename all but one")
