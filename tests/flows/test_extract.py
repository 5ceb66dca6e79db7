import os
import shutil
from pathlib import Path

import pytest

from data_contracts.errors import InputError
from data_contracts.store.store import Store
from flows.engine.run import SomeFailedError
from flows.extract import extract
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.extract import crop_faces

DATASETS = ("videos", "frames", "faces", "subjects", "features")


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Three short videos, one with two people and the subject names for both."""
    folder = tmp_path_factory.mktemp("small") / "data"
    generate_demo_data(folder, params=DemoDataParams(3, 0, 1, frames=24))
    (folder / "videos" / "corrupt.mp4").unlink()
    (folder / "videos" / "train03.mp4").unlink()
    return folder


@pytest.fixture
def small_data(generated, tmp_path):
    return Path(shutil.copytree(generated, tmp_path / "data"))


def parts(store_url, *, without=()):
    """Return the data bytes of each unit, which must be equal in two runs."""
    store = Store(store_url)
    units = ((key, m) for name in DATASETS if name not in without for key, m in store.manifests(name).items())
    return {key: store.read_bytes(f"{key.folder}/{m.part}") for key, m in units}


def times(store_url):
    return {path: path.stat().st_mtime_ns for path in Path(store_url).rglob("*.parquet")}


def test_second_run_computes_only_deleted_units(small_data, tmp_path, dask_address):
    store = tmp_path / "store"
    first = extract(small_data, str(store), dask_address=dask_address)
    before, stamps = parts(store), times(store)
    assert {key.value("subject") for key in before if key.dataset == "features"} == {
        "train01",
        "train02",
        "test01_left",
        "test01_right",
    }
    assert extract(small_data, str(store), dask_address=dask_address) == first
    assert times(store) == stamps

    lost = next(path for path in stamps if "features" in str(path))
    lost.unlink()
    os.utime(small_data / "videos" / "train01.mp4")
    extract(small_data, str(store), dask_address=dask_address)
    assert parts(store, without=("videos",)) == {k: v for k, v in before.items() if k.dataset != "videos"}
    changed = {path for path, stamp in times(store).items() if stamps.get(path) != stamp}
    names = {path.parent.name.split("=")[0] + ":" + path.relative_to(store).parts[0] for path in changed}
    assert names <= {"video:videos", "video:frames", "subject:features"} and lost in changed


def test_changed_video_and_new_code_version_are_recomputed(small_data, tmp_path, dask_address, monkeypatch):
    store = str(tmp_path / "store")
    extract(small_data, store, dask_address=dask_address, limit=2)
    before = Store(store).manifests("faces")
    shutil.copy(small_data / "videos" / "train01.mp4", small_data / "videos" / "test01.mp4")
    extract(small_data, store, dask_address=dask_address, limit=2)
    after = Store(store).manifests("faces")
    assert {k.value("video") for k in before if before[k].fingerprint != after[k].fingerprint} == {"test01"}
    monkeypatch.setattr(crop_faces, "CODE_VERSION", crop_faces.CODE_VERSION + 1)
    extract(small_data, store, dask_address=dask_address, limit=2)
    assert len({key.value("source") for key in Store(store).manifests("faces")}) == 2


def test_segment_length_does_not_change_any_value(small_data, tmp_path, dask_address):
    whole, cut = str(tmp_path / "whole"), str(tmp_path / "cut")
    for store, segment_frames in ((whole, 2048), (cut, 9)):
        extract(small_data, store, segment_frames=segment_frames, dask_address=dask_address)
    assert len(Store(cut).manifests("faces")) == 3 * len(Store(whole).manifests("faces"))
    for name in ("faces", "subjects", "features"):
        assert rows(whole, name) == rows(cut, name)
    extract(small_data, cut, dask_address=dask_address)
    for name in ("faces", "features"):
        assert set(Store(cut).manifests(name)) == set(Store(whole).manifests(name))
        assert rows(whole, name) == rows(cut, name)


def rows(store_url, name):
    store = Store(store_url)
    found = {}
    for key, manifest in store.manifests(name).items():
        table = store.read_unit(key, manifest)
        found.setdefault(key.partitions, []).extend(table.to_pylist())
    return found


def test_a_bad_video_does_not_stop_others(small_data, tmp_path, dask_address, capsys):
    store = str(tmp_path / "store")
    (small_data / "videos" / "bad.mp4").write_bytes(b"not a video")
    (small_data / "videos" / "empty.mp4").write_bytes(b"")
    with pytest.raises(SomeFailedError, match="2 failed, all else is complete"):
        extract(small_data, store, dask_address=dask_address)
    printed = capsys.readouterr().out
    assert printed.count("failed: index_videos") == 2 and "bad.mp4: expected" in printed
    assert len(Store(store).manifests("features")) == 4
    assert len(Store(store).failures("videos")) == 2
    (small_data / "videos" / "bad.mp4").unlink()
    shutil.copy(small_data / "videos" / "train01.mp4", small_data / "videos" / "empty.mp4")
    extract(small_data, store, dask_address=dask_address)
    assert [key.value("video") for key in Store(store).failures("videos")] == ["bad"]


def test_official_crops_are_stored_unchanged(tmp_path, dask_address):
    data, store = tmp_path / "data", Store(tmp_path / "store")
    generate_demo_data(data, params=DemoDataParams(1, 2, 1, frames=20, crops=True))
    (data / "videos" / "corrupt.mp4").unlink()
    (data / "cropped" / "validation02" / "00003.jpg").write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(SomeFailedError, match=r"validation02/00003\.jpg: expected a whole JPEG, got 6 bytes"):
            extract(data, store.url, source="cropped", dask_address=dask_address)
    for key, manifest in store.manifests("faces").items():
        folder = data / "cropped" / key.part
        table = store.read_unit(key, manifest).to_pylist()
        assert [row["frame"] for row in table] == list(range(1, 22))
        for row in table:
            path = folder / f"{row['frame']:05d}.jpg"
            assert row["crop_jpeg"] == (path.read_bytes() if path.exists() else None)
            assert row["subject"] == key.part
    features = {k.value("subject"): m for k, m in store.manifests("features").items()}
    assert features["validation02"].counts["unreadable_crop"] == 1
    assert features["validation01"].rows == 21


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"data": Path("nowhere")}, "found nothing there"),
        ({"source": "cropped"}, "expected crops of source cropped, found none"),
    ],
)
def test_wrong_requests_are_reported_in_one_line(small_data, tmp_path, dask_address, request_, message):
    with pytest.raises(InputError, match=message) as caught:
        extract(**({"data": small_data, "store": str(tmp_path / "s"), "dask_address": dask_address} | request_))
    assert "\n" not in str(caught.value)
