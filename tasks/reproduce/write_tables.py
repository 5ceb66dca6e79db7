"""Write the reproduced tables of a store: Markdown, CSV, and the texts of pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_contracts.details.heads import CellDetails
from data_contracts.store.bundles import Bundle
from data_contracts.store.simulations import find_simulation
from data_contracts.store.store import Store
from tasks.reproduce.tables import (
    ON_ALL,
    Listing,
    ReproducedTable,
    build_tables,
    list_heads_on_all,
    list_notes,
    list_table,
    to_csv,
    to_markdown,
)

MARKDOWN_FILE, CSV_FILE = "reproduction/tables.md", "reproduction/tables.csv"


@dataclass(frozen=True)
class Reproduction:
    """The six tables, the texts of theirs and of the heads without scores, and notes on all of them."""

    tables: Sequence[ReproducedTable]
    listings: Sequence[Listing]
    notes: Sequence[str]

    @property
    def is_simulated(self) -> bool:
        """Whether any of our values is of simulated features."""
        return any(table.is_simulated for table in self.tables)


def reproduction_of(store: Store, cells: Sequence[Bundle], *, empty: Mapping[str, str]) -> Reproduction:
    """Return the tables of some cells of a store.

    ``empty``: as in ``build_tables``.
    """
    details = [(bundle.name, CellDetails.of(bundle)) for bundle in cells]
    simulation = find_simulation(store)
    best = {task: sets["validation"] for task, sets in simulation.attainable.items()} if simulation else {}
    tables = build_tables([one for _, one in details if one.scores], best=best, empty=empty)
    listings = [list_table(table) for table in tables]
    notes = list_notes(tables)
    if on_all := [(name, one) for name, one in details if not one.scores]:
        listings.append(list_heads_on_all(on_all))
        notes.append(ON_ALL)
    return Reproduction(tables, listings, notes)


def write_tables(store: Store, found: Reproduction) -> list[str]:
    """Write the tables as Markdown and as CSV; return the paths within the store."""
    store.write_bytes(MARKDOWN_FILE, to_markdown(found.listings, found.notes).encode())
    store.write_bytes(CSV_FILE, to_csv(found.tables).encode())
    return [MARKDOWN_FILE, CSV_FILE]
