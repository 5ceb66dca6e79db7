from collections import Counter

import pytest

from data_contracts.errors import InputError, StoreError
from data_contracts.schemas import FACES
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from flows.engine.stage_summary import StageSummary, work_here
from tasks.units import Product, Unit, UnitReport


def unit(name):
    return Unit(UnitKey("faces", (("video", name),)), "f" * 64, None)


def compute(store, work):
    name = work.key.value("video")
    if name == "crashes":
        raise ZeroDivisionError("division by zero\nand more")
    if name == "offline":
        raise ConnectionResetError("reset by peer")
    if name == "bad":
        raise InputError("bad video")
    return Product(FACES, [FACES.schema.empty_table()], counts=Counter(face=2))


def test_failures_and_crashes_do_not_stop_other_work(tmp_path):
    store, summary = Store(tmp_path / "store"), StageSummary("stage")
    todo = [unit(name) for name in ("bad", "crashes", "good", "offline")]
    summary.missing = {work.name: work for work in todo}
    work_here(store, todo, compute, summary)
    assert summary.failures == {
        "bad": "bad video",
        "crashes": "ZeroDivisionError: division by zero",
        "offline": "ConnectionResetError: reset by peer",
    }
    assert (summary.done, summary.counts, set(summary.missing)) == (1, {"face": 2}, set(summary.failures))
    notes = {key.value("video"): note.tries for key, note in store.failures("faces").items()}
    assert notes == {"bad": 1, "crashes": 1, "offline": 0}, "network errors do not count as tries"


def test_a_store_that_cannot_be_written_to_ends_the_run(tmp_path):
    summary = StageSummary("stage")
    with pytest.raises(StoreError, match="no space"):
        summary.add(UnitReport("a", cause="no space", ends_the_run=True))
    assert summary.failures == {} and summary.done == 0
