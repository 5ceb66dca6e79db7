import pyarrow as pa
import pytest

from data_contracts.errors import InputError
from data_contracts.manifest import UnitKey
from data_contracts.schemas import FRAMES
from data_contracts.store import Store
from tasks.units import Product, Unit, remove_unplanned, run_unit, split_pending


def unit(video, fingerprint="a" * 64, part="00000", frames=3):
    return Unit(UnitKey("frames", (("video", video),), part), fingerprint, {"frames": frames})


def compute(store, unit):
    if unit.arguments["frames"] is None:
        raise InputError("no frames; use another file")

    def tables():
        for number in range(1, unit.arguments["frames"] + 1):
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
    assert split_pending(store, units) == ([units[0]], [units[1]], [])
    assert split_pending(store, [unit("a", "b" * 64)])[0] == []
    companion = Unit(units[0].key, units[0].fingerprint, companions=(UnitKey("videos", (("video", "a"),)),))
    assert split_pending(store, [companion])[0] == []


@pytest.mark.parametrize("frames", [None, 9])
def test_a_cause_of_the_input_is_reported_and_leaves_nothing(tmp_path, frames):
    store = Store(tmp_path)
    report = run_unit(store.url, compute, unit("a", frames=frames))
    assert report.cause in ("no frames; use another file", "the file ends early")
    assert store.manifests("frames") == {}
    assert [note.cause for note in store.failures("frames").values()] == [report.cause]
    assert not list(tmp_path.rglob("*.parquet")) and not list(tmp_path.rglob("*.tmp"))


def test_what_is_not_planned_any_more_goes(tmp_path):
    store = Store(tmp_path)
    for one in (unit("a"), unit("a", part="00001"), unit("b", part="00007")):
        run_unit(store.url, compute, one)
    remove_unplanned(store, [unit("a")])
    assert [(k.value("video"), k.part) for k in store.manifests("frames")] == [("a", "00000"), ("b", "00007")]
    assert len(list(tmp_path.rglob("*.parquet"))) == 2
