"""Names from data as they become paths: none leads out of a store, on a disk or on S3."""

import os

import pytest

from data_contracts.errors import InputError
from data_contracts.store.bundles import find_bundle
from data_contracts.store.manifest import UnitKey, to_sealed_json
from data_contracts.store.store import Store

HOSTILE = ["../outside", "heads/../../outside", "/etc/outside", "..", "a\0b"]
ODD = [
    "..",
    ".",
    "../../x",
    "/etc/passwd",
    "a\0b",
    "line\nfeed",
    "a/b",
    "\\\\host\\x",
    "%2e%2e",
    "-rf",
    "_x",
    ".x",
    "~",
    "*",
]


@pytest.fixture(params=["disk", "s3"])
def store(request, tmp_path):
    return Store(tmp_path / "store" if request.param == "disk" else request.getfixturevalue("s3_bucket") + "/store")


def test_every_way_in_refuses_a_path_that_leads_out(store):
    ways = [
        lambda path: store.write_bytes(path, b"x"),
        store.read_bytes,
        store.exists,
        store.list_folder,
        store.files_below,
        store.remove,
        store.remove_folder,
        store.locate,
        lambda path: store.files.read_many([path]),
        lambda path: store.files.opened(path, 9).__enter__(),
    ]
    for path in HOSTILE:
        for way in ways:
            with pytest.raises(InputError, match="store: expected a name within it, got "):
                way(path)


@pytest.mark.parametrize("name", ODD)
def test_a_unit_of_any_name_lies_within_the_store(name, tmp_path):
    store, key = Store(tmp_path / "store"), UnitKey("faces", (("source", "s"), ("video", name)), name)
    for path in (key.manifest_path, key.failure_path, key.part_path("f" * 64)):
        store.write_bytes(path, b"x")
        assert os.path.realpath(store.locate(path)).startswith(str(tmp_path / "store/faces/source=s/video="))
    (tmp_path / "store" / ".unfinished").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["faces"]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


def test_a_bundle_that_names_files_elsewhere_is_not_followed(tmp_path):
    store = Store(tmp_path / "store")
    (tmp_path / "secret").write_text("s")
    manifest = {"folder": "heads/x", "fingerprint": "f", "files": {"../../../secret": "d"}, "details": {}}
    store.write_bytes("heads/x/manifest.json", to_sealed_json(manifest))
    with pytest.raises(InputError, match="store: expected a name within it"):
        find_bundle(store, "heads/x")
