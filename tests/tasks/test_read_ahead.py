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
from tests.faults.interruption_matrix import data_bytes


@pytest.fixture
def apart(monkeypatch):
    """As on a GPU worker."""
    monkeypatch.setattr(module, "is_worth_it", lambda: True)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_the_same_pieces_in_order(apart):
    with read_ahead(iter(range(50))) as pieces:
        assert list(pieces) == list(range(50))
    assert threads() == []


def test_pieces_are_drawn_while_others_are_used_and_never_many(apart):
    drawn = []

    def draw():
        for number in range(10):
            drawn.append(number)
            yield number

    with read_ahead(draw()) as pieces:
        next(pieces)
        deadline = time.monotonic() + 10
        while len(drawn) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        # One is used, two wait, one is in the hand of the thread.
        assert drawn == [0, 1, 2, 3]
    assert threads() == []


def test_what_the_decoder_raises_comes_after_what_it_gave(apart):
    def draw():
        yield 1
        raise OSError("the disk failed")

    seen = []
    with pytest.raises(OSError, match="the disk failed"), read_ahead(draw()) as pieces:
        for piece in pieces:
            seen.append(piece)
    assert seen == [1] and threads() == []


def test_an_error_of_the_user_ends_the_thread_and_closes_the_file(apart):
    closed = []

    def draw():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with pytest.raises(ZeroDivisionError), read_ahead(draw()) as pieces:
        for _ in pieces:
            raise ZeroDivisionError
    assert closed == ["read-ahead"] and threads() == []


def test_processors_use_no_thread():
    pieces = iter([1, 2])
    with read_ahead(pieces) as same:
        assert same is pieces


def test_faces_and_features_are_the_same_bytes(tmp_path, monkeypatch):
    generate_demo_data(tmp_path, params=DemoDataParams(1, 0, 0, frames=24))
    (tmp_path / "videos" / "corrupt.mp4").unlink()
    monkeypatch.setattr(Run, "_run_stage", functools.partialmethod(Run._run_stage, here=True))
    extract(tmp_path, str(tmp_path / "plain"))
    monkeypatch.setattr(module, "is_worth_it", lambda: True)
    extract(tmp_path, str(tmp_path / "ahead"))
    assert data_bytes(tmp_path / "ahead") == data_bytes(tmp_path / "plain")
    assert Store(str(tmp_path / "ahead")).manifests("features") and threads() == []
