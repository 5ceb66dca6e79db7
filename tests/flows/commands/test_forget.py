"""After affwild2 forget, nothing of the video is left, and everything else is unchanged."""

import os
import shutil
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.challenge.layout import find_data
from data_contracts.challenge.submissions import verify_submission
from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount
from data_contracts.store import manifest_index
from data_contracts.store.bundles import list_bundles
from data_contracts.store.input_accounts import INPUTS, write_account
from data_contracts.store.lock import lock_store
from data_contracts.store.store import Store
from flows.commands import forget as forget_module
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters, ReportParameters
from flows.commands.status import write_store_report
from flows.rescore import rescore
from flows.score import score
from tasks.extract.embed_faces import BackboneChoice
from tasks.results.forget import names_of_videos
from tests.benchmarks.generated_store import fill_store, make_videos
from tests.processes import run_command


def mentions(name, *folders):
    """Find every file or folder whose path, content or unzipped content contains the name."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            data = path.read_bytes() if path.is_file() else b""
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    data += b"".join(info.filename.encode() + archive.read(info) for info in archive.infolist())
            if name in str(path.relative_to(folder)) or name.encode() in data:
                found.append(str(path.relative_to(folder)))
    return found


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_file_of_the_store_contains_the_name_afterwards(demo, store_copy, tmp_path, dask_address, capsys):
    """Forget a training, a validation and a test video: labels, post-processing and submissions change."""
    names, out = ("train01", "validation01", "test01"), tmp_path / "out"
    videos = [demo.data / "videos" / f"{name}.mp4" for name in (*names, "test02")]
    # The demo has just written the videos: do not wait until they are older.
    rescore(videos, str(store_copy), out, settle_seconds=0, dask_address=dask_address)
    for name in names:
        assert len(mentions(name, store_copy, out)) > 10
    before = {key: m for dataset in ("faces", "outputs") for key, m in Store(store_copy).manifests(dataset).items()}
    bundles = {bundle.folder for kind in ("heads", "submissions") for bundle in list_bundles(Store(store_copy), kind)}
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
    after = {key: m for dataset in ("faces", "outputs") for key, m in store.manifests(dataset).items()}
    assert after == {key: m for key, m in before.items() if key.item not in names}
    assert {b.folder for kind in ("heads", "submissions") for b in list_bundles(store, kind)} == bundles, (
        "no bundle is lost"
    )
    lists = find_data(demo.data).test_lists
    for bundle in list_bundles(store, "submissions"):
        path, task = store_copy / bundle.folder / bundle.details["zip"], bundle.details["task"]
        faults = [str(fault) for fault in verify_submission(path, task=task, test_list=lists[task][0])]
        assert "test01" in " ".join(faults) and "test02" not in " ".join(faults), faults
    labels = store.manifests("labels", task="expr")
    assert all(set(m.details["subjects"]).isdisjoint(names) and m.rows > 0 for m in labels.values())


@pytest.fixture
def generated(tmp_path):
    """Make a store and its videos, two of which have names with the same beginning."""
    videos = make_videos(tmp_path / "videos", 1)
    for name in ("clip", "clip_left"):
        videos[name] = tmp_path / "videos" / f"{name}.mp4"
        videos[name].write_text(name)
    fill_store(Store(tmp_path / "store"), videos, backbone=BackboneChoice("emotion_lite0"))
    return tmp_path / "store", videos


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
    before = content(store)
    assert forget(ForgetParameters(["clip"], str(store), dry_run=True)) == 0
    assert "clip: would be removed" in capsys.readouterr().out and content(store) == before


def test_files_that_may_contain_the_name_are_listed(generated, capsys):
    store, _ = generated
    write_store_report(ReportParameters(str(store)))
    (store / "reports" / "night.html").write_text("<td>clip</td>")
    (store / "reports" / "other.html").write_text("<td>clips, clip_left, a clipping</td>")
    forget(ForgetParameters(["clip"], str(store)))
    listed = [line for line in capsys.readouterr().out.splitlines() if "may contain the name" in line]
    assert listed == [f"not removed: {store}/reports/night.html may contain the name; check and delete it"]
    assert not (store / "reports" / "store" / "index.html").exists()


def test_predictions_are_removed_from_recorded_and_named_folders(generated, tmp_path, dask_address):
    store, videos = generated
    out = tmp_path / "deep" / "out"
    old = 1_700_000_000
    for path in videos.values():
        os.utime(path, (old, old))
    fill_store(Store(store), videos, backbone=BackboneChoice("emotion_lite0"))
    rescore([tmp_path / "videos"], str(store), out, dask_address=dask_address)
    assert (out / "clip.csv").exists() and (out / "clip_left.csv").exists()
    moved = out.rename(tmp_path / "moved")
    forget(ForgetParameters(["clip"], str(store)))
    assert (moved / "clip.csv").exists(), "the new place of the folder is unknown"
    forget(ForgetParameters(["clip"], str(store), out=moved))
    assert mentions("clip.", moved) == [] and (moved / "clip_left.csv").exists()


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
    finished = run_command("forget", "clip", "--store", tmp_path / "typo")
    (line,) = finished.stderr.strip().splitlines()
    assert finished.returncode == 2 and line.startswith(f"affwild2: {tmp_path / 'typo'}: expected a store of affwild2")
    assert not (tmp_path / "typo").exists()


def test_a_file_that_cannot_be_removed_is_reported(generated, monkeypatch, capsys):
    store, _ = generated

    def refuse(store, folders):
        raise PermissionError(13, "Permission denied", "videos/video=clip/part")

    monkeypatch.setattr(forget_module, "remove_unit_folders", refuse)
    with pytest.raises(InputError, match="videos/video=clip/part: expected a file that can be removed"):
        forget(ForgetParameters(["clip"], str(store)))


@pytest.mark.service
def test_a_head_is_removed_with_everything_that_was_made_with_it(demo, store_copy, tmp_path, dask_address, capsys):
    out = tmp_path / "out"
    score([demo.data / "videos" / "test02.mp4"], out, str(store_copy), dask_address=dask_address)
    name = next(path.name for path in (store_copy / "heads").glob("expr-*"))
    before = content(store_copy)
    capsys.readouterr()
    for given, message in {"typo": "none matches; found: au-default", "": "none matches"}.items():
        with pytest.raises(InputError, match=f"--head {given}: .*{message}"):
            forget(ForgetParameters(None, str(store_copy), heads=[given]))
    with pytest.raises(InputError, match="expected names of videos, or heads with --head, got none"):
        forget(ForgetParameters(None, str(store_copy)))
    assert forget(ForgetParameters(None, str(store_copy), heads=["expr"], dry_run=True)) == 0
    shown = capsys.readouterr().out
    assert f"{name}: would be removed" in shown and content(store_copy) == before
    (store_copy / "heads" / name / "head.json").write_text("damaged")

    assert forget(ForgetParameters(None, str(store_copy), heads=[name])) == 0
    printed = capsys.readouterr().out
    assert f"{name}: removed" in printed
    assert f"not removed: predictions of 1 subject in {out} that this head made" in printed
    gone = {path for path in before if path not in content(store_copy)}
    kinds = {path.parts[0] for path in gone}
    assert kinds == {"heads", "outputs", "postprocessing", "submissions"}
    assert all(name in str(path) or path.parts[0] == "submissions" for path in gone)
    assert not [path for path in store_copy.rglob("*") if name in path.name], "no empty folder is left"
    assert {path.parts[1].split("-")[1] for path in gone if path.parts[0] == "submissions"} == {"expr"}
    left = {bundle.name.split("-")[0] for bundle in list_bundles(Store(store_copy), "heads")}
    assert left == {"va", "au", "mtl"} and (out / "test02.csv").exists()
    for kind in ("postprocessing", "submissions"):
        assert len(list_bundles(Store(store_copy), kind)) == 3


def test_the_command_takes_a_head_without_a_video(demo, store_copy):
    finished = run_command("forget", "--head", "va", "--store", store_copy, "--dry-run")
    assert finished.returncode == 0 and "would be removed" in finished.stdout, finished.stderr
    finished = run_command("forget", "--store", store_copy)
    assert finished.returncode == 2 and "expected names of videos, or heads with --head" in finished.stderr
