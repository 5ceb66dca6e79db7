import functools
import threading
import time

import pytest

from data_contracts.store.store import Store
from flows.engine.run import Run
from flows.extract import extract
from tasks import read_ahead as module
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.read_ahead import read_ahead
from tests.faults.interruption_matrix import read_results


@pytest.fixture
def on_gpu(monkeypatch):
    """Read ahead as on a worker with a GPU."""
    monkeypatch.setattr(module, "uses_gpu", lambda: True)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_pieces_keep_their_order(on_gpu):
    with read_ahead(iter(range(50))) as pieces:
        assert list(pieces) == list(range(50))
    assert threads() == []


def test_thread_reads_three_pieces_ahead(on_gpu):
    produced = []

    def produce():
        for number in range(10):
            produced.append(number)
            yield number

    with read_ahead(produce()) as pieces:
        next(pieces)
        deadline = time.monotonic() + 120
        while len(produced) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        # One is in use, three wait.
        assert produced == [0, 1, 2, 3]
    assert threads() == []


def test_exception_is_raised_after_the_pieces_before_it(on_gpu):
    def produce():
        yield 1
        raise OSError("the disk failed")

    seen = []
    with pytest.raises(OSError, match="the disk failed"), read_ahead(produce()) as pieces:
        for piece in pieces:
            seen.append(piece)
    assert seen == [1] and threads() == []


def test_exception_of_the_consumer_ends_the_thread_and_closes_the_generator(on_gpu):
    closed = []

    def produce():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with pytest.raises(ZeroDivisionError), read_ahead(produce()) as pieces:
        for _ in pieces:
            raise ZeroDivisionError
    assert closed == ["read-ahead_0"] and threads() == []


def test_without_gpu_there_is_no_thread():
    pieces = iter([1, 2])
    with read_ahead(pieces) as same:
        assert same is pieces


def test_read_ahead_does_not_change_the_store(tmp_path, monkeypatch):
    generate_demo_data(tmp_path, params=DemoDataParams(1, 0, 0, frames=24))
    (tmp_path / "videos" / "corrupt.mp4").unlink()
    monkeypatch.setattr(Run, "_run_stage", functools.partialmethod(Run._run_stage, here=True))
    extract(tmp_path, str(tmp_path / "plain"))
    monkeypatch.setattr(module, "uses_gpu", lambda: True)
    extract(tmp_path, str(tmp_path / "ahead"))
    assert read_results(tmp_path / "ahead") == read_results(tmp_path / "plain")
    assert Store(str(tmp_path / "ahead")).manifests("features") and threads() == []
