import os
import shutil
from pathlib import Path

import pytest

from data_contracts.store.manifest import Manifest, UnitKey
from data_contracts.store.store import Store

KEYS = [UnitKey("videos", (("video", name),)) for name in ("a", "b", "c")]


@pytest.fixture
def cache(s3_bucket):
    return Path(os.environ["AFFWILD2_CACHE"])


def manifest(rows):
    return Manifest("0123456789", "i", "part-00000-01234567.parquet", 1, rows)


def put(store, key, rows):
    store.write_bytes(f"{key.folder}/{manifest(rows).part}", b"x")
    store.write_bytes(key.manifest_path, manifest(rows).to_json())


def test_another_process_only_lists_what_is_as_it_was(cache, flaky, s3_bucket):
    def look():
        """What a new process sees, and how many manifests it reads for that."""
        flaky.spoil()
        found = Store(f"{s3_bucket}/store").contents("videos")[0]
        return {key: m.rows for key, m in found.items()}, sum("_manifest-" in r.path for r in flaky.log)

    store = Store(f"{s3_bucket}/store")
    for key in KEYS:
        put(store, key, 1)
    all_of_them = dict.fromkeys(KEYS, 1)
    assert look() == (all_of_them, 3) and look() == (all_of_them, 0)
    # Of the same size, and without a trace of what is gone.
    put(store, KEYS[1], 2)
    store.remove_unit(KEYS[0], manifest(1))
    assert look() == ({KEYS[1]: 2, KEYS[2]: 1}, 1) and look() == ({KEYS[1]: 2, KEYS[2]: 1}, 0)
    store.remove_unit(KEYS[1], manifest(2))
    assert look() == ({KEYS[2]: 1}, 0)
    (file,) = cache.rglob("*.parquet")
    kept = file.read_bytes()
    assert b"video=c" in kept and b"video=a" not in kept and b"video=b" not in kept
    # In a process that had seen it, too, and to the last one.
    store.contents("videos")
    store.remove_unit(KEYS[2], manifest(1))
    assert store.contents("videos") == ({}, {}) and list(cache.rglob("*.parquet")) == []
    put(store, KEYS[2], 1)
    assert look() == ({KEYS[2]: 1}, 1)
    # Damaged, of another kind, or in a place where nothing can be kept.
    file.write_bytes(kept[: len(kept) // 2])
    assert look() == ({KEYS[2]: 1}, 1)
    shutil.rmtree(cache)
    cache.write_bytes(b"a file")
    assert look() == ({KEYS[2]: 1}, 1)
    store.remove_unit(KEYS[2], manifest(1))
    assert look() == ({}, 0)


def test_one_dataset_is_kept_whichever_part_of_it_is_looked_at(cache, flaky, s3_bucket):
    store = Store(f"{s3_bucket}/store")
    keys = [UnitKey("faces", (("source", source), ("video", "a"))) for source in ("m", "n")]
    for key in keys:
        put(store, key, 1)
        assert list(Store(store.url).manifests("faces", source=key.value("source"))) == [key]
    flaky.spoil()
    assert list(Store(store.url).manifests("faces")) == keys
    assert not any("_manifest-" in request.path for request in flaky.log)
