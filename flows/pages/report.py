"""``affwild2 report``: what a store contains and how good its heads are, as an HTML page."""

from datetime import UTC, datetime

from data_contracts.store.store import Store
from flows.commands.parameters import ReportParameters
from flows.engine.console import print_line
from tasks.pages.write_report import REPORT_OF_STORE, write_report


def write_store_report(parameters: ReportParameters) -> int:
    """Write the HTML report of the store, in place of an earlier one, and print its path.

    Raises:
        InputError: there is no store at the URL.
        StoreError: the store cannot be written to.
    """
    store = Store(parameters.store)
    print_line(
        f"report: {store.locate(write_report(store, name=REPORT_OF_STORE, written=datetime.now(UTC)))}", is_result=True
    )
    return 0
