"""The results of ``score`` and ``rescore`` through the program: as JSON, and with --quiet."""

import json

import polars as pl
import pytest

from tests.processes import run_command

KEYS = [
    *("command", "version", "store", "out", "counts", "videos", "images", "files", "heads", "failures", "problems"),
    *("quarantined", "inputs", "summary"),
]


@pytest.fixture(scope="module")
def scored(folder):
    (folder / "videos/broken.mp4").write_bytes(b"\0" * 100)
    (folder / "videos/summary.mp4").write_bytes((folder / "videos/clip.mp4").read_bytes())
    return run_command("score", folder / "videos", "--out", folder / "out", "--workers", 1, "--json")


def test_the_result_of_score_as_json(folder, scored):
    assert scored.returncode == 1
    result = json.loads(scored.stdout)
    assert list(result) == KEYS and (result["command"], result["version"]) == ("score", 1)
    assert (result["store"], result["out"]) == (str(folder / "out/store"), str(folder / "out"))
    assert result["videos"] == {
        **{"scored": ["clip"], "up_to_date": [], "failed": ["broken"]},
        **{"quarantined": [], "waiting": [], "without_video": []},
    }
    counts = result["counts"]
    assert (counts["done"], counts["failed"], counts["skipped"], counts["verb"]) == (1, 1, 1, "scored")
    assert result["files"] == [str(folder / "out/clip.parquet"), str(folder / "out/clip.csv")]
    (head,) = result["heads"]
    assert list(head) == ["tasks", "head", "backbone", "why", "postprocessing"] and head["postprocessing"] is None
    (failure,) = result["failures"]
    assert (failure["stage"], failure["unit"]) == ("index_videos", "broken") and "broken.mp4" in failure["cause"]
    (account,) = result["inputs"]
    assert account["used"] == 2 and account["skipped"][0]["examples"] == ["summary.mp4"]
    (row,) = result["summary"]
    assert row == pl.read_parquet(folder / "out/summary.parquet").to_dicts()[0]
    assert (row["video"], row["frames"]) == ("clip", 4)
    # Everything else is on standard error: lines, tables, and the problems.
    for text in ("videos in ", "crop_faces", "failed: index_videos: broken: ", "affwild2: 1 scored, 1 failed"):
        assert text in scored.stderr


def test_rescore_has_the_same_keys_and_quiet_prints_problems_and_one_line(folder, scored):
    options = folder / "videos", "--store", folder / "out/store", "--out", folder / "out", "--settle-seconds", 0
    ended, quiet = (run_command("rescore", *options, option) for option in ("--json", "--quiet"))
    result = json.loads(ended.stdout)
    assert list(result) == KEYS and result["command"] == "rescore" and result["videos"]["up_to_date"] == ["clip"]
    assert [row["video"] for row in result["summary"]] == ["clip"]
    (line,) = quiet.stdout.splitlines()
    assert line.startswith("2 videos: 1 up to date, 1 failed")
    assert all("broken" in one or "summary.mp4" in one for one in quiet.stderr.splitlines()), quiet.stderr
