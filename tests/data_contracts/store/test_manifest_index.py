"""The index of manifests: never wrong, written only under the lock, without names of what was removed."""

import contextlib
import io
import json
import os
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from data_contracts.errors import StoreError
from data_contracts.store import manifest_index
from data_contracts.store.lock import lock_store
from data_contracts.store.manifest import Failure, Manifest, UnitKey
from data_contracts.store.manifest_index import INDEX_NAME, variant_of
from data_contracts.store.store import Store

SOURCE = (("source", "m"),)


@pytest.fixture(autouse=True)
def index_from_the_first_unit(monkeypatch):
    monkeypatch.setattr(manifest_index, "_MISSING_MANIFESTS", 0)


@pytest.fixture(params=["disk", "s3"])
def url(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path / "store")
    return request.getfixturevalue("s3_bucket") + "/store"


def key(video, part="00000", dataset="faces"):
    return UnitKey(dataset, (*(SOURCE if dataset == "faces" else ()), ("video", video)), part)


def put(store, unit, rows=1, **changes):
    digest = f"{rows:08x}" * 8
    part = unit.part_path(digest).rsplit("/", 1)[-1]
    manifest = replace(Manifest(digest, digest, part, 1, rows, {"face_found": rows}, 0.5), **changes)
    store.write_bytes(f"{unit.folder}/{manifest.part}", b"x")
    store.write_bytes(unit.manifest_path, manifest.to_json())
    return manifest


def write_index(url, *datasets):
    """List datasets while holding the lock, as a run does."""
    store = Store(url)
    with lock_store(store, on_wait=pytest.fail):
        return {dataset: store.manifests(dataset) for dataset in datasets or ("faces",)}


def index_of(store, folder="faces/source=m"):
    if INDEX_NAME not in store.list_folder(folder):
        return None
    with store.files.opened(f"{folder}/{INDEX_NAME}", 1) as file:
        return pq.read_table(file).to_pylist()


@contextlib.contextmanager
def reads_of_manifests(store):
    """Paths of the manifests that are read one by one."""
    found, read_many = [], store.files.read_many

    def counted(paths):
        found.extend(paths)
        return read_many(paths)

    store.files.read_many = counted
    yield found
    store.files.read_many = read_many


def table_of(store, folder="faces"):
    rows = []
    for _, table in store.index.read_tables(folder, ["path", "rows", "counts", "problems"]):
        rows += table.to_pylist()
    return {row["path"]: (row["rows"], json.loads(row["counts"]), row["problems"]) for row in rows}


def expected_table(units):
    return {
        unit.manifest_path: (m.rows, m.counts, json.dumps(m.details["problems"]) if "problems" in m.details else None)
        for unit, m in units.items()
    }


def test_another_process_reads_the_index_instead_of_manifests(url):
    store = Store(url)
    units = {key("a"): put(store, key("a")), key("b"): put(store, key("b"), 2, identity="other")}
    units[key("ü %/=")] = put(store, key("ü %/="), 3, details={"path": "x\udcff", "problems": ["a", "b"]}, seconds=2)
    assert write_index(url)["faces"] == units
    assert len(index_of(store)) == 3
    other = Store(url)
    with reads_of_manifests(other) as read:
        assert other.manifests("faces") == units
        assert other.manifests("faces", source="m") == units
        assert table_of(other) == expected_table(units)
    assert read == []


def test_changed_new_and_removed_units_are_read_at_once_and_indexed_by_the_next_run(url):
    store = Store(url)
    first, *_ = [put(store, key(name)) for name in ("a", "b", "c")]
    write_index(url)
    observer = Store(url)
    observer.manifests("faces")
    units = {key("b"): put(store, key("b"), 2), key("c"): put(store, key("c"), 1), key("d"): put(store, key("d"))}
    store.remove_unit(key("a"), first)
    before = index_of(store)
    for reader in (observer, Store(url)):
        with reads_of_manifests(reader) as read:
            assert reader.manifests("faces") == units
            assert table_of(reader) == expected_table(units)
        assert key("a").manifest_path not in read and key("b").manifest_path in read
    assert index_of(store) == before, "only the holder of the lock writes"
    assert write_index(url)["faces"] == units
    assert sorted(row["path"] for row in index_of(store)) == sorted(unit.manifest_path for unit in units)
    with lock_store(observer, on_wait=pytest.fail):
        store.remove_folder("faces/source=m/video=b")
        store.remove(key("c").manifest_path)
        store.remove(key("d").manifest_path)
        assert observer.manifests("faces") == {}
    assert index_of(store) is None, "an index without rows is removed"


def test_unit_is_incomplete_if_its_data_file_is_missing_or_has_another_size(url):
    store = Store(url)
    kept = {key("b"): put(store, key("b"))}
    for name, data in (("a", None), ("c", b"xx")):
        manifest = put(store, key(name))
        path = f"{key(name).folder}/{manifest.part}"
        store.remove(path) if data is None else store.write_bytes(path, data)
    for _ in range(2):
        assert write_index(url)["faces"] == kept and table_of(Store(url)) == expected_table(kept)
    put(store, key("a"))
    assert set(Store(url).manifests("faces")) == {key("a"), key("b")}


