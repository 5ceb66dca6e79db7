"""``affwild2 status``: what a store contains, as text."""

import os

from data_contracts.errors import counted
from data_contracts.files.locations import is_remote
from data_contracts.store.bundles import damaged_bundles
from data_contracts.store.contents import BUNDLES, read_contents
from data_contracts.store.details import HeadDetails
from data_contracts.store.input_accounts import InputsDetails
from data_contracts.store.store import Store
from data_contracts.vocabulary import SIMULATED_NOTICE
from flows.commands.parameters import StatusParameters
from flows.engine.console import print_line, print_table
from tasks.fit.head_selection import describe_heads
from tasks.reproduce.fit_cell import CELLS
from tasks.reproduce.grid import list_cells
from tasks.units import MAX_TRIES


def print_status(parameters: StatusParameters) -> int:
    """Print what is ready, what failed and which inputs were skipped; return 1 if anything is missing.

    Raises:
        InputError: there is no store at the URL.
    """
    store = Store(parameters.store)
    contents = read_contents(store)
    print_table(
        f"Store {parameters.store}",
        ["dataset", "variant", "units", "rows", "MB", "failed"],
        [[v.dataset, v.variant, v.units, v.rows, round(v.size_bytes / 1e6, 1), v.failed] for v in contents.variants],
        simulated=contents.is_simulated,
    )
    if contents.simulated:
        print_line(f"{SIMULATED_NOTICE}: {', '.join(contents.simulated)}, and everything that is made from them")
    damaged = []
    for kind in BUNDLES:
        for bundle in contents.bundles[kind]:
            print_line(f"{kind}: {describe_heads(store, [bundle]) if kind == 'heads' else bundle.name}")
            if kind == "heads" and (annotations := HeadDetails.of(bundle).annotations):
                print_line(f"  annotations of {bundle.name}: {annotations}")
        damaged += [f"{kind}/{name}" for name in damaged_bundles(store, kind, contents.bundles[kind])]
    if cells := list_cells(store):
        print_line(f"reproduction: {counted(len(cells), 'head')} of the paper's tables; affwild2 reproduce prints them")
    damaged += [f"{CELLS}/{name}" for name in damaged_bundles(store, CELLS, cells)]
    for folder in damaged:
        print_line(f"damaged: {folder}: files are missing or were changed; make it again, or delete the folder")
    quarantined = {key: note for key, note in contents.failures.items() if note.tries >= MAX_TRIES}
    for key, note in contents.failures.items():
        if key not in quarantined:
            print_line(f"failed: {key.dataset} {key}: {note.cause}")
    for key, note in quarantined.items():
        print_line(f"quarantined: {key.dataset} {key}: {note.cause} ({note.format_tries()})")
    if quarantined:
        print_line(
            f"note: rescore skips the {counted(len(quarantined), 'quarantined unit')} until the file or the model "
            "changes; to try again: affwild2 rescore FOLDER ... --retry-quarantined"
        )
    for key, line in contents.problems:
        print_line(f"in part: {key.dataset} {key}: {line}")
    for account in contents.inputs:
        for line in account.format_lines():
            print_line(line)
        if account.lost and not _has_places(account):
            print_line(f"note: {account.kind}: {account.place} no longer exists; files skipped there do not count")
    is_lost = any(account.lost and _has_places(account) for account in contents.inputs)
    return 1 if contents.failures or contents.problems or damaged or is_lost else 0


def _has_places(account: InputsDetails) -> bool:
    """Return whether one of the folders still exists. Those on S3 count as existing."""
    return any(is_remote(place) or os.path.lexists(place) for place in account.places)
