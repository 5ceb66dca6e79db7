"""``affwild2 status``: what a store contains, as text."""

import logging
import os
from dataclasses import dataclass
from typing import ClassVar

from data_contracts.details.heads import HeadDetails
from data_contracts.errors import counted
from data_contracts.files.locations import is_remote
from data_contracts.store.bundles import Bundle, damaged_bundles
from data_contracts.store.contents import BUNDLES, StoreContents, VariantContents, read_contents
from data_contracts.store.input_accounts import InputsDetails
from data_contracts.store.manifest import Failure
from data_contracts.store.store import Store
from data_contracts.vocabulary import SIMULATED_NOTICE
from flows.commands.parameters import StatusParameters
from flows.engine.console import print_line, print_result, print_table
from tasks.fit.head_selection import date_of
from tasks.reproduce.fit_cell import CELLS
from tasks.reproduce.grid import list_cells
from tasks.units import MAX_TRIES


@dataclass(frozen=True)
class BundleStatus:
    """A complete head, post-processing or submission. ``settings``, ``written``, ``annotations``: of heads, else empty.

    ``annotations``: folder of the labels that the head was fitted on.
    """

    kind: str
    name: str
    settings: str = ""
    written: str = ""
    annotations: str = ""

    def format(self) -> str:
        """Return the name and settings in one line."""
        return f"{self.kind}: {self.name}" + (f" ({self.settings}, {self.written})" if self.settings else "")


@dataclass(frozen=True)
class FailedUnit:
    """A unit that does not exist because its last try failed. Scheduled runs skip it if it is quarantined.

    ``tries``: number of runs that failed because of the same input, the first of them at ``since`` (UTC).
    """

    dataset: str
    unit: str
    cause: str
    tries: int
    since: str
    is_quarantined: bool

    def format(self) -> str:
        """Return the unit and the cause in one line."""
        kind = "quarantined" if self.is_quarantined else "failed"
        tried = f" ({Failure('', self.cause, self.tries, self.since).format_tries()})" if self.is_quarantined else ""
        return f"{kind}: {self.dataset} {self.unit}: {self.cause}{tried}"


@dataclass(frozen=True)
class LostInput:
    """An input that could be used only in part, and what was lost."""

    dataset: str
    unit: str
    problem: str


@dataclass(frozen=True)
class AccountStatus:
    """What the last run on some folders found, used and skipped. ``is_gone``: none of the folders exists any more."""

    account: InputsDetails
    is_gone: bool


@dataclass(frozen=True)
class StoreStatus:
    """What a store contains, and what is missing.

    Attributes:
        is_complete: nothing failed, is damaged, was skipped or could be used only in part.
        is_simulated: all features and heads are simulated.
        simulated: names of simulated features variants and heads.
        reproduced_heads: number of heads of the paper's tables.
        damaged: folders of bundles with missing or changed files.
    """

    command: ClassVar[str] = "status"
    store: str
    is_complete: bool
    is_simulated: bool
    simulated: list[str]
    variants: list[VariantContents]
    bundles: list[BundleStatus]
    reproduced_heads: int
    damaged: list[str]
    failures: list[FailedUnit]
    problems: list[LostInput]
    inputs: list[AccountStatus]

    @property
    def quarantined(self) -> int:
        """Number of quarantined units."""
        return sum(one.is_quarantined for one in self.failures)

    def format_missing(self) -> str:
        """Return the numbers of what is missing in one line."""
        skipped = sum(reason.count for one in self.inputs if not one.is_gone for reason in one.account.lost)
        numbers = {
            "failed": len(self.failures) - self.quarantined,
            "quarantined": self.quarantined,
            "used in part": len({one.unit for one in self.problems}),
            "damaged": len(self.damaged),
            "skipped": skipped,
        }
        return ", ".join(f"{number:,} {what}" for what, number in numbers.items() if number) or "nothing is missing"


