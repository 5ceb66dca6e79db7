"""Hostile and damaged inputs: each is reported in one line, all others are complete, and no file outside is written."""

import os
import shutil
import struct
import wave

import pytest

from data_contracts.challenge.editions import HEADERS
from data_contracts.errors import InputError
from data_contracts.store.store import Store
from flows.engine.run import Run
from flows.engine.run_results import SomeFailedError
from flows.extract import extract
from flows.fit import fit
from tasks.demo.generate import DemoDataParams, generate_demo_data
from tasks.extract import crop_faces, index_videos
from tasks.fit import import_labels
from tasks.fit.head_selection import find_head
from tests.video_factory import VideoSpec, write_huge_picture, write_video


def lines_of(printed, start):
    return [line for line in printed.splitlines() if line.startswith(start)]


def test_bad_videos_are_reported_in_one_line_and_good_ones_are_complete(tmp_path, dask_address, capsys):
    data, store = tmp_path / "data", Store(tmp_path / "deep" / "store")
    data.mkdir()
    (data / "zero.mp4").write_bytes(b"")
    (data / "text.mp4").write_text("hello\n" * 100)
    (data / "folder.mp4").mkdir()
    with wave.open(str(data / "sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    write_huge_picture(data / "huge.mov")
    (data / "list.mp4").write_text("ffconcat version 1.0\nfile whole.mkv\n")
    whole = write_video(data / "whole.mkv", VideoSpec(frame_count=60))
    (data / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    write_video(data / "one frame.mp4", VideoSpec(frame_count=1))
    odd_names = ["it's.mp4", 'a "quoted" name.mp4', "line\nfeed.mp4", "ünï-顔.mp4", "-dash.mp4", "a=b%2F&c.mp4"]
    for name in [*odd_names, "顔" * 80 + ".mp4"]:
        shutil.copy(data / "one frame.mp4", data / name)
    (data / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (data / os.fsdecode(b"bad\xff.mp4")).write_bytes((data / "one frame.mp4").read_bytes())
    before = {path for path in tmp_path.rglob("*") if store.url not in str(path)}

    with pytest.raises(SomeFailedError, match=r"^[0-9]+ extracted, 6 failed, 1 used in part; first: "):
        extract(data, store.url, dask_address=dask_address)

    printed = capsys.readouterr().out
    failed = lines_of(printed, "failed: index_videos: ")
    for name, cause in (
        ("zero.mp4", "expected a readable video file"),
        ("text.mp4", "expected a readable video file"),
        ("sound.mp4", "expected a video stream, got audio"),
        ("huge.mov", "expected frames of at most 66,355,200 pixels, got 8200 x 8100"),
        ("lost.mp4", "got a link to "),
        ("list.mp4", "expected a readable video file"),
    ):
        assert sum(name in line and cause in line for line in failed) == 1, (name, failed)
    (cut,) = lines_of(printed, "in part: ")
    assert "cut.mkv: cut off?" in cut and "frames used; replace the file" in cut
    rows = {key.value("subject"): m.rows for key, m in store.manifests("features").items()}
    good = {name.removesuffix(".mp4") for name in odd_names} | {"one frame", "顔" * 80, "bad\xff"}
    assert rows.items() >= {name: 1 for name in good}.items() and set(rows) == good | {"whole", "cut"}
    assert rows["whole"] == 60 and 0 < rows["cut"] < 60
    assert {path for path in tmp_path.rglob("*") if store.url not in str(path)} - {tmp_path / "deep"} == before


def test_a_video_without_any_face_has_a_row_for_every_frame(tmp_path, dask_address):
    data, store = tmp_path / "data", Store(tmp_path / "store")
    data.mkdir()
    write_video(data / "nobody.mp4", VideoSpec(frame_count=9))
    extract(data, store.url, dask_address=dask_address)
    for name in ("faces", "features"):
        ((key, manifest),) = store.manifests(name).items()
        assert manifest.counts == {"no_face": 9}
        assert store.read_unit(key, manifest, columns=["frame"])["frame"].to_pylist() == list(range(1, 10))


def test_a_file_that_changes_between_index_and_decoding_fails(tmp_path, dask_address):
    path = write_video(tmp_path / "grows.mp4", VideoSpec(frame_count=12))
    with Run(str(tmp_path / "store"), dask_address=dask_address) as run:
        units = index_videos.plan_index_videos({"grows": path})
        run.stage("index_videos", units, index_videos.compute)
        videos = index_videos.indexed_videos(run.store)
        write_video(path, VideoSpec(frame_count=30))
        planned = crop_faces.plan_crop_faces(videos, params=crop_faces.CropParams())
        run.stage("crop_faces", planned, crop_faces.compute)
        ((_, _, cause),) = run.failures
        assert "expected an unchanged file" in cause and "run again when it is complete" in cause
        assert run.store.manifests("faces") == {}


def test_a_video_replaced_by_a_broken_one_has_no_features_of_the_old_one(tmp_path, dask_address):
    data, store = tmp_path / "data", Store(tmp_path / "store")
    data.mkdir()
    write_video(data / "a.mp4", VideoSpec(frame_count=5))
    write_video(data / "b.mp4", VideoSpec(frame_count=6))
    assert extract(data, store.url, dask_address=dask_address).videos == ("a", "b")
    (data / "a.mp4").write_bytes(b"broken")
    with pytest.raises(SomeFailedError, match="1 up to date, 1 failed; first: index_videos a"):
        extract(data, store.url, source="mtcnn", dask_address=dask_address)


def jpeg_that_claims(width, height, data):
    """Return the JPEG with another size in its frame header."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.fixture(scope="module")
def crops_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops") / "data"
    generate_demo_data(folder, params=DemoDataParams(2, 2, 1, frames=20, crops=True))
    (folder / "videos" / "corrupt.mp4").unlink()
    return folder


def test_bad_crops_are_reported_and_their_frames_have_rows(crops_data, tmp_path, dask_address, capsys):
    data, store = shutil.copytree(crops_data, tmp_path / "data"), Store(tmp_path / "store")
    subject = sorted((data / "cropped").iterdir())[0]
    files = sorted(subject.glob("*.jpg"))
    good = files[0].read_bytes()
    bad = {
        files[0].name: b"",
        files[1].name: b"GIF89a" + bytes(50),
        files[2].name: good[: len(good) // 2],
        files[3].name: jpeg_that_claims(65000, 65000, good),
        files[4].name: jpeg_that_claims(0, 0, good),
    }
    for name, content in bad.items():
        (subject / name).write_bytes(content)
    with open(subject / files[5].name, "wb") as file:
        file.truncate(1 << 31)
    (subject / "../../cropped" / "..hidden").mkdir()
    with pytest.raises(SomeFailedError, match="used in part"):
        extract(data, store.url, source="cropped", dask_address=dask_address)
    problems = lines_of(capsys.readouterr().out, "in part: ")
    for name in bad:
        assert sum(f"{subject.name}/{name}: expected" in line for line in problems) == 1, (name, problems)
    assert any(f"{files[5]}: expected a JPEG crop of a face, got: 2,147,483,648 bytes" in line for line in problems)
    features = {key.value("subject"): m for key, m in store.manifests("features").items()}[subject.name]
    assert features.rows >= 20 and features.counts["unreadable_crop"] == 5


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "line 1: expected the header"),
        (b"Neutral,Anger\n0\n", "line 1: expected the header"),
        (b"{header}\n0\n0,1\n", "line 3: expected 1 values, got 2"),
        (b"{header}\n0\nhappy\n", "line 3: expected a number, got 'happy'"),
        (b"{header}\n", "expected a line per frame below the header, got none"),
        (b"{header}\n0\n0_1\n", "line 3: expected a number, got '0_1'"),
        (b"{header}\n0\nnan\n", "line 3: expected a number, got 'nan'"),
        (b"{header}\n0\n8\n", "line 3: expected expression in -1..7 (whole), got 8"),
        (b"{header}\n0\n0.5\n", "(whole), got 0.5"),
        (b"{header}\n0\n\xff\n", "line 3: expected UTF-8"),
        (b"{header}\n\x00\n", "got binary data"),
    ],
)
def test_a_bad_label_file_is_reported_in_one_line_and_skipped(crops_data, tmp_path, dask_address, content, cause):
    labels = shutil.copytree(crops_data, tmp_path / "data", ignore=shutil.ignore_patterns("videos", "cropped"))
    (folder,) = labels.rglob("EXPR_Classification_Challenge")
    good = sorted((folder / "Train_Set").glob("*.txt"))
    (folder / "Train_Set" / "bad.txt").write_bytes(content.replace(b"{header}", HEADERS["expr"].encode()))
    with Run(str(tmp_path / "store"), dask_address=dask_address) as run:
        units = import_labels.plan_import_labels(folder, task="expr", sets=("train",))
        run.stage("import_labels", units, import_labels.compute)
        ((_, _, problem),) = run.problems
        assert "Train_Set/bad.txt" in problem and cause in problem and problem.endswith("skipped")
        ((_, manifest),) = run.store.manifests("labels").items()
        assert manifest.details["subjects"] == sorted(path.stem for path in good)


def test_label_files_with_too_few_and_too_many_lines_are_counted(crops_data, tmp_path, dask_address):
    data = shutil.copytree(crops_data, tmp_path / "data")
    (folder,) = data.rglob("VA_Estimation_Challenge")
    extract(data, str(tmp_path / "store"), dask_address=dask_address)
    first, second = sorted((folder / "Train_Set").glob("*.txt"))[:2]
    lines = first.read_text().splitlines()
    first.write_text("\n".join(lines[:11]) + "\n")
    second.write_text(second.read_text() + "0.1,0.1\n" * 30)
    name = fit("va", str(tmp_path / "store"), data, seeds=1, dask_address=dask_address)
    coverage, _ = find_head(Store(tmp_path / "store"), name).details["coverage"]
    assert coverage["labelled_beyond_video"] >= 29
    parts = ("used", "labelled_without_face", "labelled_beyond_video")
    assert sum(coverage[part] for part in parts) == coverage["labelled"]


@pytest.fixture(scope="module")
def crops_store(crops_data, tmp_path_factory, dask_address):
    """A store with the features of the crops, for copies."""
    store = tmp_path_factory.mktemp("extracted") / "store"
    extract(crops_data, str(store), source="cropped", dask_address=dask_address)
    return store


def edited(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", ["flipped byte", "cut", "deleted", "wrong manifest", "other file"])
def test_a_store_edited_by_hand_is_repaired_by_the_next_run(crops_data, crops_store, tmp_path, dask_address, damage):
    store = Store(shutil.copytree(crops_store, tmp_path / "store"))
    before = {key: store.read_bytes(f"{key.folder}/{m.part}") for key, m in store.manifests("features").items()}
    key, manifest = next(iter(store.manifests("faces").items()))
    folder = tmp_path / "store" / key.folder
    if damage == "flipped byte":
        edited(folder / manifest.part, lambda data: data.__setitem__(len(data) // 2, data[len(data) // 2] ^ 1))
    elif damage == "cut":
        edited(folder / manifest.part, lambda data: data.__delitem__(slice(len(data) // 2, None)))
    elif damage == "deleted":
        (folder / manifest.part).unlink()
    elif damage == "wrong manifest":
        (path,) = folder.glob("_manifest-*.json")
        path.write_text(
            path.read_text().replace(f'"frame_count": {manifest.details["frame_count"]}', '"frame_count": 5')
        )
    else:
        other = list(store.manifests("faces").items())[1]
        shutil.copy(tmp_path / "store" / other[0].folder / other[1].part, folder / manifest.part)
    for feature in (tmp_path / "store" / "features").rglob("_manifest-*.json"):
        feature.unlink()
    try:
        extract(crops_data, store.url, source="cropped", dask_address=dask_address)
    except SomeFailedError as error:
        assert "run the same command again" in str(error)
        extract(crops_data, store.url, source="cropped", dask_address=dask_address)
    after = {key: store.read_bytes(f"{key.folder}/{m.part}") for key, m in store.manifests("features").items()}
    assert after == before


def test_an_older_version_refuses_a_newer_store(crops_data, crops_store, tmp_path, dask_address, monkeypatch):
    store = str(shutil.copytree(crops_store, tmp_path / "store"))
    monkeypatch.setattr(index_videos, "CODE_VERSION", index_videos.CODE_VERSION - 1)
    with pytest.raises(InputError, match=r"newer version \(index_videos .*upgrade, or choose another --store"):
        extract(crops_data, store, source="cropped", limit=1, dask_address=dask_address)
