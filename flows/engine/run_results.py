"""The results of a run: of its stages, and of its inputs; and how they are printed."""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from data_contracts.errors import printable
from data_contracts.store.bundles import Bundle
from data_contracts.store.input_accounts import InputsDetails
from data_contracts.store.manifest import Failure
from data_contracts.store.store import Store
from flows.engine.console import print_line, print_table
from flows.engine.quarantine import describe_shared_cause
from flows.engine.run_counts import ANNOTATE, RunCounts, SortedInputs, count_units
from flows.engine.stage_summary import StageSummary
from tasks.units import Unit

if TYPE_CHECKING:
    import pyarrow as pa

_FAILURES_SHOWN = 20


class SomeFailedError(RuntimeError):
    """Some inputs failed; the run has listed them, and everything else is complete."""


class RunResults:
    """What a run has found so far.

    Attributes:
        store: where the run reads and writes.
        summaries: one per stage, in the order of their start.
        submissions: bundles that the run made.
        is_simulated: the run used simulated features.
        inputs: accounts of the inputs that were read.
        persons: rows (``SUMMARY``) of the videos that the run was asked to score; None if it scored none.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.summaries: list[StageSummary] = []
        self.submissions: list[Bundle] = []
        self.is_simulated = False
        self.inputs: list[InputsDetails] = []
        self.persons: pa.Table | None = None
        self._new_lost: list[tuple[int, InputsDetails]] = []
        self._counts: RunCounts | None = None
        self._without_result: set[str] = set()

    def add_inputs(self, details: InputsDetails, *, new_lost: int) -> None:
        """Print and add the account of some inputs.

        Args:
            new_lost: number of skipped files that no earlier run has reported.
        """
        lost = details.format_lost()
        for line in details.format_lines():
            print_line(line, level=logging.WARNING if line in lost else logging.INFO)
        self.inputs.append(details)
        self._new_lost.append((new_lost, details))

    def add_failures(self, stage: str, causes: Mapping[str, str]) -> None:
        """Add inputs, or blocks of inputs, whose results could not be written (name -> cause)."""
        if causes:
            self.summaries.append(StageSummary(stage, units=len(causes), failures=dict(causes)))
            self._without_result.update(causes)

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """(stage, unit, cause) of all failures."""
        return [(s.stage, name, cause) for s in self.summaries for name, cause in s.failures.items()]

    @property
    def problems(self) -> list[tuple[str, str, str]]:
        """(stage, unit, line) of all inputs that were used only in part."""
        return [(s.stage, name, line) for s in self.summaries for name, line in s.all_problems]

    @property
    def quarantined(self) -> list[tuple[str, str, Failure]]:
        """(stage, unit, note of the last try) of all quarantined units, each once."""
        found = {(s.stage, name): note for s in self.summaries for name, note in s.quarantined}
        return [(stage, name, note) for (stage, name), note in found.items()]

    @property
    def counts(self) -> RunCounts:
        """The numbers of the run: of inputs if ``count_inputs`` was called, else of the units of all stages so far."""
        return self._counts or count_units(self.summaries, skipped=self._skipped)

    @property
    def _skipped(self) -> int:
        return sum(one.count for account in self.inputs for one in account.lost)

    def count_inputs(
        self,
        names: Collection[str],
        *,
        noun: str,
        verb: str,
        done: Collection[str] | None = None,
        failed: Collection[str] = (),
        videos: Mapping[str, str] | None = None,
        waiting: int = 0,
    ) -> SortedInputs:
        """Count inputs by the result of the run, and return their names.

        Args:
            names: names of all inputs that were not waiting.
            noun: what they are, in the singular.
            verb: what happened to those that are done.
            done: those with new results; None: those with units that this run computed.
            failed: those without a result, although their unit has one; a problem that begins with the name says why.
            videos: subject -> the video with the subject.
            waiting: number of other inputs, which wait for a later run.
        """

        def inputs_of(items: Iterable[str]) -> set[str]:
            return {item if item in names else (videos or {}).get(item, item) for item in items}

        without_result = tuple(f"{name}:" for name in failed)
        in_part = {name for _, name, line in self.problems if not line.startswith(without_result)}
        failed = inputs_of(item for s in self.summaries for item in _items_of(s, s.failures)) | {*failed}
        failed |= self._without_result
        given_up = inputs_of(item for s in self.summaries for item in _items_of(s, [n for n, _ in s.quarantined]))
        computed = inputs_of(item for s in self.summaries for item in s.done_items) & set(names)
        given_up -= failed
        is_done = (computed if done is None else set(done)) - failed - given_up
        found = SortedInputs(
            up_to_date=frozenset(set(names) - is_done - failed - given_up),
            done=frozenset(is_done),
            failed=frozenset(failed),
            quarantined=frozenset(given_up),
        )
        self._counts = RunCounts(
            noun=noun,
            verb=verb,
            up_to_date=len(found.up_to_date),
            done=len(found.done),
            failed=len(found.failed),
            out_of_memory=sum(summary.out_of_memory for summary in self.summaries),
            quarantined=len(found.quarantined),
            waiting=waiting,
            used_in_part=len(in_part),
            skipped=self._skipped,
            annotated=sum(summary.done for summary in self.summaries if summary.stage == ANNOTATE),
        )
        return found

    def print_summary(self) -> None:
        """Print the table of stages, and a line per failure and problem."""
        rows = [
            [
                s.stage,
                s.units,
                s.ready,
                s.done,
                s.format_failed() if s.out_of_memory else len(s.failures),
                s.format_counts(),
                round(s.seconds, 1),
            ]
            for s in self.summaries
        ]
        print_table(
            "Stages",
            ["stage", "units", "ready", "done", "failed", "rows", "seconds"],
            rows,
            simulated=self.is_simulated,
        )
        self.print_causes()

    def print_counts(self) -> None:
        """Print the numbers of the run in one line."""
        counts = self.counts
        level = logging.WARNING if counts.has_problems else logging.INFO
        print_line(counts.describe(), level=level, is_result=True)

    def print_causes(self) -> None:
        """Print a line per failure, problem and quarantined unit."""
        skipped = [(stage, name, f"{n.cause} ({n.format_tries()})") for stage, name, n in self.quarantined]
        for kind, found in (("failed", self.failures), ("in part", self.problems), ("quarantined", skipped)):
            level = logging.ERROR if kind == "failed" else logging.WARNING
            for stage, name, cause in found[:_FAILURES_SHOWN]:
                print_line(f"{kind}: {stage}: {name}: {cause}", level=level, stage=stage, unit=name)
            if (more := len(found) - _FAILURES_SHOWN) > 0:
                print_line(f"... and {more} more: affwild2 status --store {self.store.url}", level=level)

    def raise_for_failures(self, *, known: bool = True) -> None:
        """Raise an exception if a unit failed, or an input was skipped or used only in part.

        ``known``: include inputs that an earlier run skipped or used in part.

        Raises:
            SomeFailedError: the numbers of failures and problems, and the first one.
        """
        problems = self.problems if known else [(s.stage, *problem) for s in self.summaries for problem in s.problems]
        lost = [one for count, one in self._new_lost if count or (known and one.lost)]
        if self.failures or problems or lost:
            causes = [describe_shared_cause(one) for one in self.summaries if one.shared_cause]
            news = "; a fault of the machine" if causes else ""
            causes += [f"{stage} {name}: {cause}" for stage, name, cause in [*self.failures, *problems]]
            causes += [one.format_lost()[0] for one in lost]
            newly_skipped = 0 if known else sum(count for count, _ in self._new_lost)
            news += f"; {newly_skipped:,} newly skipped" if newly_skipped else ""
            raise SomeFailedError(printable(f"{self.counts.format()}{news}; first: {causes[0]}"))


def _items_of(summary: StageSummary, names: Iterable[str]) -> set[str]:
    """Return the videos or subjects of units of a stage that do not exist."""
    units = [summary.missing.get(name) for name in names]
    return {unit.key.item for unit in units if isinstance(unit, Unit)}