def print_status(parameters: StatusParameters) -> int:
    """Print what is ready, what failed and which inputs were skipped; return 1 if anything is missing.

    Raises:
        InputError: there is no store at the URL.
    """
    store = Store(parameters.store)
    status = read_status(store, read_contents(store))
    if not print_result(status):
        _print_ready(status)
        _print_missing(status)
        print_line(f"{status.store}: {status.format_missing()}", is_result=True)
    return 0 if status.is_complete else 1


def read_status(store: Store, contents: StoreContents) -> StoreStatus:
    """Find what is ready, damaged or missing in a store."""
    bundles, damaged = [], []
    for kind in BUNDLES:
        bundles += [_describe(store, kind, bundle) for bundle in contents.bundles[kind]]
        damaged += [f"{kind}/{name}" for name in damaged_bundles(store, kind, contents.bundles[kind])]
    cells = list_cells(store)
    damaged += [f"{CELLS}/{name}" for name in damaged_bundles(store, CELLS, cells)]
    failures = [
        FailedUnit(key.dataset, str(key), note.cause, note.tries, note.since, note.tries >= MAX_TRIES)
        for key, note in contents.failures.items()
    ]
    inputs = [AccountStatus(account, not _has_places(account)) for account in contents.inputs]
    is_lost = any(one.account.lost and not one.is_gone for one in inputs)
    return StoreStatus(
        store=store.url,
        is_complete=not (failures or contents.problems or damaged or is_lost),
        is_simulated=contents.is_simulated,
        simulated=contents.simulated,
        variants=contents.variants,
        bundles=bundles,
        reproduced_heads=len(cells),
        damaged=damaged,
        failures=failures,
        problems=[LostInput(key.dataset, str(key), line) for key, line in contents.problems],
        inputs=inputs,
    )


def _describe(store: Store, kind: str, bundle: Bundle) -> BundleStatus:
    if kind != "heads":
        return BundleStatus(kind, bundle.name)
    head = HeadDetails.of(bundle)
    return BundleStatus(kind, bundle.name, head.format_settings(), date_of(store, bundle), head.annotations or "")


def _print_ready(status: StoreStatus) -> None:
    print_table(
        f"Store {status.store}",
        ["dataset", "variant", "units", "rows", "MB", "failed"],
        [[v.dataset, v.variant, v.units, v.rows, round(v.size_bytes / 1e6, 1), v.failed] for v in status.variants],
        simulated=status.is_simulated,
    )
    if status.simulated:
        print_line(f"{SIMULATED_NOTICE}: {', '.join(status.simulated)}, and everything that is made from them")
    for bundle in status.bundles:
        print_line(bundle.format())
        if bundle.annotations:
            print_line(f"  annotations of {bundle.name}: {bundle.annotations}")
    if status.reproduced_heads:
        heads = counted(status.reproduced_heads, "head")
        print_line(f"reproduction: {heads} of the paper's tables; affwild2 reproduce prints them")


def _print_missing(status: StoreStatus) -> None:
    for folder in status.damaged:
        line = f"damaged: {folder}: files are missing or were changed; make it again, or delete the folder"
        print_line(line, level=logging.ERROR)
    for one in sorted(status.failures, key=lambda failed: failed.is_quarantined):
        print_line(one.format(), level=logging.ERROR)
    if status.quarantined:
        print_line(
            f"note: rescore skips the {counted(status.quarantined, 'quarantined unit')} until the file or the model "
            "changes; to try again: affwild2 rescore FOLDER ... --retry-quarantined"
        )
    for lost in status.problems:
        print_line(f"in part: {lost.dataset} {lost.unit}: {lost.problem}", level=logging.WARNING)
    for inputs in status.inputs:
        account = inputs.account
        skipped = [] if inputs.is_gone else account.format_lost()
        for line in account.format_lines():
            print_line(line, level=logging.WARNING if line in skipped else logging.INFO)
        if account.lost and inputs.is_gone:
            print_line(f"note: {account.kind}: {account.place} no longer exists; files skipped there do not count")


def _has_places(account: InputsDetails) -> bool:
    """Return whether one of the folders still exists. Those on S3 count as existing."""
    return any(is_remote(place) or os.path.lexists(place) for place in account.places)
