"""The numbers of a run, which its last line, the state of its flow run, its artifact, report and metrics share."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.errors import counted
from flows.engine.stage_summary import StageSummary

# The stage that writes annotated copies.
ANNOTATE = "annotate_video"


@dataclass(frozen=True)
class RunCounts:
    """What a run did, in numbers of its inputs, or of the units of all stages if the run has not counted inputs.

    Attributes:
        noun: what is counted, in the singular.
        verb: what happened to inputs that are ``done``.
        out_of_memory: failed units that needed more memory than there was.
        waiting: files that may still be growing.
        used_in_part: inputs with lost parts; they are also counted as done or up to date.
        skipped: files that a reader skipped, besides harmless ones.
        annotated: videos whose annotated copy was written; they are also counted as done or up to date.
    """

    noun: str = "unit"
    verb: str = "done"
    up_to_date: int = 0
    done: int = 0
    failed: int = 0
    out_of_memory: int = 0
    quarantined: int = 0
    waiting: int = 0
    used_in_part: int = 0
    skipped: int = 0
    annotated: int = 0

    @property
    def total(self) -> int:
        """The number of all inputs or units."""
        return self.up_to_date + self.done + self.failed + self.quarantined + self.waiting

    @property
    def has_problems(self) -> bool:
        """Whether anything is missing in the results."""
        return bool(self.failed or self.quarantined or self.used_in_part or self.skipped)

    def format(self) -> str:
        """Return all numbers but zeros, such as ``12 up to date, 3 scored, 1 failed, 3 quarantined``."""
        numbers = {
            "up to date": self.up_to_date,
            self.verb: self.done,
            "annotated": self.annotated,
            "failed": self.failed,
            "quarantined": self.quarantined,
            "waiting": self.waiting,
            "used in part": self.used_in_part,
            "skipped": self.skipped,
        }
        memory = {"failed": f" ({self.out_of_memory:,} out of memory)"} if self.out_of_memory else {}
        shown = [f"{number:,} {what}{memory.get(what, '')}" for what, number in numbers.items() if number]
        return ", ".join(shown) or "nothing to do"

    def describe(self) -> str:
        """Return the total and all numbers, such as ``4 videos: 3 up to date, 1 failed``."""
        return f"{counted(self.total, self.noun)}: {self.format()}"


def count_units(summaries: Sequence[StageSummary], *, skipped: int) -> RunCounts:
    """Return the numbers of units of all stages."""
    return RunCounts(
        up_to_date=sum(summary.ready for summary in summaries),
        done=sum(summary.done for summary in summaries),
        failed=sum(len(summary.failures) for summary in summaries),
        out_of_memory=sum(summary.out_of_memory for summary in summaries),
        quarantined=sum(len(summary.quarantined) for summary in summaries),
        used_in_part=sum(len({name for name, _ in summary.all_problems}) for summary in summaries),
        skipped=skipped,
    )


@dataclass(frozen=True)
class SortedInputs:
    """Names of inputs by the result of a run."""

    up_to_date: frozenset[str]
    done: frozenset[str]
    failed: frozenset[str]
    quarantined: frozenset[str]
