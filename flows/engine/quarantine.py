"""Quarantine: which failures of a stage count as tries of their units, and which are a fault of the machine.

Scheduled runs skip a unit after several tries (``tasks.units.split_pending``).
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from data_contracts.errors import counted, printable
from data_contracts.store.store import Store
from flows.engine.stage_summary import StageSummary
from tasks.units import Unit, Work

_MIN_INPUTS = 2
_PATH = re.compile(r"\S*/\S*")
_NUMBER = re.compile(r"\d[\d,.]*")


def count_tries(store: Store, todo: Sequence[Work], summary: StageSummary, *, release: bool = False) -> None:
    """Count the failures that the inputs caused as tries, unless all units failed for one cause.

    ``release``: quarantined units were tried again; those that now fail for another reason than their input are no
    longer quarantined.
    """
    failed = {unit.name: unit for unit in todo if isinstance(unit, Unit) and unit.name in summary.failures}
    notes = store.read_failures([unit.key.failure_path for unit in failed.values()])
    is_shared = _share_one_cause(list(failed.values()), summary)
    if is_shared and not any(note.tries for note in notes.values()):
        summary.shared_cause = next(iter(summary.failures.values()))
    for name, unit in failed.items():
        note = notes.get(unit.key)
        if note is None or note.fingerprint != unit.fingerprint:
            continue
        if summary.faults.get(name) in ("input", "names") and not summary.shared_cause:
            store.note_failure(unit.key, replace(note, tries=note.tries + 1))
        elif release and note.tries:
            store.note_failure(unit.key, replace(note, tries=0))


def _share_one_cause(failed: Sequence[Unit], summary: StageSummary) -> bool:
    """Return whether units of several inputs were computed, and all failed for one cause.

    Names that several files share are found without reading a file, so the machine cannot be the cause. If all units
    failed because their files are invalid, units that earlier runs have finished show that valid files are accepted.
    """
    if summary.done or summary.reads_wrong_unit or len({unit.key.item for unit in failed}) < _MIN_INPUTS:
        return False
    faults = {summary.faults.get(unit.name) for unit in failed}
    if "names" in faults or (faults == {"input"} and summary.ready):
        return False
    if faults == {"memory"}:
        # The lack of memory shows in other places each time.
        return True
    return len({_generalise(summary.failures[unit.name], unit) for unit in failed}) == 1


def _generalise(cause: str, unit: Unit) -> str:
    """Return a cause without paths and numbers. Paths of input files may contain spaces."""
    for path in unit.input_files:
        cause = cause.replace(printable(path), "/")
    return _NUMBER.sub("0", _PATH.sub("/", cause))


def describe_shared_cause(summary: StageSummary) -> str:
    """Return one line about a stage whose units all failed for one cause."""
    is_of_files = set(summary.faults.values()) == {"input"}
    action = "correct it and run again" + (", or remove these files if they are invalid" if is_of_files else "")
    return (
        f"{summary.stage}: all {counted(len(summary.failures), 'unit')} of this run failed for one cause, so it is "
        f"probably the machine or a setting, and no input is quarantined for it; {action}: {summary.shared_cause}"
    )
