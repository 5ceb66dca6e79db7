import os
from pathlib import Path

import pytest

from data_contracts.errors import InputError
from data_contracts.files.locations import is_remote, location
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


@pytest.mark.parametrize("text", ["/a/b", "a b.mp4", "~/x", "C:x", "ü?#%20"])
def test_paths_stay_paths(text):
    assert location(text) == Path(text) == location(Path(text))
    assert type(location(text)) is type(Path())
    assert location(f"file:///a/{text}") == Path(f"/a/{text}")


@pytest.mark.parametrize("text", ["s3://bucket", "s3://bucket/a b/ü?#%20.mp4", "s3://my.bucket/a/b"])
def test_urls_round_trip(text):
    place = location(text)
    assert is_remote(place) and str(place).rstrip("/") == text and location(place) is place
    assert location(str(place)) == place
    assert location(text + "/") == place
    assert (place / "c.mp4").stem == "c" and str(place / "c.mp4") == text + "/c.mp4"


@pytest.mark.parametrize(
    "text", ["s3:/bucket/x", "s3:///x", "s3://", "S3://b/x", "gs://bucket/x", "http://x/y", "file://x"]
)
def test_other_protocols_and_typos_are_refused(text):
    with pytest.raises(InputError, match="expected a path, file:///FOLDER or s3://BUCKET/FOLDER, got") as caught:
        location(text)
    assert repr(text) in str(caught.value)


@pytest.fixture(params=["disk", "s3"])
def store(request, tmp_path):
    return Store(tmp_path / "store" if request.param == "disk" else request.getfixturevalue("s3_bucket") + "/store")


def test_every_method_refuses_a_path_outside_the_store(store):
    methods = [
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
        for method in methods:
            with pytest.raises(InputError, match="store: expected a name within it, got "):
                method(path)


@pytest.mark.parametrize("name", ODD)
def test_a_unit_of_any_name_is_inside_the_store(name, tmp_path):
    store, key = Store(tmp_path / "store"), UnitKey("faces", (("source", "s"), ("video", name)), name)
    for path in (key.manifest_path, key.failure_path, key.part_path("f" * 64)):
        store.write_bytes(path, b"x")
        assert os.path.realpath(store.locate(path)).startswith(str(tmp_path / "store/faces/source=s/video="))
    (tmp_path / "store" / ".unfinished").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["faces"]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


def test_a_bundle_with_files_outside_the_store_is_refused(tmp_path):
    store = Store(tmp_path / "store")
    (tmp_path / "secret").write_text("s")
    manifest = {"folder": "heads/x", "fingerprint": "f", "files": {"../../../secret": "d"}, "details": {}}
    store.write_bytes("heads/x/manifest.json", to_sealed_json(manifest))
    with pytest.raises(InputError, match="store: expected a name within it"):
        find_bundle(store, "heads/x")
