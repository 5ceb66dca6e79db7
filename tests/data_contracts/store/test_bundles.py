import pytest

from data_contracts.errors import InputError
from data_contracts.store.bundles import find_bundle, list_bundles, read_file, require_bundle, write_bundle
from data_contracts.store.details import Details
from data_contracts.store.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_round_trip(store):
    written = write_bundle(store, "heads/expr-1", {"a.txt": b"x"}, fingerprint="f", details=Details(problems=("a",)))
    assert find_bundle(store, "heads/expr-1") == written
    assert list_bundles(store, "heads") == [written] and written.name == "expr-1"
    assert read_file(store, written, "a.txt") == b"x"


@pytest.mark.parametrize("damage", ["changed", "gone", "manifest"])
def test_damaged_bundle_does_not_exist(store, damage):
    write_bundle(store, "heads/h", {"a.txt": b"x"}, fingerprint="f", details=Details())
    if damage == "changed":
        store.write_bytes("heads/h/a.txt", b"y")
    elif damage == "gone":
        store.remove("heads/h/a.txt")
    else:
        store.write_bytes("heads/h/manifest.json", b"[]")
    assert find_bundle(store, "heads/h") is None


def test_unique_beginning_of_a_name_is_accepted(store):
    for name in ("expr-12", "expr-34"):
        write_bundle(store, f"heads/{name}", {}, fingerprint="f", details=Details())
    assert require_bundle(store, "heads", "expr-1").name == "expr-12"
    with pytest.raises(InputError, match="several match; found: expr-12, expr-34"):
        require_bundle(store, "heads", "expr")
    with pytest.raises(InputError, match="none matches; found: expr-12, expr-34"):
        require_bundle(store, "heads", "va")
