import pickle

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import InputError
from data_contracts.schemas.faces import SUBJECTS
from data_contracts.store.manifest import Failure, Manifest, UnitKey
from data_contracts.store.store import Store

FINGERPRINT = "ab" * 32


def rows(frames: list[int]) -> pa.Table:
    columns = {"frame": frames, "face": [0] * len(frames), "track": [0] * len(frames), "subject": ["a"] * len(frames)}
    return pa.Table.from_pydict(columns, schema=SUBJECTS.schema)


def write(store: Store, key: UnitKey, tables: list[pa.Table], fingerprint: str = FINGERPRINT) -> Manifest:
    part, size, count = store.write_unit(key, SUBJECTS, tables, fingerprint=fingerprint)
    manifest = Manifest(fingerprint, fingerprint, part, size, count, {"face": count})
    store.finish_unit(key, manifest)
    return manifest


@pytest.fixture
def local_store(tmp_path):
    return Store(tmp_path / "store with space")


@pytest.fixture(params=["disk", "s3"])
def store(request):
    """A store on a disk, and one on a real server of S3."""
    if request.param == "disk":
        return request.getfixturevalue("local_store")
    return Store(request.getfixturevalue("s3_bucket") + "/store with space")


KEY = UnitKey("subjects", (("source", "mtcnn-1"), ("video", "a b/ü=_left")), "00003")


def test_unit_comes_back_as_written(store):
    manifest = write(store, KEY, [rows([1, 2]), rows([3])])
    assert store.manifests("subjects") == {KEY: manifest}
    assert store.read_unit(KEY, manifest)["frame"].to_pylist() == [1, 2, 3]
    assert store.read_unit(KEY, manifest, columns=["face", "frame"]).column_names == ["face", "frame"]
    assert pickle.loads(pickle.dumps(store)).manifests("subjects") == {KEY: manifest}


def test_data_file_contains_units_and_meanings(store):
    schema = store.schema_of(KEY, write(store, KEY, [rows([1])]))
    assert schema.metadata[b"dataset"] == b"subjects"
    assert schema.field("frame").metadata[b"unit"] == b"frames"
    assert all(b"meaning" in field.metadata for field in schema)


def test_hive_readers_decode_names(local_store, tmp_path):
    write(local_store, KEY, [rows([1])])
    partitioning = ds.partitioning(pa.schema([("source", pa.string()), ("video", pa.string())]), flavor="hive")
    table = ds.dataset(tmp_path / "store with space" / "subjects", partitioning=partitioning).to_table()
    assert table["video"].to_pylist() == ["a b/ü=_left"]


def test_unit_without_manifest_does_not_exist(store):
    store.write_unit(KEY, SUBJECTS, [rows([1])], fingerprint=FINGERPRINT)
    assert store.manifests("subjects") == {}


def test_missing_column_is_an_error_in_one_line(store):
    manifest = write(store, KEY, [rows([1])])
    with pytest.raises(InputError, match="no column box; run the same command again to recompute it"):
        store.read_unit(KEY, manifest, columns=["frame", "box"])
    assert store.manifests("subjects") == {}


@pytest.mark.parametrize("damage", ["delete", "shorten", "manifest"])
def test_damaged_unit_does_not_exist(store, damage):
    manifest = write(store, KEY, [rows([1])])
    part = f"{KEY.folder}/{manifest.part}"
    if damage == "delete":
        store.remove(part)
    elif damage == "shorten":
        store.write_bytes(part, store.read_bytes(part)[:-1])
    else:
        store.write_bytes(KEY.manifest_path, b"{")
    assert store.manifests("subjects") == {}


def test_data_files_without_a_manifest_are_listed(store):
    other = UnitKey("subjects", KEY.partitions, "00004")
    write(store, KEY, [rows([1])])
    kept = write(store, other, [rows([9])])
    new = write(store, KEY, [rows([5])], "cd" * 32)
    assert store.manifests_and_orphans("subjects") == ({KEY: new, other: kept}, [KEY.part_path(FINGERPRINT)])


def test_failed_write_leaves_no_trace(store):
    def tables():
        yield rows([1])
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        store.write_unit(KEY, SUBJECTS, tables(), fingerprint=FINGERPRINT)
    assert store.list_folder(KEY.folder) == []


def test_failure_is_kept_until_success(store):
    store.note_failure(KEY, Failure(FINGERPRINT, "no video"))
    assert store.failures("subjects") == {KEY: Failure(FINGERPRINT, "no video")}
    assert store.manifests("subjects") == {}
    write(store, KEY, [rows([1])])
    assert store.failures("subjects") == {}


def test_manifests_of_one_variant_only(store):
    write(store, KEY, [rows([1])])
    assert store.manifests("subjects", source="mtcnn-2") == {}
    assert set(store.manifests("subjects", source="mtcnn-1")) == {KEY}


@pytest.mark.parametrize("name", ["..", ".hidden", "_private", "-dash", "a\nb", "'\"", "100%"])
def test_any_name_stays_inside_the_store(local_store, tmp_path, name):
    key = UnitKey("subjects", (("source", name), ("video", name)), name)
    manifest = write(local_store, key, [rows([1])])
    assert local_store.manifests("subjects") == {key: manifest}
    assert {path.name for path in tmp_path.iterdir()} == {"store with space"}


def test_wrong_columns_and_nulls_are_refused(store):
    with pytest.raises(ValueError, match="expected columns"):
        store.write_unit(KEY, SUBJECTS, [rows([1]).drop_columns(["track"])], fingerprint=FINGERPRINT)
    hole = rows([1]).set_column(0, "frame", pa.array([None], pa.int32()))
    with pytest.raises(ValueError, match="got nulls"):
        store.write_unit(KEY, SUBJECTS, [hole], fingerprint=FINGERPRINT)


@pytest.mark.parametrize("sizes", [[0], [4999], [64] * 78, [2048, 2048, 903], [1, 4095, 0, 903]])
def test_rows_are_stored_in_row_groups_of_2048(local_store, tmp_path, sizes):
    ends = np.cumsum(sizes)
    tables = [rows(list(range(end - size, end))) for size, end in zip(sizes, ends, strict=True)]
    manifest = write(local_store, KEY, tables)
    metadata = pq.read_metadata(tmp_path / "store with space" / KEY.folder / manifest.part)
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert groups == [min(2048, sum(sizes) - first) for first in range(0, sum(sizes), 2048)]
    assert local_store.read_unit(KEY, manifest)["frame"].to_pylist() == list(range(sum(sizes)))


def test_unknown_protocol_and_unwritable_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected a path"):
        Store("nonsense://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder that can be written"):
        Store(tmp_path / "file" / "store").write_bytes("a/b", b"")


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_brackets_and_wildcards_in_names_are_literal(where, tmp_path, s3_bucket):
    store = Store(tmp_path if where == "disk" else f"{s3_bucket}/store")
    keys = [UnitKey("videos", (("video", name),)) for name in ("clip [1]", "clip 1", "clip?", "clip*")]
    for key in keys:
        store.note_failure(key, Failure(FINGERPRINT, key.item))
    assert {key: note.cause for key, note in store.failures("videos").items()} == {key: key.item for key in keys}
    for key in (keys[0], keys[2], keys[3]):
        store.remove_folder(key.folder)
    store.remove_folder("videos/video=never there")
    assert list(store.failures("videos")) == [keys[1]]
