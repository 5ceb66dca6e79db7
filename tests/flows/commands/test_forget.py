"""After affwild2 forget, nothing of the video is left in the store, and everything else is unchanged."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.challenge.layout import find_data
from data_contracts.challenge.submissions import verify_submission
from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount
from data_contracts.files.locations import location
from data_contracts.store import manifest_index
from data_contracts.store.bundles import list_bundles
from data_contracts.store.contents import VIEWERS
from data_contracts.store.input_accounts import INPUTS, write_account
from data_contracts.store.lock import lock_store
from data_contracts.store.manifest import Failure, UnitKey, to_sealed_json
from data_contracts.store.store import Store
from flows.commands import forget as forget_module
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters, ReportParameters
from flows.pages.report import write_store_report
from flows.rescore import rescore
from tasks.backbones import BackboneChoice
from tasks.results.forget import names_of_videos
from tasks.results.prediction_folder import (
    DESCRIPTION,
    noted_folders,
)
from tests.benchmarks.generated_store import fill_store, make_videos
from tests.flows.commands.conftest import content, mentions
from tests.processes import run_command


def test_no_file_of_the_store_contains_the_name_afterwards(demo, store_copy, tmp_path, dask_address, capsys):
    """Forget a training, a validation and a test video: labels, post-processing and submissions change."""
    names, out = ("train01", "validation01", "test01"), tmp_path / "out"
    videos = [demo.data / "videos" / f"{name}.mp4" for name in (*names, "test02")]
    # The demo has just written the videos: do not wait until they are older.
    rescore(videos, str(store_copy), out, settle_seconds=0, dask_address=dask_address)
    for name in names:
        assert len(mentions(name, store_copy, out)) > 10
    before = {
        key: m
        for dataset in ("faces", "outputs", "person_outputs")
        for key, m in Store(store_copy).manifests(dataset).items()
    }
    kinds = ("heads", "postprocessing", "submissions")
    bundles = {bundle.folder for kind in kinds for bundle in list_bundles(Store(store_copy), kind)}
    capsys.readouterr()

    assert forget(ForgetParameters(names, str(store_copy))) == 0
    printed = capsys.readouterr().out
    for name in names:
        assert mentions(name, store_copy, out) == [], printed
        assert f"not removed: the video file {demo.data / 'videos' / name}.mp4; the next run" in printed
    assert printed.count("fitted on this video among others") == 4, (
        "all four heads were fitted on train01, none on the others"
    )
    assert (out / "test02.csv").exists()
    store = Store(store_copy)
    after = {
        key: m for dataset in ("faces", "outputs", "person_outputs") for key, m in store.manifests(dataset).items()
    }
    assert after == {key: m for key, m in before.items() if key.item not in names}
    assert {b.folder for kind in kinds for b in list_bundles(store, kind)} == bundles, "no bundle is lost"
    lists = find_data(demo.data).test_lists
    for bundle in list_bundles(store, "submissions"):
        path, task = store_copy / bundle.folder / bundle.details["zip"], bundle.details["task"]
        faults = [str(fault) for fault in verify_submission(path, task=task, test_list=lists[task][0])]
        assert "test01" in " ".join(faults) and "test02" not in " ".join(faults), faults
    labels = store.manifests("labels", task="expr")
    assert all(set(m.details["subjects"]).isdisjoint(names) and m.rows > 0 for m in labels.values())


def test_a_video_whose_name_begins_with_the_same_text_is_kept(generated):
    store, videos = generated
    before = content(store)
    forget(ForgetParameters([str(videos["clip"])], str(store)))
    gone = set(before) - set(content(store))
    assert gone and all({"video=clip", "subject=clip"} & set(path.parts) for path in gone)
    assert not list(store.rglob("*=clip")), "no empty folder has the name"
    kept = {path: data for path, data in before.items() if path not in gone}
    assert {path: data for path, data in content(store).items() if path.name != ".lock"} == kept


def test_every_spelling_and_accounts_that_name_the_video_are_removed(tmp_path):
    """Earlier versions stored names in the Unicode form of the file system."""
    store, composed, decomposed = Store(tmp_path / "store"), "caf\xe9", "cafe\u0301"
    videos = make_videos(tmp_path / "videos", 1)
    for name in (composed, decomposed):
        videos[name] = tmp_path / "videos" / f"{name}.mp4"
        videos[name].write_text(name)
    fill_store(store, videos, backbone=BackboneChoice("emotion_lite0"))
    for name, root in ((composed, "a"), ("other", "b")):
        account = InputAccount("videos", tmp_path / root)
        account.skip(tmp_path / root / f"{name}.bin", "not a video")
        write_account(store, account)
    forget(ForgetParameters([composed], store.url))
    assert names_of_videos(store) == {"video0001"}
    (account,) = list_bundles(store, INPUTS)
    assert account.details["places"] == [str(tmp_path / "b")]


def test_indexes_of_manifests_do_not_contain_the_name_afterwards(generated, monkeypatch):
    monkeypatch.setattr(manifest_index, "_MISSING_MANIFESTS", 0)
    folder, _ = generated
    store, datasets = Store(folder), ("videos", "frames", "faces", "subjects", "features")
    with lock_store(store, on_wait=pytest.fail):
        before = {name: store.manifests(name) for name in datasets}
    indexes = sorted(folder.rglob(manifest_index.INDEX_NAME))
    assert len(indexes) == len(datasets)
    forget(ForgetParameters(["clip"], str(folder)))
    assert sorted(folder.rglob(manifest_index.INDEX_NAME)) == indexes
    for index in indexes:
        paths = pq.read_table(pa.BufferReader(index.read_bytes()))["path"].to_pylist()
        assert len(paths) == 2 and not any("=clip/" in path for path in paths)
    kept = {name: {key: m for key, m in units.items() if key.item != "clip"} for name, units in before.items()}
    assert {name: Store(folder).manifests(name) for name in datasets} == kept


def test_forget_can_be_repeated_after_an_interruption_anywhere(generated, tmp_path, monkeypatch):
    store, _ = generated
    whole = Store(store).manifests("features")
    calls = {"left": 0}

    def counted(method):
        def call(self, path):
            calls["left"] -= 1
            if calls["left"] == 0:
                raise KeyboardInterrupt
            method(self, path)

        return call

    for after in range(1, 40):
        copy = shutil.copytree(store, tmp_path / "copy")
        calls["left"] = after
        with monkeypatch.context() as patch:
            for name in ("remove", "remove_folder"):
                patch.setattr(Store, name, counted(getattr(Store, name)))
            try:
                forget(ForgetParameters(["clip"], str(copy)))
                break
            except KeyboardInterrupt:
                pass
        features, faces = (Store(copy).manifests(name) for name in ("features", "faces"))
        assert features.items() <= whole.items()
        assert {key.item for key in features} <= {key.item for key in faces}, "no features remain without their faces"
        forget(ForgetParameters(["clip"], str(copy)))
        assert not list(copy.rglob("*=clip"))
        shutil.rmtree(copy)
    assert 10 < after < 39, "the loop interrupts at every removal"


def test_dry_run_removes_nothing(generated, capsys):
    store, _ = generated
    write_store_report(ReportParameters(str(store)))
    for name in ("index.html", "video.mp4"):
        Store(store).write_bytes(f"{VIEWERS}/clip/{name}", b"clip")
    before = content(store)
    assert forget(ForgetParameters(["clip"], str(store), dry_run=True)) == 0
    shown = capsys.readouterr().out
    assert "clip: would be removed" in shown and content(store) == before
    (row,) = (line for line in shown.splitlines() if "viewers" in line)
    assert [cell.strip() for cell in row.split("│")][2:4] == ["viewers", "2"]


def test_files_that_may_contain_the_name_are_listed(generated, capsys):
    store, _ = generated
    write_store_report(ReportParameters(str(store)))
    (store / "reports" / "night.html").write_text("<td>clip</td>")
    (store / "reports" / "other.html").write_text("<td>clips, clip_left, a clipping</td>")
    forget(ForgetParameters(["clip"], str(store)))
    listed = [line for line in capsys.readouterr().out.splitlines() if "may contain the name" in line]
    assert listed == [f"not removed: {store}/reports/night.html may contain the name; check and delete it"]
    assert not (store / "reports" / "store" / "index.html").exists()


def test_wrong_requests_are_reported_in_one_line_and_remove_nothing(generated, tmp_path):
    store, videos = generated
    before = content(store)
    with pytest.raises(InputError, match=r"clipp: expected a video with data in .* did you mean clip"):
        forget(ForgetParameters(["clip", "clipp"], str(store)))
    with pytest.raises(InputError, match=r"no similar name among its 3 videos"):
        forget(ForgetParameters(["zzz.mp4"], str(store)))
    other = tmp_path / "elsewhere" / "clip.mp4"
    other.parent.mkdir()
    other.write_text("another video")
    with pytest.raises(InputError, match=f"got another file; the indexed file is {videos['clip']}"):
        forget(ForgetParameters([str(other)], str(store)))
    with pytest.raises(InputError, match="expected a folder of predictions"):
        forget(ForgetParameters(["clip"], str(store), out=tmp_path / "typo"))
    assert content(store) == before
    finished = run_command("forget", "clip", "--store", tmp_path / "typo", "--quiet")
    (line,) = finished.stderr.strip().splitlines()
    assert finished.returncode == 2 and line.startswith(f"affwild2: {tmp_path / 'typo'}: expected a store of affwild2")
    assert not (tmp_path / "typo").exists()


def test_a_file_that_cannot_be_removed_is_reported(generated, monkeypatch, capsys):
    store, _ = generated

    def refuse(store, folders):
        raise PermissionError(13, "Permission denied", "videos/video=clip/part")

    monkeypatch.setattr(forget_module, "remove_folders", refuse)
    assert forget(ForgetParameters(["clip"], str(store))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("not removed: videos/video=clip/part: expected a file that can be removed, got: Permission")


def contents_of(url):
    """Return the content of every object below a URL by its key."""
    place = location(url)
    return {key: place.fs.cat_file(key) for key in place.fs.find(place.path)}


@pytest.mark.service
def test_on_s3_nothing_contains_the_name_afterwards(s3_bucket, tmp_path, monkeypatch):
    """The store, its reports, failures and indexes, and the predictions are objects of a server."""
    monkeypatch.setattr(manifest_index, "_MISSING_MANIFESTS", 0)
    store, out, gone = Store(f"{s3_bucket}/store"), f"{s3_bucket}/predictions", "s3://no-such-bucket-here/out"
    videos = make_videos(tmp_path / "videos", 1)
    for name in ("clip", "other"):
        videos[name] = tmp_path / "videos" / f"{name}.mp4"
        videos[name].write_text(name)
    for path in videos.values():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    fill_store(store, videos, backbone=BackboneChoice("emotion_lite0"))
    rescore([tmp_path / "videos"], store.url, out)
    account = InputAccount("videos", tmp_path / "a")
    account.skip(tmp_path / "a" / "clip.bin", "not a video")
    write_account(store, account)
    key = UnitKey("features", (("backbone", "another-1"), ("source", "mtcnn-1"), ("subject", "clip")), "00000")
    store.note_failure(key, Failure("f" * 64, cause="clip.mp4: damaged", tries=1))
    for name in ("store", "rescore-20260101T030000Z-12345678"):
        store.write_bytes(f"reports/{name}/index.html", b"<td>clip</td>")
    folders = to_sealed_json({"folders": [*noted_folders(store), gone]})
    store.write_bytes("_prediction_folders.json", folders)
    before = contents_of(s3_bucket)
    named = {key for key, data in before.items() if "clip" in key or b"clip" in data}
    kinds = {key.split("/")[2] for key in named if "/store/" in key}
    assert kinds >= {
        "videos",
        "frames",
        "faces",
        "subjects",
        "features",
        "persons",
        "person_outputs",
        "reports",
        "inputs",
    }, kinds
    assert any("/predictions/" in key for key in named)

    finished = run_command("forget", "clip", "--store", store.url, "--quiet")
    assert finished.returncode == 1, finished.stderr
    (line,) = finished.stderr.strip().splitlines()
    assert line.startswith(f"not removed: {gone}: expected a store in a bucket that answers, got: there is no bucket")
    after = contents_of(s3_bucket)
    assert [key for key, data in after.items() if "clip" in key or b"clip" in data] == []
    indexes = {key for key in before if key.endswith(manifest_index.INDEX_NAME)}
    counts = {key for key in before if key.endswith(f"/{DESCRIPTION}")}
    kept = before.keys() - named - indexes - counts
    assert len(indexes) >= 5 and {key: after.get(key) for key in kept} == {key: before[key] for key in kept}
    for key in indexes:
        paths = pq.read_table(pa.BufferReader(after[key]))["path"].to_pylist()
        assert paths and not any("=clip/" in path for path in paths)
    finished = run_command("forget", "other", "--drop-folder", gone, "--store", store.url)
    assert finished.returncode == 0, finished.stderr
    assert noted_folders(store) == [out]
