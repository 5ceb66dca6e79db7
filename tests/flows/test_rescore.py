"""Repeated runs of the scheduled flow on folders that change in between."""

import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from distributed import Client

from data_contracts.details.heads import HeadDetails
from data_contracts.errors import InputError
from data_contracts.files.locations import location
from data_contracts.store.bundles import list_bundles, read_file, write_bundle
from data_contracts.store.input_accounts import INPUTS
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters
from flows.engine.run_results import SomeFailedError
from flows.rescore import rescore
from tests.processes import run_command
from tests.video_factory import VideoSpec, cut_file, write_video

OLD = 1_700_000_000


def video_at(path, *, frames=2, age=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, VideoSpec(frame_count=frames, width_px=64, height_px=48))
    if age:
        os.utime(path, (OLD, OLD))
    return path


class Place:
    """A folder of videos, a store and predictions, and a method that runs rescore on them."""

    def __init__(self, root, dask_address):
        self.videos, self.store, self.out = root / "videos", root / "store", root / "out"
        self.videos.mkdir()
        self._dask_address = dask_address

    def run(self, **options):
        """Return the result of the run, and the files that it wrote besides accounts, by dataset or name."""
        before = self._times()
        self.failed = None
        try:
            done = rescore([self.videos], str(self.store), self.out, dask_address=self._dask_address, **options)
        except SomeFailedError as error:
            done, self.failed = None, str(error)
        written = {path for path, stamp in self._times().items() if before.get(path) != stamp}
        return done, {path.parts[0] if path.parts[0] != "out" else path.name for path in written} - {INPUTS}

    def _times(self):
        found = {}
        for root, prefix in ((self.store, ""), (self.out, "out")):
            paths = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
            found |= {Path(prefix, path.relative_to(root)): path.stat().st_mtime_ns for path in paths}
        return found


@pytest.fixture
def place(tmp_path, dask_address):
    return Place(tmp_path, dask_address)


def results_of(done):
    return {what: list(names) for what, names in asdict(done).items() if names}


def test_new_videos_are_scored_and_a_second_run_writes_nothing(place, capsys):
    done, written = place.run()
    assert results_of(done) == {} and "0 videos: nothing to do\n" in capsys.readouterr().out, (
        "an empty folder is not an error"
    )
    video_at(place.videos / "a.mp4")
    video_at(place.videos / "day 2" / "b.mp4")
    done, written = place.run()
    assert results_of(done) == {"scored": ["a", "b"]}
    assert {
        "a.parquet",
        "a.csv",
        "b.parquet",
        "b.csv",
        "faces",
        "face_features",
        "persons",
        "person_outputs",
    } <= written
    done, written = place.run()
    assert results_of(done) == {"up_to_date": ["a", "b"]} and written == set()
    assert "2 videos: 2 up to date\n" in capsys.readouterr().out


def test_only_stale_or_missing_predictions_are_written_again(place):
    for name in ("a.mp4", "b.mp4"):
        video_at(place.videos / name)
    place.run()

    video_at(place.videos / "a.mp4", frames=3)
    done, written = place.run()
    assert results_of(done) == {"scored": ["a"], "up_to_date": ["b"]} and {"a.csv", "a.parquet", "faces"} <= written
    assert not {"b.csv", "b.parquet"} & written

    (place.out / "b.csv").unlink()
    done, written = place.run()
    assert results_of(done) == {"scored": ["b"], "up_to_date": ["a"]}
    summary = {"summary.parquet", "summary.csv"}
    assert written - summary == {"b.parquet", "b.csv", ".affwild2_predictions.json"}

    store = Store(place.store)
    (head,) = list_bundles(store, "heads")
    files = {name: read_file(store, head, name) for name in head.files}
    details = replace(HeadDetails.of(head), recipe="default")
    shutil.rmtree(place.store / head.folder)
    write_bundle(store, "heads/expr-again", files, fingerprint="f" * 64, details=details)
    done, written = place.run()
    assert results_of(done) == {"scored": ["a", "b"]}, "another head"
    files = {"a.parquet", "a.csv", "b.parquet", "b.csv", ".affwild2_predictions.json", "predictions.json"}
    assert {"person_outputs"} == written - files - summary

    os.utime(place.videos / "a.mp4", (OLD + 5, OLD + 5))
    done, written = place.run()
    assert results_of(done) == {"up_to_date": ["a", "b"]} and written == {"videos", "frames"}, "touched, not changed"
    assert place.run()[1] == set()


