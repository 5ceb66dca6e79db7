"""``affwild2 compare``: two heads side by side, as text, as a JSON object and as an HTML page."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from data_contracts.details.heads import HeadDetails
from data_contracts.store.contents import require_store
from data_contracts.store.store import Store
from data_contracts.vocabulary import TaskName
from flows.commands.parameters import CompareParameters
from flows.engine.console import print_line, print_result, print_table
from models.decisions.evaluation import CONFIDENCE, RESAMPLES, SEED
from tasks.pages.comparison import HEADER, Comparison, Difference, compare_heads, find_compared, write_comparison


@dataclass(frozen=True)
class CompareResult:
    """Two heads of a store on the same rows, and where the page with the charts is."""

    command: ClassVar[str] = "compare"
    store: str
    task: TaskName
    a: str
    b: str
    videos: int
    rows: int
    resamples: int
    confidence: float
    seed: int
    differences: list[Difference]
    notes: list[str]
    page: str


def compare(parameters: CompareParameters) -> int:
    """Print two heads side by side, and write the page with the charts.

    Raises:
        InputError: a name matches no head or several, or the heads cannot be compared (see ``compare_heads``).
        StoreError: the store cannot be written to.
    """
    store = Store(parameters.store)
    require_store(store)
    heads = [find_compared(store, name, task=parameters.task) for name in (parameters.a, parameters.b)]
    found = compare_heads(store, *heads)
    page = store.locate(write_comparison(store, found, written=datetime.now(UTC)))
    names = found.a.head.name, found.b.head.name
    result = CompareResult(
        parameters.store,
        found.a.task,
        *names,
        found.videos,
        found.rows,
        RESAMPLES,
        CONFIDENCE,
        SEED,
        list(found.differences),
        list(found.notes),
        page,
    )
    if not print_result(result):
        _print(found, page)
    return 0


def _print(found: Comparison, page: str) -> None:
    heads = [HeadDetails.of(one.head) for one in (found.a, found.b)]
    print_table(
        f"{found.a.task} on {found.videos:,} videos, {found.rows:,} rows",
        list(HEADER),
        [one.cells() for one in found.differences],
        simulated=any(head.is_simulated for head in heads),
    )
    for letter, one, head in zip("AB", (found.a, found.b), heads, strict=True):
        print_line(f"{letter}: {one.head.name} ({head.format_settings()})")
    for note in found.notes:
        print_line(note)
    print_line(f"page: {page}", is_result=True)
