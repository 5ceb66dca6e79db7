"""``affwild2 verify`` on folders that ``submit`` wrote."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from data_contracts.challenge.submissions import format_subject_file, zip_bytes
from data_contracts.errors import InputError
from data_contracts.store.bundles import write_bundle
from data_contracts.store.store import Store
from data_contracts.video.packets import index_video
from flows.commands.parameters import VerifyParameters
from flows.commands.verify import verify
from tests.details_factory import submission_details
from tests.processes import run_command
from tests.video_factory import VideoSpec, cut_file, write_video

ARRAYS = ("pts", "pts_seconds", "keyframe")
TEXTS = {"s1.txt": format_subject_file("va", {"va": np.zeros((3, 2), np.float32)})}


@pytest.fixture
def folder(tmp_path):
    """A submission in a store, as ``submit`` writes it."""
    details = submission_details("va", "abaw3_va.zip")
    files = {f"predictions/{name}": data for name, data in TEXTS.items()}
    files |= {"abaw3_va.zip": zip_bytes(TEXTS), "coverage.csv": b"subject\ns1\n"}
    write_bundle(Store(tmp_path / "store"), "submissions/abaw3-va-1", files, fingerprint="f", details=details)
    return tmp_path / "store" / "submissions" / "abaw3-va-1"


def test_the_folder_and_a_copy_of_it_are_accepted(folder, tmp_path, capsys, monkeypatch):
    shutil.copytree(folder, tmp_path / "copy of it")
    monkeypatch.chdir(tmp_path / "copy of it")
    for path in (folder, tmp_path / "copy of it", "."):
        assert verify(VerifyParameters(str(path))) == 0
    assert capsys.readouterr().out.count(": no fault (format only") == 3


def test_changed_files_are_named_and_one_fault_is_singular(folder, capsys):
    (folder / "coverage.csv").write_text("subject\ns2\n")
    assert verify(VerifyParameters(str(folder))) == 1
    assert capsys.readouterr().out.splitlines() == [
        "coverage.csv: expected the file that submit wrote, got another",
        f"{folder}: 1 fault (format only: no --test-list, no --videos)",
    ]
    (folder / "abaw3_va.zip").write_bytes((folder / "abaw3_va.zip").read_bytes()[:-9])
    assert verify(VerifyParameters(str(folder))) == 1
    assert "abaw3_va.zip: expected a zip, got a truncated zip" in capsys.readouterr().out
    (folder / "manifest.json").write_text("{}")
    assert verify(VerifyParameters(str(folder))) == 1
    assert "manifest.json: expected the manifest that submit wrote" in capsys.readouterr().out


def test_frames_of_videos_are_counted_by_decoding(folder, tmp_path, capsys, monkeypatch):
    """A wrong index, which made the submission, must not confirm it."""
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "s1.mp4", VideoSpec(frame_count=4))
    wrong = dataclasses.replace(index_video(tmp_path / "videos" / "s1.mp4"), **dict.fromkeys(ARRAYS, np.arange(3)))
    monkeypatch.setattr("flows.commands.verify.index_video", lambda path: wrong)
    assert verify(VerifyParameters(str(folder), videos=tmp_path / "videos")) == 1
    assert "expected 4 rows, one per frame of the video, got 3" in capsys.readouterr().out


def test_frames_lost_at_the_cut_end_of_a_video_are_not_expected(folder, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    spec = VideoSpec(frame_count=4, gop_frames=1, b_frames=0, container_options={"movflags": "faststart"})
    whole = write_video(tmp_path / "whole.mp4", spec)
    cut_file(whole, tmp_path / "videos" / "s1.mp4", fraction=0.99)
    assert verify(VerifyParameters(str(folder), videos=tmp_path / "videos")) == 0
    assert "s1.mp4 is damaged; 3 rows are expected" in capsys.readouterr().out


def test_videos_that_are_not_counted_are_listed(folder, tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "other.mp4").write_bytes(b"x")
    for name in ("s1.mp4", "s1.mov", "batch.zip"):
        (videos / name).write_bytes(b"x")
    assert verify(VerifyParameters(str(folder), videos=videos)) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"not compared: {videos}: found no video of 1 subject (s1)",
        "not compared: videos: 2 skipped, videos that share their name with another video; rename all but one: s1.mov, "
        "s1.mp4",
        "not compared: videos: 1 skipped, archives; unpack them: batch.zip",
        f"{folder}: no fault (format only: no --test-list, no --videos)",
    ]
    (videos / "s1.mov").unlink()
    assert verify(VerifyParameters(str(folder), videos=videos)) == 1
    assert "not compared: " in (printed := capsys.readouterr().out) and "s1.mp4: expected a readable" in printed


def test_only_videos_of_the_submission_are_decoded(folder, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "s1.mp4", VideoSpec(frame_count=3))
    (tmp_path / "videos" / "other.mp4").write_bytes(b"x")
    assert verify(VerifyParameters(str(folder), videos=tmp_path / "videos")) == 0
    assert capsys.readouterr().out == f"{folder}: no fault against videos\n"


def test_paths_are_checked_before_a_video_is_decoded(folder, tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "s1.mp4", VideoSpec(frame_count=3))
    monkeypatch.setattr("flows.commands.verify.count_frames", lambda video: pytest.fail("decoded"))
    for path, test_list in ((tmp_path / "none.zip", None), (folder, tmp_path / "none.txt")):
        with pytest.raises(InputError, match="none"):
            verify(VerifyParameters(str(path), test_list=test_list, videos=tmp_path / "videos"))


def test_folder_of_test_lists_is_searched_for_the_list_of_the_task(folder, tmp_path, capsys):
    lists = tmp_path / "data" / "names_of_videos_in_each_test_set"
    lists.mkdir(parents=True)
    (lists / "Valence_Arousal_Estimation_Challenge_test_set_release.txt").write_text("s1\ns2\n")
    (lists / "Action_Unit_Detection_Challenge_test_set_release.txt").write_text("s3\n")
    assert verify(VerifyParameters(str(folder), test_list=tmp_path / "data")) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"test list: {lists / 'Valence_Arousal_Estimation_Challenge_test_set_release.txt'}",
        "s2.txt: expected by the test list, not in the submission",
        f"{folder}: 1 fault against test list",
    ]
    (lists / "Valence_Arousal_Estimation_Challenge_test_set_release.txt").unlink()
    with pytest.raises(InputError, match="expected one test list of va here or below, found: none"):
        verify(VerifyParameters(str(folder), test_list=tmp_path / "data"))


def test_files_that_were_lost_or_added_are_named(folder, capsys):
    (folder / "notes.txt").write_text("x")
    (folder / "predictions" / "s9.txt").write_bytes(TEXTS["s1.txt"])
    (folder / "predictions" / "s1.txt").unlink()
    assert verify(VerifyParameters(str(folder))) == 1
    assert capsys.readouterr().out.splitlines() == [
        "predictions/s1.txt: expected the file that submit wrote, found none",
        "notes.txt: expected text files in predictions and the zip only",
        "predictions/s1.txt: expected the file that abaw3_va.zip contains, found none",
        "predictions/s9.txt: not in abaw3_va.zip",
        f"{folder}: 4 faults (format only: no --test-list, no --videos)",
    ]


def test_folder_without_its_zip_is_checked_by_its_texts(folder, capsys):
    (folder / "abaw3_va.zip").unlink()
    assert verify(VerifyParameters(str(folder))) == 1
    assert capsys.readouterr().out.splitlines() == [
        "abaw3_va.zip: expected the file that submit wrote, found none",
        f"{folder}: 1 fault (format only: no --test-list, no --videos)",
    ]


def test_every_fault_is_in_the_json(folder, tmp_path):
    """The text shows the first 50 faults."""
    lists = tmp_path / "Valence_Arousal_Estimation_Challenge_test_set_release.txt"
    lists.write_text("".join(f"other{number}\n" for number in range(60)))
    ended, quiet = (run_command("verify", folder, "--test-list", lists, option) for option in ("--json", "--quiet"))
    found = json.loads(ended.stdout)
    assert ended.returncode == quiet.returncode == 1 and not ended.stderr
    assert list(found) == [
        *("command", "version", "path", "task", "is_valid", "is_simulated", "test_list", "compared_with"),
        *("faults", "not_compared", "notes"),
    ]
    assert (found["command"], found["task"], found["is_valid"]) == ("verify", "va", False)
    assert found["test_list"] == str(lists) and found["compared_with"] == ["test list"]
    assert list(found["faults"][0]) == ["file", "line", "cause"]
    assert quiet.stdout == f"{folder}: {len(found['faults'])} faults against test list\n"
    assert quiet.stderr.splitlines()[0].startswith(found["faults"][0]["file"])
    wrong = run_command("verify", tmp_path / "typo.zip", "--json")
    assert wrong.returncode == 2 and not wrong.stdout and len(wrong.stderr.splitlines()) == 1
