import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_contracts.challenge.layout import find_data
from data_contracts.errors import InputError
from data_contracts.store.store import Store
from data_contracts.video.packets import index_video
from flows.engine.run_results import SomeFailedError
from flows.extract import extract, packed_crops
from models.faces.crops import decode_jpeg
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.extract import crop_faces
from tests.video_streams import write_swapped_times

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
    with pytest.raises(SomeFailedError, match=r"^3 extracted, 2 failed; first: index_videos "):
        extract(small_data, store, dask_address=dask_address)
    printed = capsys.readouterr().out
    assert printed.count("failed: index_videos") == 2 and "bad.mp4: expected" in printed
    assert len(Store(store).manifests("features")) == 4
    assert len(Store(store).failures("videos")) == 2
    (small_data / "videos" / "bad.mp4").unlink()
    shutil.copy(small_data / "videos" / "train01.mp4", small_data / "videos" / "empty.mp4")
    extract(small_data, store, dask_address=dask_address)
    assert Store(store).failures("videos") == {}, "one video was deleted, and the other one replaced"


def test_wrong_index_is_made_again_by_decoding_and_its_segments_are_repeated(tmp_path, dask_address, capsys):
    """The packets of 300 frames say that frames 90 and 91 are exchanged, far from the frames that are compared."""
    data, store = tmp_path / "data", Store(tmp_path / "store")
    (data / "videos").mkdir(parents=True)
    path = write_swapped_times(data / "videos" / "swapped.mp4")
    path.with_suffix(".source.mp4").unlink()
    assert index_video(path).method == "packets"
    extract(data, store.url, dask_address=dask_address, segment_frames=50)
    assert "indexed again by decoding, because packets and frames differ: swapped" in capsys.readouterr().out
    ((key, video),) = store.manifests("videos").items()
    assert (video.details["index_method"], video.counts["frames"]) == ("decoding", 300)
    assert store.read_unit(key, video)["index_method"].to_pylist() == ["decoding"]
    found = [row for rows_of_video in rows(store.url, "faces").values() for row in rows_of_video]
    assert [row["frame"] for row in found] == list(range(1, 301))
    assert {row["status"] for row in found} == {"no_face"}
    assert not store.failures("faces")
    stamps = times(store.url)
    extract(data, store.url, dask_address=dask_address, segment_frames=50)
    assert times(store.url) == stamps


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


def crops_of(folder, subject, numbers, suffix="jpg"):
    """Write crops of one colour per number."""
    (folder / subject).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image = Image.fromarray(np.full((16, 16, 3), 10 * number + 5, np.uint8))
        image.save(folder / subject / f"{number:05d}.{suffix}", quality=95)


def faces_in(store):
    """Subject -> value of the colour per frame with a crop."""
    found = {}
    for key, manifest in store.manifests("faces").items():
        rows = store.read_unit(key, manifest).to_pylist()
        found[key.part] = {
            row["frame"]: round(decode_jpeg(row["crop_jpeg"]).mean()) for row in rows if row["status"] == "face"
        }
    return found


def test_png_crops_of_nested_releases_are_converted(tmp_path, dask_address):
    folder, store = tmp_path / "data" / "cropped_aligned", Store(tmp_path / "store")
    crops_of(folder / "cropped_aligned", "a", [1, 3], "png")
    crops_of(folder / "cropped_aligned_new_50_vids" / "batch1", "b", [2])
    extract(tmp_path / "data", store.url, dask_address=dask_address)
    assert faces_in(store) == {"a": {1: 15, 3: 35}, "b": {2: 25}}
    assert {key.value("subject") for key in store.manifests("features")} == {"a", "b"}


def test_zero_based_crops_are_refused_unless_the_user_says_so(tmp_path, dask_address):
    data, store = tmp_path / "data", Store(tmp_path / "store")
    crops_of(data / "cropped", "a", [1, 2])
    crops_of(data / "cropped", "b", [1, 2])
    extract(data, store.url, dask_address=dask_address)
    assert set(faces_in(store)) == {"a", "b"}
    crops_of(data / "cropped", "a", [0])
    with pytest.raises(
        SomeFailedError,
        match=r"^1 up .* 1 failed, 3 skipped; .*a/00000\.jpg: .* frames count from 1, .*--first-crop 0",
    ):
        extract(data, store.url, dask_address=dask_address)
    assert faces_in(store) == {"b": {1: 15, 2: 25}}
    assert {key.value("subject") for key in store.manifests("features")} == {"b"}, "older features do not stay"
    extract(data, store.url, first_crop=0, dask_address=dask_address)
    assert faces_in(store) == {"a": {1: 5, 2: 15, 3: 25}, "b": {2: 15, 3: 25}}
    assert store.failures("faces") == {}


def test_two_sources_of_crops_without_videos_are_a_choice(tmp_path, dask_address):
    crops_of(tmp_path / "data" / "cropped", "a", [1])
    crops_of(tmp_path / "data" / "cropped_aligned", "a", [1])
    with pytest.raises(InputError, match=r"found cropped: .*; cropped_aligned: .*; choose one with --source"):
        extract(tmp_path / "data", str(tmp_path / "store"), dask_address=dask_address)


def test_inputs_beyond_the_limit_are_counted_as_skipped(tmp_path, dask_address, capsys):
    crops_of(tmp_path / "data" / "cropped", "a", [1, 2])
    crops_of(tmp_path / "data" / "cropped", "b", [1, 2])
    extract(tmp_path / "data", str(tmp_path / "store"), limit=1, dask_address=dask_address)
    printed = capsys.readouterr().out
    assert "4 found, 2 used, 2 skipped" in printed and "crops: 2 ignored, inputs beyond --limit: b/00001.jpg" in printed


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


def test_archives_of_missing_crop_folders_are_counted(tmp_path):
    for name in ("cropped/a/00001.jpg", "cropped/cropped_new_50_vids/b/00001.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    for name in ("cropped.zip", "cropped_new_50_vids.zip", "cropped_aligned.zip"):
        (tmp_path / name).write_bytes(b"x")
    assert packed_crops(find_data(tmp_path), "cropped") == []
    shutil.rmtree(tmp_path / "cropped" / "cropped_new_50_vids")
    assert packed_crops(find_data(tmp_path), "cropped") == [tmp_path / "cropped_new_50_vids.zip"]