@pytest.mark.parametrize("damage", ["cut", "garbage", "another table", "flipped"])
def test_damaged_index_is_ignored_and_written_again(url, damage, tmp_path):
    store = Store(url)
    units = {key(name): put(store, key(name)) for name in ("a", "b")}
    write_index(url)
    path = f"faces/source=m/{INDEX_NAME}"
    whole = store.read_bytes(path)
    with pq.ParquetFile(io.BytesIO(whole)) as parquet:
        place = parquet.metadata.row_group(0).column(5).data_page_offset + 40
        pq.write_table(parquet.read().drop_columns(["rows"]), tmp_path / "other")
    damaged = {
        "cut": whole[: len(whole) // 2],
        "garbage": b"PAR1" * 100,
        "another table": (tmp_path / "other").read_bytes(),
        "flipped": whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :],
    }
    store.write_bytes(path, damaged[damage])
    assert Store(url).manifests("faces") == units and table_of(Store(url)) == expected_table(units)
    assert write_index(url)["faces"] == units
    assert len(index_of(store)) == 2


def test_garbage_and_manifests_of_wrong_types_are_not_units(url):
    store = Store(url)
    units = {key("a"): put(store, key("a"))}
    wrong_fields = {"b": {"rows": "many"}, "c": {"rows": 2**70}, "d": {"counts": []}, "e": {"part": 3}}
    for name, changes in (wrong_fields | {"g": {"seconds": 10**400}, "h": {"seconds": 2**60 + 1}}).items():
        put(store, key(name))
        wrong = replace(Manifest("f", "i", "part-00000-00000001.parquet", 1, 1), **changes)
        store.write_bytes(key(name).manifest_path, wrong.to_json())
    store.write_bytes(key("f").manifest_path, b"{")
    assert write_index(url)["faces"] == units and table_of(Store(url)) == expected_table(units)


def test_each_variant_has_its_own_index_which_a_part_of_the_variant_does_not_need(url):
    store = Store(url)
    other = UnitKey("faces", (("source", "n"), ("video", "a")))
    units = {key("a"): put(store, key("a")), other: put(store, other)}
    videos = {key("a", dataset="videos"): put(store, key("a", dataset="videos"))}
    assert write_index(url, "faces", "videos") == {"faces": units, "videos": videos}
    assert [len(index_of(store, folder)) for folder in ("faces/source=m", "faces/source=n", "videos")] == [1, 1, 1]
    store.note_failure(key("z"), Failure("f", "why"))
    reader = Store(url)
    assert reader.failures("faces") == {key("z"): Failure("f", "why")}
    assert reader.manifests("faces", source="n") == {other: units[other]}
    assert reader.manifests("videos", video="a") == videos
    with lock_store(reader, on_wait=pytest.fail):
        assert reader.manifests("videos", video="a") == videos and reader.manifests("videos", video="b") == {}
    assert len(index_of(store, "videos")) == 1


def test_names_are_removed_from_all_indexes(url):
    store = Store(url)
    names = ("clip", "clip_left", "clip 2")
    for name in names:
        put(store, key(name))
        put(store, key(name, dataset="videos"))
    labels = UnitKey("labels", (("task", "va"), ("set", "train")))
    put(store, labels, details={"subjects": ["clip"]})
    write_index(url, "faces", "videos", "labels")
    Store(url).remove_from_indexes(["clip", "clip 2"], labels=[labels])
    for folder in ("faces/source=m", "videos"):
        assert [row["path"] for row in index_of(store, folder)] == [f"{folder}/video=clip_left/_manifest-00000.json"]
    assert index_of(store, "labels/task=va") is None
    assert len(Store(url).manifests("faces")) == 3, "the units are still there"


def test_small_changes_do_not_write_the_index(url, monkeypatch):
    monkeypatch.setattr(manifest_index, "_MISSING_MANIFESTS", 2)
    store = Store(url)
    put(store, key("a"))
    put(store, key("b"))
    write_index(url)
    assert index_of(store) is None
    put(store, key("c"))
    write_index(url)
    assert len(index_of(store)) == 3


def test_failure_to_write_the_index_is_ignored(tmp_path, monkeypatch):
    store = Store(tmp_path)
    units = {key("a"): put(store, key("a"))}

    def refuse(path):
        raise StoreError("store: expected space")

    with lock_store(store, on_wait=pytest.fail):
        monkeypatch.setattr(store.files, "replacing", refuse)
        assert store.manifests("faces") == units
    assert index_of(store) is None


def test_foreign_names_in_the_store_are_ignored(tmp_path):
    store = Store(tmp_path)
    units = {key("a"): put(store, key("a"))}
    foreign = [b"faces/_manifest-1.json", b"faces/x/_manifest-1.json", b"faces/source=m/video=\xff/_manifest-1.json"]
    foreign += [b"faces/source=m/video=a/_manifest-\xff.json", b"faces/source=m/video=a/\xff.parquet"]
    for path in foreign:
        full = os.path.join(os.fsencode(tmp_path), path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(Manifest("f", "i", "p", 1, 1).to_json())
    assert write_index(tmp_path)["faces"] == units and table_of(store) == expected_table(units)


@pytest.mark.parametrize(
    ("folder", "variant"),
    [
        ("videos/video=a", "videos"),
        ("features/backbone=b/source=s/subject=x", "features/backbone=b/source=s"),
        ("labels/task=va/set=train", "labels/task=va"),
        ("faces", "faces"),
        ("faces/source=s/video=source=s", "faces/source=s"),
    ],
)
def test_variant_of_a_folder(folder, variant):
    assert variant_of(folder) == variant
