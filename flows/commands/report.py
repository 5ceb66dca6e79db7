"""``affwild2 report``: a page about a store, written into it."""

from datetime import UTC, datetime

from data_contracts.store.store import Store
from flows.engine.console import print_line
from tasks.results.write_report import REPORT_OF_STORE, write_report


def write_named(store_url: str) -> int:
    """Write the page of the store as it is now, in place of an earlier one; print where it lies.

    Raises:
        InputError: there is no store at the URL.
        StoreError: it cannot be written to.
    """
    store = Store(store_url)
    print_line(f"report: {store.locate(write_report(store, name=REPORT_OF_STORE, written=datetime.now(UTC)))}")
    return 0
