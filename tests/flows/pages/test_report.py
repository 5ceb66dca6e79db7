"""The report of the demo's store, compared with the files of the store."""

import hashlib
import json

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from data_contracts.store.store import Store
from tests.tasks.pages.test_write_report import read_page


def parquet(store, dataset, columns):
    return ds.dataset(store / dataset, partitioning="hive", exclude_invalid_files=True).to_table(columns=columns)


def test_the_report_of_the_demo_agrees_with_its_files(demo):
    assert f"report: {demo.store}/reports/store/index.html" in demo.output
    _, page = read_page(Store(demo.store), "reports/store/index.html")

    faces = parquet(demo.store, "faces", ["video", "status"]).to_pylist()
    rows = {row[0]: row for row in page.tables["Videos and crops"][1:]}
    assert set(rows) == {face["video"] for face in faces}
    for video, row in rows.items():
        found = [face["status"] for face in faces if face["video"] == video]
        assert [row[3], row[4]] == [str(found.count("face")), str(found.count("no_face"))]
        assert row[5] == f"{100 * (1 - found.count('no_face') / int(row[2])):.1f} %"

    features = parquet(demo.store, "features", ["subject", "has_face"]).to_pylist()
    for subject, _, _, frames, with_face, _, heads in page.tables["Subjects"][1:]:
        seen = [row["has_face"] for row in features if row["subject"] == subject]
        assert (int(frames), int(with_face), heads) == (len(seen), sum(seen), "4")

    figures = {row[1]: row[5:] for row in page.tables["Scores on the validation set"][1:]}
    thresholds = {row[0]: row[1:] for row in page.tables["Thresholds of action units"][1:]}
    for folder in (demo.store / "postprocessing").iterdir():
        tuned = json.loads((folder / "postprocessing.json").read_text())
        task, head = tuned["postprocessing"]["task"], folder.name.rsplit("-", 2)[0]
        name = {"expr": "macro_f1", "va": "mean_ccc", "au": "mean_f1", "mtl": "p_mtl"}[task]
        assert figures[task] == [f"{tuned['figures'][kind][name]:.3f}" for kind in ("untuned", "tuned", "held_out")]
        if task in ("au", "mtl"):
            rule = tuned["postprocessing"]["rules"]["au"]["thresholds"]
            assert thresholds[head] == [f"{value:.3f}" for value in rule]

    # The outputs and labels in the store give the scores of the fit again, and each has its interval.
    scored: dict[str, dict[str, list[str]]] = {}
    for head, kind, _, value, low, high, _, rows in page.tables["Scores with intervals"][1:]:
        scored.setdefault(head.split("-")[0], {})[kind] = value
        assert int(rows.replace(",", "")) > 0 and float(low) <= float(high)
    assert {task: list(values.values()) for task, values in scored.items()} == figures

    for task, outputs in (("expr", "expressions"), ("au", "action units")):
        rows = page.tables[f"Selective prediction of {outputs}, held-out"]
        whole = [row[2] for row in rows if row[0] == "100.0 %"]
        assert figures[task][2] in whole and len(rows) == 2 * (1 + 10), "of two heads, from 100 % to 10 %"

    candidates = {row[1]: row for row in reversed(page.tables["Best smoothing candidates"][1:])}
    assert set(candidates) == {"expr", "va", "au"} and len(page.tables["Best smoothing candidates"]) == 1 + 6 * 5
    for file in (demo.store / "postprocessing").glob("expr-*/candidates.parquet"):
        tried = pq.read_table(file)
        assert all(field.metadata[b"meaning"] for field in tried.schema)
        best = max(row["score"] for row in tried.to_pylist() if row["step"] == "smoothing")
        assert candidates["expr"][3] == f"{best:.3f}"

    settings = {row[0]: row[1:] for row in page.tables["Settings"][1:]}
    for folder in (demo.store / "heads").iterdir():
        details = json.loads((folder / "manifest.json").read_text())["details"]
        part = details["settings"]["parts"][0]
        chosen = [part["features"], str(part["hidden_units"]), str(part["seeds"])]
        assert settings.pop(folder.name)[:8] == [
            "mlp", "default", *chosen, details["backbone"], details["source"], "train"
        ]  # fmt: skip
    assert settings == {}

    zips = {path.name: path for path in (demo.store / "submissions").glob("*/*.zip")}
    for _, task, name, checks, *_, digest in page.tables["Zip files"][1:]:
        assert digest == hashlib.sha256(zips.pop(name).read_bytes()).hexdigest()
        assert checks.startswith("no fault (test list of 4 subjects" if task != "mtl" else "no fault (test list of ")
    assert zips == {}
    places = {(demo.store / "reports" / "store" / link).resolve() for link in page.links}
    assert places == {path.resolve() for path in (demo.store / "submissions").glob("*/*.zip")}

    ((what, dataset, unit, cause),) = page.tables["Failures and losses"][1:]
    assert (what, dataset, unit) == ("failed", "videos", "corrupt") and "expected a readable video file" in cause
