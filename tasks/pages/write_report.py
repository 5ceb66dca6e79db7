"""Stage ``write_report``: write an HTML page about the contents of a store and the results of a run.

``data_contracts.store.contents`` and ``report_tables`` determine its content, ``report.html.jinja`` its appearance.
"""

import re
from datetime import datetime, timedelta
from typing import Any

from data_contracts.store.contents import REPORT_PAGE, StoreContents, read_contents
from data_contracts.store.store import Store
from data_contracts.vocabulary import SIMULATED_NOTICE
from tasks.pages.charts import Chart
from tasks.pages.page import Section, render_page
from tasks.pages.report_tables import RunRecord, headline_counts, sections_of, sections_of_run
from tasks.pages.scores import score_sections
from tasks.pages.table import Table
from tasks.reproduce.grid import list_cells
from tasks.reproduce.write_tables import Reproduction, reproduction_of

REPORT_OF_STORE, REPORT_OF_REPRODUCTION = "store", "reproduction"
# Reports of runs are named FLOW-TIME-ID. The newest ones stay, and all of the last months.
REPORT_TIME = "%Y%m%dT%H%M%SZ"
_REPORT_OF_RUN = re.compile(r".+-(\d{8}T\d{6}Z)-[0-9a-f]{8}")
_KEPT_REPORTS, _KEPT_AGE = 100, timedelta(days=90)
# Many reports of earlier versions are removed by several runs, so that none takes long.
_REMOVED_AT_ONCE = 100


def write_report(
    store: Store, *, name: str, written: datetime, run: RunRecord | None = None, with_contents: bool = True
) -> str:
    """Write ``reports/NAME/index.html`` about the current contents of the store; return its path within the store.

    Without ``with_contents``, the page shows the run only, and nothing is read from the store.

    Raises:
        InputError: there is no store.
        StoreError: it cannot be written to.
    """
    contents = read_contents(store, with_coverage=True) if with_contents else None
    sections = sections_of_run(run) if run else []
    if contents:
        cells = list_cells(store)
        tables = _reproduction_section(reproduction_of(store, cells, empty={})) if cells else []
        # A run must not wait for charts that the next report shows.
        scores = score_sections(store, contents, with_charts=run is None)
        sections = [*sections, *scores, *tables, *sections_of(store, contents)]
    path = _write_page(
        store,
        name,
        written,
        title=run.name if run else "Report",
        run=run,
        simulated=_describe_simulated(contents, run),
        counts=headline_counts(contents) if contents else [],
        sections=sections,
    )
    if run and contents:
        _remove_old_reports(store, now=written)
    return path


def write_reproduction_page(store: Store, found: Reproduction, *, written: datetime) -> str:
    """Write ``reports/reproduction/index.html`` with the tables of the paper; return its path within the store.

    Raises:
        StoreError: the store cannot be written to.
    """
    return _write_page(
        store,
        REPORT_OF_REPRODUCTION,
        written,
        title="Reproduction",
        run=None,
        simulated=SIMULATED_NOTICE if found.is_simulated else None,
        counts=[],
        sections=_reproduction_section(found),
    )


def _reproduction_section(found: Reproduction) -> list[Section]:
    tables = [Table(one.title, one.header, one.rows) for one in found.listings]
    notes = Table("Notes", ["note"], [[note] for note in found.notes])
    return [("Tables of the paper", [*tables, notes])]


def _write_page(store: Store, name: str, written: datetime, **content: Any) -> str:
    charts = [one for _, parts in content["sections"] for one in parts if isinstance(one, Chart)]
    page = render_page("report.html.jinja", charts=charts, store=store.root, written=written, **content)
    path = f"reports/{name}/{REPORT_PAGE}"
    store.write_bytes(path, page.encode())
    return path


def _describe_simulated(contents: StoreContents | None, run: RunRecord | None) -> str | None:
    """Return the line at the top of a page about simulated data; None for other pages."""
    if contents and contents.simulated:
        return f"{SIMULATED_NOTICE}: {', '.join(contents.simulated)}, and everything that is made from them"
    return SIMULATED_NOTICE if run and run.is_simulated else None


def _remove_old_reports(store: Store, *, now: datetime) -> None:
    """Remove the reports of runs that are neither among the newest nor recent. Their names contain their time."""
    names = [(found[1], name) for name in store.list_folder("reports") if (found := _REPORT_OF_RUN.fullmatch(name))]
    oldest = f"{now - _KEPT_AGE:{REPORT_TIME}}"
    old = [name for started, name in sorted(names)[:-_KEPT_REPORTS] if started < oldest]
    for name in old[:_REMOVED_AT_ONCE]:
        store.remove_folder(f"reports/{name}")
