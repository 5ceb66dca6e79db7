import threading

import pytest

from data_contracts.errors import StoreError
from data_contracts.files import s3_requests
from data_contracts.store.store import Store
from tests.flaky_s3 import (
    CUT_ANSWER,
    CUT_BEFORE,
    CUT_BODY,
    CUT_UPLOAD,
    ERROR_500,
    HELD_UPLOAD,
    SILENCE,
    SLOW_DOWN,
    TRICKLE,
    Fault,
)

OLD, NEW = b"old" * 30_000, b"new" * 40_000


@pytest.fixture
def store(flaky, s3_bucket):
    store = Store(f"{s3_bucket}/store")
    store.write_bytes("a/old", OLD)
    return store


def test_what_fails_in_passing_is_repeated_with_growing_waits(flaky, store):
    for kind in (ERROR_500, SLOW_DOWN, CUT_BEFORE, CUT_ANSWER, CUT_BODY, TRICKLE):
        flaky.spoil(Fault(kind, "GET", "a/old", times=3))
        assert store.read_bytes("a/old") == OLD
        (waits,) = flaky.waits()
        # A connection that was in use before and is cut is opened once more at once.
        waits = [wait for wait in waits if wait > 0.05]
        assert len(waits) >= {TRICKLE: 0, CUT_BEFORE: 1, CUT_ANSWER: 1}.get(kind, 3)
        assert all(wait >= 0.07 * 1.7**number for number, wait in enumerate(waits))
    for kind in (ERROR_500, SLOW_DOWN, CUT_BEFORE, CUT_ANSWER, CUT_UPLOAD):
        flaky.spoil(Fault(kind, "PUT", "a/new", times=3))
        store.write_bytes("a/new", NEW)
        assert store.read_bytes("a/new") == NEW and {r.spoiled for r in flaky.log} == {kind, None}
        store.remove("a/new")


def test_a_write_is_seen_whole_or_not_at_all(flaky, store):
    flaky.spoil(Fault(HELD_UPLOAD, "PUT"))
    for name, before in (("a/old", OLD), ("a/new", None)):
        flaky.half_sent.clear()
        flaky.go_on.clear()
        writer = threading.Thread(target=store.write_bytes, args=(name, NEW))
        writer.start()
        assert flaky.half_sent.wait(20)
        assert store.exists(name) == (before is not None) and set(store.files_below("a")) <= {"a/old", name}
        if before:
            assert store.read_bytes(name) == before
        flaky.go_on.set()
        writer.join()
        assert store.read_bytes(name) == NEW


def test_an_upload_that_is_always_cut_leaves_nothing_and_is_one_line(flaky, store, monkeypatch):
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "1")
    flaky.spoil(Fault(CUT_UPLOAD, "PUT"))
    for name in ("a/new", "a/old"):
        with pytest.raises(StoreError, match=rf"expected a store that can be written at .*{name}, got: \d+ tries") as e:
            store.write_bytes(name, NEW)
        assert "\n" not in str(e.value) and flaky.address in str(e.value)
    assert sum(request.method == "PUT" for request in flaky.log) > 6
    assert list(store.files_below("a")) == ["a/old"] and store.read_bytes("a/old") == OLD


@pytest.mark.parametrize("kind", [SILENCE, CUT_BODY, ERROR_500])
def test_a_server_that_has_gone_is_given_up_however_much_is_asked_of_it(kind, flaky, s3_bucket, monkeypatch):
    store, names = Store(f"{s3_bucket}/store"), [f"a/{number}" for number in range(50)]
    for name in names:
        store.write_bytes(name, b"12")
    monkeypatch.setattr(s3_requests, "_READ_SECONDS", 0.5)
    monkeypatch.setenv("AFFWILD2_PATIENCE_SECONDS", "1")
    flaky.spoil(Fault(kind, "GET", "/a/"))
    store = Store(f"{s3_bucket}/store")
    for ask in (lambda: store.files.read_many(names), lambda: store.read_bytes("a/1")):
        with pytest.raises(StoreError, match=r"got: .*check AWS_ENDPOINT_URL_S3 .*run again") as caught:
            ask()
        assert "\n" not in str(caught.value)
    # As many as are under way at a time; the others are not asked for.
    assert len({request.path for request in flaky.log}) <= 32
