"""After affwild2 forget, nothing of the video is left, and everything else is unchanged."""

import os
import shutil
import subprocess
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.challenge.layout import find_data
from data_contracts.challenge.submissions import verify_submission
from data_contracts.errors import InputError
from data_contracts.files.account import InputAccount
from data_contracts.files.inputs import file_state
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
from flows.score import score
from tasks.extract.embed_faces import BackboneChoice
from tasks.results.forget import names_of_videos
from tasks.results.prediction_folder import (
    DESCRIPTION,
    RECORD,
    PredictionRecord,
    note_folder,
    noted_folders,
    prediction_files,
    write_record,
)
from tests.benchmarks.generated_store import fill_store, make_videos
from tests.processes import program, run_command


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


@pytest.fixture
def scored(generated, tmp_path):
    """The generated store with predictions in two folders."""
    store, _ = generated
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        write_predictions_of(Store(store), folder)
    return store, *folders


def write_predictions_of(store, out):
    """Write predictions of both clips, without a head: their files, record and entry in the list."""
    target = Store(out)
    note_folder(store, target)
    names = ("clip", "clip_left")
    for name in names:
        for file in prediction_files(name):
            target.write_bytes(file, name.encode())
    files = {name: tuple(file_state(location(target.locate(f))) for f in prediction_files(name)) for name in names}
    write_record(target, {name: PredictionRecord(made_from="a" * 64, files=files[name]) for name in names})


def forget_clip(store, **options):
    return forget(ForgetParameters(["clip"], str(store), **options))


def lines_not_removed(capsys):
    return [line.removeprefix("not removed: ") for line in capsys.readouterr().err.splitlines()]


def test_predictions_are_removed_from_recorded_and_named_folders(scored, tmp_path, capsys):
    store, first, second = scored
    moved = first.rename(tmp_path / "moved")
    assert forget_clip(store) == 1
    assert mentions("clip.", second) == [] and (second / "clip_left.csv").exists()
    assert (moved / "clip.csv").exists(), "the new place of the folder is unknown"
    (line,) = lines_not_removed(capsys)
    assert line.startswith(f"{first}: expected a folder of predictions, found nothing there; ")

    assert forget_clip(store, out=moved, drop_folders=[str(first)]) == 0
    assert mentions("clip.", moved) == [] and (moved / "clip_left.csv").exists()
    assert noted_folders(Store(store)) == [str(second), str(moved)], "the next call finds the new place"
    assert f"dropped from the list of folders: {first}; predictions that may be there remain" in capsys.readouterr().out


def make_empty(folder):
    folder.mkdir()


