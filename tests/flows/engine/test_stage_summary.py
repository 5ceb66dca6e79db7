import pytest

from data_contracts.errors import StoreError
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from flows.engine.stage_summary import StageSummary, work_here
from tasks.units import Unit, UnitReport


def unit(name):
    return Unit(UnitKey("faces", (("video", name),)), "f" * 64, None)


def run_as_named(store_url, compute, work):
    name = work.key.value("video")
    if name == "crashes":
        raise ZeroDivisionError("division by zero\nand more")
    if name == "offline":
        raise ConnectionResetError("reset by peer")
    return UnitReport(work.name, counts={"face": 2}, cause="bad video" if name == "bad" else None)


def test_one_that_fails_or_crashes_stops_nobody_else(tmp_path):
    store, summary = Store(tmp_path / "store"), StageSummary("stage")
    todo = [unit(name) for name in ("bad", "crashes", "good", "offline")]
    summary.missing = {work.name: work for work in todo}
    work_here(store, todo, run=run_as_named, compute=None, summary=summary)
    assert summary.failures == {
        "bad": "bad video",
        "crashes": "ZeroDivisionError: division by zero",
        "offline": "ConnectionResetError: reset by peer",
    }
    assert (summary.done, summary.counts, set(summary.missing)) == (1, {"face": 2}, set(summary.failures))
    notes = {key.value("video"): note.tries for key, note in store.failures("faces").items()}
    assert notes == {"crashes": 1, "offline": 0}, "what is the machine's does not count as a try"


def test_a_store_that_cannot_be_written_to_ends_the_run(tmp_path):
    summary = StageSummary("stage")
    with pytest.raises(StoreError, match="no space"):
        summary.add(UnitReport("a", cause="no space", ends_the_run=True))
    assert summary.failures == {} and summary.done == 0
