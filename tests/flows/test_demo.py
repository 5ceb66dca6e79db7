import csv
import json
import re

import pyarrow.parquet as pq

from data_contracts.store.store import Store
from models.faces.detection import DetectorParams


def test_every_stage_ran_and_only_the_corrupt_file_failed(demo):
    stages = ("index_videos", "crop_faces", "assign_subjects", "embed_faces", "fit_head", "predict_outputs")
    for stage in (*stages, "tune_postprocessing", "write_submission"):
        assert stage in demo.output
    failed = [line for line in demo.output.splitlines() if line.startswith("failed:")]
    assert len(failed) == 1 and "corrupt" in failed[0]
    # Annotations and test lists beside the videos have readers of their own.
    assert "16 found, 16 used, 0 skipped" in demo.output


def test_four_submissions_are_verified_and_at_the_printed_paths(demo):
    assert re.findall(r"^verified (\w+): no fault \(", demo.output, re.M) == ["expr", "va", "au", "mtl"]
    zips = re.findall(r"^submission: (.+\.zip)$", demo.output, re.M)
    assert len(zips) == 4
    for path in zips:
        folder = demo.folder.joinpath(path).parent
        manifest = json.loads((folder / "manifest.json").read_text())
        rows = list(csv.DictReader((folder / "coverage.csv").open()))
        assert [r["subject"] for r in rows] == [c["subject"] for c in manifest["details"]["coverage"]]
        assert {"test03_left", "test03_right"} <= {r["subject"] for r in rows}
        assert any(int(r["interpolated"]) > 0 for r in rows)


def test_heads_are_better_than_chance(demo):
    """Chance is 1/8 for eight expressions; constant values have a CCC of 0."""
    figures = {}
    for folder in (demo.store / "heads").iterdir():
        details = json.loads((folder / "manifest.json").read_text())["details"]
        figures[details["task"]] = details["figures"]
    assert figures["expr"]["macro_f1"] > 0.5
    assert figures["va"]["mean_ccc"] > 0.3
    assert figures["au"]["mean_f1"] > 0.6
    assert figures["mtl"]["p_mtl"] > 1.2


def test_frames_without_a_face_have_rows(demo):
    store = Store(demo.store)
    ((key, manifest),) = [(k, m) for k, m in store.manifests("faces").items() if k.value("video") == "train01"]
    rows = store.read_unit(key, manifest, columns=["frame", "status"]).to_pylist()
    away = [row["frame"] for row in rows if row["status"] == "no_face"]
    # A face that reappears is found at the next search of a whole frame.
    assert 8 <= len(away) < 8 + DetectorParams().search_every_frames
    assert away == list(range(away[0], away[0] + len(away))) and {row["frame"] for row in rows} == set(range(1, 49))


def test_every_column_of_every_file_is_described(demo):
    files = list(demo.store.rglob("*.parquet"))
    datasets = {path.relative_to(demo.store).parts[0] for path in files}
    assert datasets >= {"videos", "frames", "faces", "subjects", "features", "labels", "outputs", "postprocessing"}
    for path in files:
        schema = pq.read_schema(path)
        assert schema.metadata[b"meaning"], path
        assert all(field.metadata and field.metadata[b"meaning"] for field in schema), path