def make_other(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("another disk")


@pytest.mark.parametrize(
    ("replace", "cause"),
    [
        (make_empty, "expected a folder of predictions, found an empty folder"),
        (make_other, "expected a folder of predictions, found a folder without them"),
        (lambda folder: folder.write_text(""), "expected a folder of predictions, found a file"),
        (lambda folder: folder.symlink_to(folder), "expected a folder of predictions, got: Too many levels"),
    ],
)
def test_a_folder_that_is_away_is_listed_and_found_again_later(replace, cause, scored, tmp_path, capsys):
    """An unmounted disk leaves an empty mount point, another disk may be mounted there."""
    store, first, second = scored
    away = first.rename(tmp_path / "away")
    replace(first)
    assert forget_clip(store, dry_run=True) == 1 and mentions("clip.", second)
    lines_not_removed(capsys)
    assert forget_clip(store) == 1
    assert mentions("clip.", second) == [] and not list(store.rglob("*=clip"))
    (line,) = lines_not_removed(capsys)
    assert line.startswith(f"{first}: {cause}") and "--drop-folder" in line
    shutil.rmtree(first) if first.is_dir() and not first.is_symlink() else first.unlink()
    away.rename(first)
    assert forget_clip(store) == 0, "the same command finishes"
    assert mentions("clip.", first) == [] and (first / "clip_left.csv").exists()


def test_without_any_folder_the_store_is_emptied(scored, tmp_path, capsys):
    store, *folders = scored
    for folder in folders:
        folder.rename(tmp_path / f"{folder.name}-away")
    assert forget_clip(store) == 1
    assert len(lines_not_removed(capsys)) == 2 and not list(store.rglob("*=clip"))
    assert forget(ForgetParameters(None, str(store), drop_folders=[str(folder) for folder in folders])) == 0
    assert noted_folders(Store(store)) == []
    with pytest.raises(InputError, match=r"--drop-folder .*first: expected a folder of the list in .*; it has: none"):
        forget(ForgetParameters(None, str(store), drop_folders=[str(folders[0])]))


def test_a_subject_whose_video_is_already_forgotten_is_found_in_a_folder(scored, tmp_path):
    """The predictions of a video with two people are named after them."""
    store, first, _ = scored
    target = Store(first)
    write_record(target, {f"pair{side}": PredictionRecord(made_from="b", files=()) for side in ("_left", "_right")})
    for side in ("_left", "_right"):
        (first / f"pair{side}.csv").write_text("")
    assert forget(ForgetParameters(["pair"], str(store))) == 0
    assert mentions("pair", first) == []


def test_a_dropped_folder_reports_what_remains(scored, capsys):
    store, first, second = scored
    assert forget(ForgetParameters(None, str(store), drop_folders=[f"{first}/"])) == 0
    assert f"dropped from the list of folders: {first}; predictions of 2 subjects remain" in capsys.readouterr().out
    assert forget_clip(store) == 0
    assert (first / "clip.csv").exists() and not (second / "clip.csv").exists()


def test_folders_leave_the_list_only_with_their_last_prediction(scored):
    store, first, second = scored
    (first / RECORD).unlink()
    forget(ForgetParameters(["clip", "clip_left"], str(store)))
    assert noted_folders(Store(store)) == [] and not (second / "clip.csv").exists() and not list(first.glob("clip*"))


def test_a_damaged_record_is_removed_with_the_name_in_it(scored):
    store, first, _ = scored
    (first / RECORD).write_text((first / RECORD).read_text().replace("aaa", "aab"))
    assert forget_clip(store) == 0
    assert mentions('clip"', first) == [] and mentions("clip.", first) == []
    assert (first / "clip_left.csv").exists() and str(first) in noted_folders(Store(store))


def test_a_folder_without_permission_is_listed(scored):
    """Root has every permission, unless it gives this capability up."""
    store, first, second = scored
    away = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    first.chmod(0o000)
    try:
        command = [*away, program("affwild2"), "forget", "clip", "--store", str(store)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finally:
        first.chmod(0o755)
    assert finished.returncode == 1, finished.stderr
    (line,) = finished.stderr.strip().splitlines()
    assert line.startswith(f"not removed: {first}: expected a folder of predictions, got: Permission denied; make it")
    assert (first / "clip.csv").exists() and not (second / "clip.csv").exists()
    assert not list(store.rglob("*=clip"))


def test_files_of_predictions_that_cannot_be_removed_are_listed(scored):
    store, first, second = scored
    away = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    first.chmod(0o555)
    (store / "reports" / "run").mkdir(parents=True)
    (store / "reports" / "run" / "index.html").write_text("<td>clip</td>")
    (store / "reports" / "run").chmod(0o555)
    try:
        command = [*away, program("affwild2"), "forget", "clip", "--store", str(store)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finally:
        first.chmod(0o755)
        (store / "reports" / "run").chmod(0o755)
    assert finished.returncode == 1, finished.stderr
    of_folder, of_report = sorted(finished.stderr.strip().splitlines())
    assert str(first) in of_folder and "Permission denied" in of_folder
    assert f"{store}/reports/run/index.html: expected a file that can be removed" in of_report
    assert not (second / "clip.csv").exists() and not list(store.rglob("*=clip"))


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
    assert forget_clip(store) == 1
    (line,) = lines_not_removed(capsys)
    assert line.startswith("videos/video=clip/part: expected a file that can be removed, got: Permission denied;")


@pytest.mark.service
def test_a_head_is_removed_with_everything_that_was_made_with_it(demo, store_copy, tmp_path, dask_address, capsys):
    out = tmp_path / "out"
    score([demo.data / "videos" / "test02.mp4"], out, str(store_copy), dask_address=dask_address)
    name = next(path.name for path in (store_copy / "heads").glob("expr-*"))
    for report in (f"compare-{name}-other", f"compare-other-{name}", "compare-other-another"):
        Store(store_copy).write_bytes(f"reports/{report}/index.html", b"page")
    before = content(store_copy)
    capsys.readouterr()
    for given, message in {"typo": "none matches; found: au-default", "": "none matches"}.items():
        with pytest.raises(InputError, match=f"--head {given}: .*{message}"):
            forget(ForgetParameters(None, str(store_copy), heads=[given]))
    with pytest.raises(InputError, match=r"expected names of videos, heads with --head, .*, got none"):
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
    assert kinds == {"heads", "outputs", "person_outputs", "postprocessing", "submissions", "reports"}
    assert "compare-other-another" in Store(store_copy).list_folder("reports")
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
    assert finished.returncode == 2 and "expected names of videos, heads with --head" in finished.stderr


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