def test_a_growing_file_waits_until_it_is_complete(place, capsys):
    whole = video_at(place.videos.parent / "whole.mp4", frames=8)
    growing = cut_file(whole, place.videos / "growing.mp4", fraction=0.5)
    done, _ = place.run()
    assert results_of(done) == {"waiting": ["growing"]}
    assert f"waiting: {growing}: " in capsys.readouterr().out
    shutil.copy(whole, growing)
    os.utime(growing, (time.time() + 3600,) * 2)
    assert results_of(place.run()[0]) == {"waiting": ["growing"]}, "its clock is ahead of ours"
    assert results_of(place.run(settle_seconds=0)[0]) == {"scored": ["growing"]}
    assert results_of(place.run(settle_seconds=0)[0]) == {"up_to_date": ["growing"]}


def test_a_newly_skipped_file_fails_one_run(place):
    video_at(place.videos / "a.mp4")
    for name in ("b.xyz", "day 2/batch.zip", ".DS_Store", "notes.txt"):
        (place.videos / name).parent.mkdir(exist_ok=True)
        (place.videos / name).write_bytes(b"no\0video")
    place.run()
    assert place.failed and place.failed.startswith("1 scored, 2 skipped; 2 newly skipped; first: videos: 1 skipped, ")
    done, written = place.run()
    assert results_of(done) == {"up_to_date": ["a"]} and written == set() and place.failed is None
    (place.videos / "c.xyz").write_bytes(b"no\0video")
    place.run()
    assert place.failed and place.failed.startswith("1 up to date, 3 skipped; 1 newly skipped; first: ")
    (place.videos / "c.xyz").unlink()
    assert results_of(place.run()[0]) == {"up_to_date": ["a"]}


def test_a_video_that_always_fails_is_quarantined_until_it_changes(place, capsys):
    video_at(place.videos / "good.mp4")
    bad = place.videos / "bad.mp4"
    bad.write_bytes(b"no video")
    os.utime(bad, (OLD, OLD))
    for _ in range(3):
        place.run()
        assert "1 failed; first: index_videos bad: " in place.failed
    capsys.readouterr()
    done, written = place.run()
    assert results_of(done) == {"up_to_date": ["good"], "quarantined": ["bad"]} and written == set()
    printed = capsys.readouterr().out
    assert f"quarantined: index_videos: bad: {bad}: expected a readable video file" in printed
    assert "(failed 3 times since 2" in printed and "2 videos: 1 up to date, 1 quarantined" in printed
    status = run_command("status", "--store", place.store)
    assert status.returncode == 1
    assert f"quarantined: videos bad: {bad}: expected a readable video file" in status.stdout
    assert "(failed 3 times since 2" in status.stdout and "--retry-quarantined" in status.stdout

    place.run(retry_quarantined=True)
    assert "1 failed; first: index_videos bad: " in place.failed
    assert results_of(place.run()[0])["quarantined"] == ["bad"], "the file is still invalid"

    bad.write_bytes(b"no video either")
    os.utime(bad, (OLD, OLD))
    place.run()
    assert "index_videos bad: " in place.failed, "it has changed, and is tried again"
    video_at(bad)
    assert results_of(place.run()[0]) == {"scored": ["bad"], "up_to_date": ["good"]}
    assert Store(place.store).failures("videos") == {}


def test_the_quarantine_of_a_deleted_video_ends_with_the_next_run(place):
    video_at(place.videos / "good.mp4")
    for path in (place.videos / "bad.mp4", place.videos / "same.mp4", place.videos / "same.mkv"):
        path.write_bytes(b"no video")
        os.utime(path, (OLD, OLD))
    for _ in range(4):
        place.run()
    assert len(Store(place.store).failures("videos")) == 2
    assert run_command("status", "--store", place.store).stdout.count("quarantined: ") == 2
    for path in place.videos.glob("[bs]a*"):
        path.unlink()
    place.run()
    assert Store(place.store).failures("videos") == {} and place.failed is None
    assert run_command("status", "--store", place.store).returncode == 0


def test_the_quarantine_outlasts_a_run_whose_folder_is_not_mounted(place):
    bad = place.videos / "bad.mp4"
    bad.write_bytes(b"no video")
    os.utime(bad, (OLD, OLD))
    for _ in range(3):
        place.run()
    disk = place.videos.rename(place.videos.parent / "disk")
    place.videos.mkdir()
    with pytest.raises(InputError, match="mount the folder if it is not mounted"):
        place.run()
    assert len(Store(place.store).failures("videos")) == 1
    place.videos.rmdir()
    disk.rename(place.videos)
    assert results_of(place.run()[0]) == {"quarantined": ["bad"]}

    bad.unlink()
    with pytest.raises(InputError, match="if you removed them, the next run accepts it"):
        place.run()
    place.run()
    assert Store(place.store).failures("videos") == {}


