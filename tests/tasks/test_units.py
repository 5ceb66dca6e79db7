from dataclasses import dataclass

import pyarrow as pa
import pytest

from data_contracts.errors import InputError
from data_contracts.schemas import FRAMES
from data_contracts.store.manifest import Failure, UnitKey
from data_contracts.store.store import Store
from tasks.units import Product, Unit, remove_unplanned, run_unit, split_pending


@dataclass(frozen=True)
class Args:
    frames: int | str | None


def unit(video, fingerprint="a" * 64, part="00000", frames=3):
    return Unit(UnitKey("frames", (("video", video),), part), fingerprint, Args(frames))


def compute(store, unit):
    if unit.arguments.frames is None:
        raise InputError("no frames; use another file")
    if unit.arguments.frames == "forbidden":
        raise InputError("no permission") from PermissionError(13, "no permission")

    def tables():
        for number in range(1, unit.arguments.frames + 1):
            if number > 5:
                raise InputError("the file ends early")
            product.counts["frames"] += 1
            columns = {"frame": [number], "pts": [number], "pts_seconds": [number / 25], "keyframe": [True]}
            yield pa.Table.from_pydict(columns, schema=FRAMES.schema)

    product = Product(FRAMES, tables())
    return product


def test_done_units_are_known_and_stale_ones_are_not(tmp_path):
    store = Store(tmp_path)
    units = [unit("a"), unit("b")]
    assert split_pending(store, units)[:2] == ([], units)
    report = run_unit(store.url, compute, units[0])
    assert report.cause is None and report.counts == {"frames": 3}
    assert split_pending(store, units) == ([units[0]], [units[1]], [], [])
    assert split_pending(store, [unit("a", "b" * 64)])[0] == []
    companion = Unit(units[0].key, units[0].fingerprint, Args(3), companions=(UnitKey("videos", (("video", "a"),)),))
    assert split_pending(store, [companion])[0] == []


@pytest.mark.parametrize("frames", [None, 9])
def test_a_cause_of_the_input_is_reported_and_leaves_nothing(tmp_path, frames):
    store = Store(tmp_path)
    report = run_unit(store.url, compute, unit("a", frames=frames))
    assert report.cause in ("no frames; use another file", "the file ends early")
    assert store.manifests("frames") == {}
    assert [note.cause for note in store.failures("frames").values()] == [report.cause]
    assert not list(tmp_path.rglob("*.parquet")) and not list(tmp_path.rglob("*.tmp"))


def test_what_failed_too_often_is_left_alone_until_its_input_changes(tmp_path):
    store, bad, good = Store(tmp_path), unit("bad", frames=None), unit("good")

    def try_it(*units, max_tries=2):
        pending = split_pending(store, units, max_tries=max_tries)
        for one in pending.todo:
            run_unit(store.url, compute, one)
        return [one.name for one in pending.todo], [(one.name, note.tries) for one, note in pending.quarantined]

    assert try_it(bad, good) == (["bad", "good"], [])
    assert try_it(bad, good) == (["bad"], [])
    assert try_it(bad, good) == ([], [("bad", 2)])
    assert try_it(bad, max_tries=None) == (["bad"], []), "who asks for it gets it"
    assert try_it(bad) == ([], [("bad", 3)])
    assert try_it(unit("bad", "b" * 64, frames=None)) == (["bad"], []), "another input"
    assert try_it(bad) == (["bad"], []), "counted anew"


def test_what_is_not_the_units_fault_does_not_count(tmp_path):
    store, one = Store(tmp_path), unit("a", frames=None)
    one.note_failure(store, "the network went away", is_a_try=False)
    assert store.failure_of(one.key) == Failure(one.fingerprint, "the network went away", 0)
    for tries in (1, 2):
        run_unit(store.url, compute, one)
        assert store.failure_of(one.key).tries == tries
    one.note_failure(store, "the network went away", is_a_try=False)
    assert store.failure_of(one.key).tries == 2
    forbidden = unit("b", frames="forbidden")
    run_unit(store.url, compute, forbidden)
    assert store.failure_of(forbidden.key) == Failure(forbidden.fingerprint, "no permission", 0)


def test_what_is_not_planned_any_more_goes(tmp_path):
    store = Store(tmp_path)
    for one in (unit("a"), unit("a", part="00001"), unit("b", part="00007")):
        run_unit(store.url, compute, one)
    remove_unplanned(store, [unit("a")])
    assert [(k.value("video"), k.part) for k in store.manifests("frames")] == [("a", "00000"), ("b", "00007")]
    assert len(list(tmp_path.rglob("*.parquet"))) == 2
