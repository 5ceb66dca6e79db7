import json
import shutil
from datetime import UTC, datetime

import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.errors import InputError
from data_contracts.store.bundles import list_bundles, read_file
from data_contracts.store.store import Store
from flows.commands.parameters import CompareParameters
from flows.fit import fit
from flows.pages.compare import compare
from flows.submit import submit
from models.faces.detection import DetectorParams
from tasks.fit.predict_outputs import load_head
from tasks.fit.tune_postprocessing import read_candidates
from tasks.pages.write_report import write_report
from tests.tasks.pages.test_write_report import read_page


def details(store, name):
    return next(b for b in list_bundles(Store(store), "heads") if b.name == name).details


def test_paper_recipe_and_overrides(demo, store_copy, dask_address, capsys):
    options = {"store": str(store_copy), "annotations": demo.data, "dask_address": dask_address}
    paper = fit("expr", recipe="paper", **options)
    printed = capsys.readouterr().out
    # The windows of this recipe are fixed, so nothing is tuned.
    assert "untuned ┃ post-processed" in printed and "in-sample" not in printed and "held-out" not in printed
    linear = fit("expr", features="both", hidden_units=0, seeds=1, **options)
    assert details(store_copy, paper)["settings"]["parts"][0]["epochs"] == 10
    store = Store(store_copy)
    (head,) = [load_head(store, b) for b in list_bundles(store, "heads") if b.name == linear]
    assert list(head.tensors) == ["seed0.expr.0.weight", "seed0.expr.0.bias"]
    assert head.tensors["seed0.expr.0.weight"].shape == (8, 1280 + 5)
    assert fit("expr", recipe="paper", **options) == paper
    capsys.readouterr()
    assert compare(CompareParameters(paper, linear[:-2], str(store_copy))) == 0
    printed = capsys.readouterr().out
    assert f"A: {paper} (" in printed and f"B: {linear} (" in printed and "paired BCa bootstrap over" in printed
    text, page = read_page(store, f"reports/compare-{paper}-{linear}/index.html")
    assert len(page.tables["Differences"]) == 1 + 2 * 10 and text.count('class="chart"') == 4
    with pytest.raises(InputError, match=r"compare default: expected one head .* several match: .*; add --task"):
        compare(CompareParameters("default", paper, str(store_copy)))
    va = next(head.name for head in list_bundles(store, "heads") if head.name.startswith("va-"))
    with pytest.raises(InputError, match="expected heads of one task, got expr and va"):
        compare(CompareParameters(paper, va, str(store_copy)))


def test_labels_without_a_face_are_counted(demo, store_copy, tmp_path, dask_address, capsys):
    annotations = shutil.copytree(demo.data / "Third ABAW Annotations", tmp_path / "Third ABAW Annotations")
    validation = annotations / "VA_Estimation_Challenge" / "Validation_Set"
    text = (validation / "validation01.txt").read_text()
    (validation / "validation01.txt").write_text(text.replace("-5,-5", "0.5,0.5"))
    (validation / "unknown.txt").write_text(text)
    name = fit("va", str(store_copy), annotations, seeds=1, dask_address=dask_address)
    row = next(c for c in details(store_copy, name)["coverage"] if c["set_name"] == "validation")
    assert row["subjects_without_features"] == 1
    # 48 are of an unknown subject and of frames without a face; a face that reappears is found a few frames later.
    late = DetectorParams().search_every_frames - 1
    assert 48 <= row["labelled_without_face"] <= 48 + late * row["subjects"]
    assert "labelled without face" in capsys.readouterr().out


def test_training_on_both_sets_keeps_the_held_out_score(demo, store_copy, dask_address, capsys):
    options = {"store": str(store_copy), "annotations": demo.data, "seeds": 1, "dask_address": dask_address}
    name = fit("au", train_on_validation=True, **options)
    printed = capsys.readouterr().out
    store = Store(store_copy)
    alone = fit("au", **options)
    line = f"{name}: fitted on train and validation; the scores are those of {alone}, fitted on train alone"
    assert line in printed.splitlines() and "the head fitted on train alone" in printed
    assert "scores of" not in capsys.readouterr().out
    assert details(store_copy, name)["scores_of"] == alone and "scores_of" not in details(store_copy, alone)
    text, page = read_page(store, write_report(store, name="store", written=datetime.now(UTC)))
    assert line in text
    marks = {row[0]: row[5] for row in page.tables["Scores on the validation set"]}
    assert marks["head"] == "scores of"
    assert (marks[name], marks[alone]) == ("the head fitted on train alone", "this head")
    lists = demo.data / "names_of_videos_in_each_test_set"
    submit("au", str(store_copy), lists / ABAW3_TEST_LISTS["au"], head=name, workers=1)
    marked = {b.details["head"]: b.details.get("figures_of") for b in list_bundles(store, "submissions")}
    assert marked.pop(name) == alone and set(marked.values()) == {None}
    assert name != alone and details(store_copy, name)["trained_on"] == ["train", "validation"]
    assert details(store_copy, name)["figures"] == {}
    rules = {b.details["head"]: b for b in list_bundles(store, "postprocessing")}
    assert rules[name].details["figures"] == rules[alone].details["figures"]
    assert rules[name].details["tuned_with"] == alone
    content = json.loads(read_file(store, rules[name], "postprocessing.json"))
    assert content["figures"]["held_out"]["mean_f1"] > 0 and content["figures_of"] == alone
    assert read_candidates(store, rules[name]) == read_candidates(store, rules[alone]) != []