def test_a_partly_damaged_video_is_reported_each_time_and_fails_only_one_run(place, capsys):
    whole = video_at(place.videos.parent / "whole.mkv", frames=60)
    cut = cut_file(whole, place.videos / "cut.mkv", fraction=0.6)
    os.utime(cut, (OLD, OLD))
    place.run()
    assert "1 used in part" in place.failed and (place.out / "cut.parquet").exists()
    capsys.readouterr()
    assert results_of(place.run()[0]) == {"up_to_date": ["cut"]}
    assert "in part: index_videos: cut: " in capsys.readouterr().out


def test_files_that_share_a_name_keep_existing_predictions(place):
    first = video_at(place.videos / "a.mp4")
    place.run()
    second = video_at(place.videos / "sub" / "a.mkv", frames=3)
    _, written = place.run()
    assert f"{first}: expected one video per name, got also {second}" in place.failed
    assert written == {"videos", "_arriving"}
    first.unlink()
    assert results_of(place.run()[0]) == {"scored": ["a"]}
    video_at(place.videos / "a.mp4", frames=4)
    place.run()
    assert "expected one video per name" in place.failed
    (place.videos / "a.mp4").unlink()
    assert results_of(place.run()[0]) == {"up_to_date": ["a"]}
    assert Store(place.store).failures("videos") == {}


def test_a_deleted_video_keeps_its_predictions_and_is_reported(place, capsys):
    for name in ("a.mp4", "b.mp4"):
        video_at(place.videos / name)
    place.run()
    (place.videos / "a.mp4").unlink()
    done, written = place.run()
    assert results_of(done) == {"up_to_date": ["b"], "without_video": ["a"]} and written == set()
    assert f"{place.out} has predictions of 1 deleted or moved video (a)" in capsys.readouterr().out
    assert (place.out / "a.csv").exists()

    (place.videos / "b.mp4").unlink()
    with pytest.raises(InputError, match=r"expected videos, found none; the last run found 1; mount the folder if"):
        place.run()
    assert results_of(place.run()[0]) == {"without_video": ["a", "b"]}, "an empty folder fails one run"


def test_wrong_requests_are_reported_in_one_line(place):
    place.videos.rmdir()
    with pytest.raises(InputError, match="expected a video file or a folder of videos, found nothing there"):
        place.run()
    finished = run_command("rescore", place.videos, "--store", place.store, "--out", place.out, "--quiet")
    (line,) = finished.stderr.strip().splitlines()
    assert finished.returncode == 2 and line.startswith(f"affwild2: {place.videos}: expected a video file or a folder")


def _set_variables(values):
    os.environ.update(values)


@pytest.mark.service
def test_videos_store_and_predictions_on_s3(place, s3_bucket, dask_address, tmp_path, capsys):
    with Client(dask_address) as client:
        client.run(_set_variables, {name: value for name, value in os.environ.items() if name.startswith("AWS_")})
    bucket = location(s3_bucket)
    videos, out, store = bucket / "incoming", bucket / "incoming" / "out", f"{s3_bucket}/store"

    def run():
        return results_of(rescore([videos], store, out, dask_address=dask_address))

    assert run() == {}, "nothing has come yet"
    for name in ("a.mp4", "day 2/b.mp4", ".hidden/c.mp4", "out/d.mp4"):
        bucket.fs.put(str(video_at(tmp_path / "local" / name)), f"{videos.path}/{name}")
    assert run() == {"scored": ["a", "b"]}, "a file on S3 is complete when it appears"
    names = {path.removeprefix(f"{out.path}/") for path in bucket.fs.find(out.path)}
    assert {"a.csv", "a.parquet", "b.csv", "b.parquet"} < names
    before = {path: info["ETag"] for path, info in bucket.fs.find(out.path, detail=True).items()}
    assert run() == {"up_to_date": ["a", "b"]}

    bucket.fs.rm(f"{videos.path}/day 2/b.mp4")
    assert run() == {"up_to_date": ["a"], "without_video": ["b"]}
    capsys.readouterr()
    assert forget(ForgetParameters(["b"], store)) == 0
    assert f"{out}" in capsys.readouterr().out, "the store knows where its predictions are"
    bucket.fs.invalidate_cache()
    left = {path: bucket.fs.cat(path) for path in bucket.fs.find(bucket.path)}
    assert [path for path, data in left.items() if "=b/" in path or "/b." in path or b"b.mp4" in data] == []
    after = {path: info["ETag"] for path, info in bucket.fs.find(out.path, detail=True).items()}
    assert after[f"{out.path}/a.csv"] == before[f"{out.path}/a.csv"]
    assert run() == {"up_to_date": ["a"]}
