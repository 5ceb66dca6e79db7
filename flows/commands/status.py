"""What a store holds: per stage and variant, what is ready and what failed."""

from data_contracts.store.contents import BUNDLES, read_contents
from data_contracts.store.store import Store
from flows.engine.console import print_line, print_table
from tasks.units import MAX_TRIES


def print_status(store_url: str) -> int:
    """Print what is ready and what failed; 1 if anything failed.

    Raises:
        InputError: there is no store at the URL.
    """
    contents = read_contents(Store(store_url))
    print_table(
        f"Store {store_url}",
        ["dataset", "variant", "units", "rows", "MB", "failed"],
        [[v.dataset, v.variant, v.units, v.rows, round(v.size_bytes / 1e6, 1), v.failed] for v in contents.variants()],
    )
    for kind in BUNDLES:
        for bundle in contents.bundles[kind]:
            print_line(f"{kind}: {bundle.name}")
    for key, note in contents.failures.items():
        what = "failed" if note.tries < MAX_TRIES else f"quarantined (failed {note.tries} times)"
        print_line(f"{what}: {key.dataset} {key}: {note.cause}")
    for key, line in contents.problems:
        print_line(f"in part: {key.dataset} {key}: {line}")
    return 1 if contents.failures or contents.problems else 0
