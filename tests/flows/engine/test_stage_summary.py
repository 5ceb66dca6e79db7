from collections import Counter

import av
import pytest

from data_contracts.errors import InvalidFileError, StoreError
from data_contracts.schemas.faces import FACES
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from flows.engine.stage_summary import StageSummary, report_crash, work_here
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
        raise InvalidFileError("bad video")
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
    assert summary.faults == {"bad": "input", "crashes": "other", "offline": "other"}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("std::bad_alloc"), "memory"),
        (RuntimeError("Exception from plugin.cpp:54: Resource temporarily unavailable"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (av.error.MemoryError(12, "Cannot allocate memory"), "memory"),
        (RuntimeError("basic_ios::clear: iostream error"), "other"),
        (OSError(24, "Too many open files"), "other"),
        (ValueError("a defect"), "other"),
        (av.error.InvalidDataError(1094995529, "Invalid data found when processing input"), "input"),
        (av.error.OSError(5, "Input/output error"), "other"),
    ],
)
def test_a_crash_is_a_fault_of_the_input_only_if_the_decoder_reports_it(tmp_path, error, fault):
    report = report_crash(Store(tmp_path), unit("a"), error)
    assert report.fault == fault and str(error).split(".")[0] in report.cause
    assert report.cause.startswith("out of memory: ") == (fault == "memory")


def test_a_memory_limit_is_named_in_the_table():
    summary = StageSummary("stage")
    summary.add(UnitReport("a", cause="bad video", fault="input"))
    assert summary.format_failed() == "1"
    summary.add(UnitReport("b", cause="out of memory: ...", fault="memory"))
    assert summary.format_failed() == "2 (1 out of memory)"


def test_a_store_that_cannot_be_written_to_ends_the_run(tmp_path):
    summary = StageSummary("stage")
    with pytest.raises(StoreError, match="no space"):
        summary.add(UnitReport("a", cause="no space", ends_the_run=True))
    assert summary.failures == {} and summary.done == 0
