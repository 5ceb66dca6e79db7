import pytest

from data_contracts.details.records import Details
from data_contracts.store.bundles import find_bundle, list_bundles, match_bundles, read_file, write_bundle
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


def test_names_match_exactly_or_by_their_beginning(store):
    for name in ("expr", "expr-12", "expr-34", "va-12"):
        write_bundle(store, f"heads/{name}", {}, fingerprint="f", details=Details())
    found = {
        given: [bundle.name for bundle in match_bundles(list_bundles(store, "heads"), given)]
        for given in ("expr", "expr-1", "expr-", "au", "")
    }
    assert found == {"expr": ["expr"], "expr-1": ["expr-12"], "expr-": ["expr-12", "expr-34"], "au": [], "": []}
