"""What is expected of a fault, and the line of the table that a trial of it results in."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.unattended.trial import Trial

_MESSAGE_SHOWN = 300


@dataclass(frozen=True)
class Case:
    """A fault of a deployed run and the expected behaviour.

    Attributes:
        name: as in the table of docs/operations.md.
        fault: starts the run, brings the fault about, watches the run, and removes the cause.
            The next run starts afterwards, unless the fault starts it.
        shown: possible types of the state of the run two minutes after the fault, or at its end if the case waits.
        message: pattern that the message of this state contains.
        next: type of the final state of the next run; empty if there is none.
        next_message: pattern that its message contains.
        without: videos whose results differ from those of an undisturbed run.
        compared: whether the results are compared with those of an undisturbed run.
        ended_within: seconds after the fault within which the run must have ended; None: it may run on.
        needs: tells what this machine lacks for the case, or None.
        postgres: whether the server stores its runs in PostgreSQL.
    """

    name: str
    fault: Callable[[Trial], None]
    shown: tuple[str, ...] = ("FAILED",)
    message: str = ""
    next: str = "COMPLETED"
    next_message: str = ""
    without: tuple[str, ...] = ()
    compared: bool = True
    ended_within: float | None = 120
    needs: Callable[[], str | None] = lambda: None
    postgres: bool = False

    def judge(self, trial: Trial) -> list[str]:
        """Return everything that is not as expected."""
        problems, shown = trial.problems, trial.end or trial.shown
        if shown is None or shown.type not in self.shown:
            problems.append(f"shown is {shown}, expected {' or '.join(self.shown)}")
        elif not re.search(self.message, shown.message):
            problems.append(f"message is {shown.message!r}, expected {self.message!r}")
        if self.ended_within and (trial.ended_seconds is None or trial.ended_seconds > self.ended_within):
            problems.append(f"ended after {trial.ended_seconds} s, expected {self.ended_within} s")
        if self.next:
            if trial.next is None or trial.next.type != self.next:
                problems.append(f"the next run is {trial.next}, expected {self.next}")
            elif re.search("failed|quarantined", trial.next.message):
                problems.append(f"the next run is not complete: {trial.next}")
            elif not re.search(self.next_message, trial.next.message):
                problems.append(f"message of the next run is {trial.next.message!r}, expected {self.next_message!r}")
        if self.compared:
            trial.check_results(without=self.without)
        trial.check_logs()
        return problems

    def row(self, trial: Trial) -> str:
        """Return the row of the table in Markdown."""
        shown = str(trial.shown)
        if trial.shown and trial.end and trial.end.type != trial.shown.type:
            shown = f"{shown}, then {trial.end}"
        ended = "" if trial.ended_seconds is None else f"{trial.ended_seconds:.0f} s"
        then, complete = trial.note, ""
        if trial.next:
            started = trial.next_started_seconds
            wait = "" if started is None else f"starts after {started:.0f} s; "
            then = "; ".join(filter(None, [trial.note, f"{wait}{_shown(str(trial.next))}"]))
            complete = f"{trial.next.seconds:.0f} s"
        return f"| {self.name} | {_shown(shown)} | {ended} | {then} | {complete} |"


def _shown(text: str) -> str:
    text = " ".join(text.replace("|", "\\|").split())
    return text if len(text) <= _MESSAGE_SHOWN else f"{text[:_MESSAGE_SHOWN]}..."
