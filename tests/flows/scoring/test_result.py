"""The results of ``score`` and ``rescore`` through the program: as JSON, and with --quiet."""

import json

import duckdb
import polars as pl
import pytest

from tests.processes import run_command
from tests.test_documentation import code_blocks

KEYS = [
    *("command", "version", "store", "out", "counts", "videos", "images", "files", "heads", "failures", "problems"),
    *("quarantined", "inputs", "summary"),
]

NAMES = ["clip", "images", "summary"]


@pytest.fixture(scope="module")
def scored(folder):
    (folder / "videos/broken.mp4").write_bytes(b"\0" * 100)
    (folder / "videos/old.zip").write_bytes(b"PK")
    for name in ("images", "summary"):
        (folder / f"videos/{name}.mp4").write_bytes((folder / "videos/clip.mp4").read_bytes())
    return run_command("score", folder / "videos", "--out", folder / "out", "--workers", 1, "--json")


def test_the_result_of_score_as_json(folder, scored):
    assert scored.returncode == 1
    result = json.loads(scored.stdout)
    assert list(result) == KEYS and (result["command"], result["version"]) == ("score", 1)
    assert (result["store"], result["out"]) == (str(folder / "out/store"), str(folder / "out"))
    assert result["videos"] == {
        **{"scored": NAMES, "up_to_date": [], "failed": ["broken"]},
        **{"quarantined": [], "waiting": [], "without_video": []},
    }
    counts = result["counts"]
    assert (counts["done"], counts["failed"], counts["skipped"], counts["verb"]) == (3, 1, 1, "scored")
    assert result["files"] == [str(folder / f"out/{name}.{kind}") for name in NAMES for kind in ("parquet", "csv")]
    (head,) = result["heads"]
    assert list(head) == ["tasks", "head", "backbone", "why", "postprocessing"] and head["postprocessing"] is None
    (failure,) = result["failures"]
    assert (failure["stage"], failure["unit"]) == ("index_videos", "broken") and "broken.mp4" in failure["cause"]
    (account,) = result["inputs"]
    assert account["used"] == 4 and account["skipped"][0]["examples"] == ["old.zip"]
    assert result["summary"] == pl.read_parquet(folder / "out/tables/summary.parquet").to_dicts()
    assert [(row["video"], row["frames"]) for row in result["summary"]] == [(name, 4) for name in NAMES]
    # Everything else is on standard error: lines, tables, and the problems.
    for text in ("videos in ", "embed_segments", "failed: index_videos: broken: ", "affwild2: 3 scored, 1 failed"):
        assert text in scored.stderr


def test_one_pattern_reads_the_predictions_of_all_videos_whatever_their_names(folder, scored):
    query = code_blocks("data_contracts.md", "sql")[0]
    assert "predictions/*.parquet" in query and "union_by_name" not in query
    assert duckdb.sql(query.replace("predictions/", f"{folder}/out/")).columns == ["expression", "count_star()"]
    rows = duckdb.sql(f"select count(*) from read_parquet('{folder}/out/*.parquet')").pl()
    assert rows.item() == 4 * len(NAMES)


def test_rescore_has_the_same_keys_and_quiet_prints_problems_and_one_line(folder, scored):
    options = folder / "videos", "--store", folder / "out/store", "--out", folder / "out", "--settle-seconds", 0
    ended, quiet = (run_command("rescore", *options, option) for option in ("--json", "--quiet"))
    result = json.loads(ended.stdout)
    assert list(result) == KEYS and result["command"] == "rescore" and result["videos"]["up_to_date"] == NAMES
    assert [row["video"] for row in result["summary"]] == NAMES
    (line,) = quiet.stdout.splitlines()
    assert line.startswith("4 videos: 3 up to date, 1 failed")
    assert all("broken" in one or "old.zip" in one for one in quiet.stderr.splitlines()), quiet.stderr
