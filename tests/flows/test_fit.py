import json
import shutil
import zipfile
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow.compute as pc
import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.details.heads import PostprocessingDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import list_bundles, read_file
from data_contracts.store.store import Store
from data_contracts.vocabulary import EXPRESSIONS
from flows.commands.parameters import CompareParameters
from flows.fit import fit
from flows.pages.compare import compare
from flows.score import score
from flows.submit import submit
from models.backbones.registry import COMMON_5
from models.decisions.postprocessing import backbone_expressions
from models.decisions.smoothing import Smoothing
from models.faces.detection import DetectorParams
from models.recipes.registry import find_recipe
from models.recipes.toml_files import recipe_to_toml
from tasks.fit.predict_outputs import to_backbone, to_outputs
from tasks.fit.stored_heads import load_head, load_postprocessing
from tasks.fit.subject_features import find_features, read_sequence
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


@pytest.mark.service
def test_a_gate_decides_in_scores_submissions_and_predictions(demo, store_copy, tmp_path, dask_address, capsys):
    default, level, store = find_recipe("default"), 0.3, Store(store_copy)
    # The labels are the backbone's own expressions, and the head learns nothing.
    annotations = shutil.copytree(demo.data / "Third ABAW Annotations", tmp_path / "Third ABAW Annotations")
    variant = find_features(store)
    for path in annotations.glob("EXPR_*/*/*.txt"):
        if path.stem in variant.subjects:
            faces = read_sequence(store, variant, path.stem)
            labels = np.where(faces.present, backbone_expressions(faces.logits, COMMON_5).argmax(axis=1), -1)
            path.write_text("\n".join([path.read_text().splitlines()[0], *map(str, labels)]) + "\n")
    head = default.heads["expr"].replace(learning_rate=1e-6, epochs=1, seeds=1)
    decided = default.postprocessing["expr"].replace(
        gate_levels=(level,), smoothings={"expr": (Smoothing(),)}, class_bias=None
    )
    recipe = replace(default, name="gated", heads={"expr": head}, postprocessing={"expr": decided})
    (tmp_path / "gated.toml").write_text(recipe_to_toml(recipe))
    options = {"store": str(store_copy), "dask_address": dask_address}
    name = fit("expr", annotations=annotations, recipe=str(tmp_path / "gated.toml"), **options)
    rule = next(one for one in list_bundles(store, "postprocessing") if PostprocessingDetails.of(one).head == name)
    assert load_postprocessing(store, rule).rules["expr"].gate_level == level
    assert "gate" in {one.step for one in read_candidates(store, rule)}
    figures = PostprocessingDetails.of(rule).figures
    assert figures.held_out["macro_f1"] > figures.untuned["macro_f1"]

    def expected(dataset, item):
        (unit,) = (one for one in store.manifests(dataset, head=name).items() if one[0].item == item)
        table = store.read_unit(*unit).filter(pc.field("has_face"))
        own, outputs = to_backbone(table), to_outputs(table, ("expr",))["expr"]
        is_sure = own.max(axis=1) > level
        assert is_sure.any() and (own.argmax(axis=1) != outputs.argmax(axis=1))[is_sure].any()
        return table["frame"].to_numpy(), np.where(is_sure, own.argmax(axis=1), outputs.argmax(axis=1))

    lists = demo.data / "names_of_videos_in_each_test_set"
    zipped = submit("expr", test_list=lists / ABAW3_TEST_LISTS["expr"], head=name, **options)
    with zipfile.ZipFile(zipped) as archive:
        lines = archive.read("test01.txt").decode().splitlines()
    frames, decisions = expected("outputs", "test01")
    assert [int(lines[frame]) for frame in frames] == decisions.tolist()

    score([demo.data / "videos" / "test01.mp4"], tmp_path / "out", heads=[name], **options)
    rows = pl.read_parquet(tmp_path / "out" / "test01.parquet").filter(pl.col("person") == 1, "has_face")
    frames, decisions = expected("person_outputs", "test01")
    assert rows["expression"].to_list() == [EXPRESSIONS[one] for one in decisions[: len(rows)]]


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


def test_training_on_both_sets_keeps_the_held_out_score(demo, expr_store, dask_address, capsys):
    options = {"store": str(expr_store), "annotations": demo.data, "seeds": 1, "dask_address": dask_address}
    name = fit("au", train_on_validation=True, **options)
    printed = capsys.readouterr().out
    store = Store(expr_store)
    alone = fit("au", **options)
    line = f"{name}: fitted on train and validation; the scores are those of {alone}, fitted on train alone"
    assert line in printed.splitlines() and "the head fitted on train alone" in printed
    assert "scores of" not in capsys.readouterr().out
    assert details(expr_store, name)["scores_of"] == alone and "scores_of" not in details(expr_store, alone)
    text, page = read_page(store, write_report(store, name="store", written=datetime.now(UTC)))
    assert line in text
    marks = {row[0]: row[5] for row in page.tables["Scores on the validation set"]}
    assert marks["head"] == "scores of"
    assert (marks[name], marks[alone]) == ("the head fitted on train alone", "this head")
    lists = demo.data / "names_of_videos_in_each_test_set"
    submit("au", str(expr_store), lists / ABAW3_TEST_LISTS["au"], head=name, dask_address=dask_address)
    marked = {b.details["head"]: b.details.get("figures_of") for b in list_bundles(store, "submissions")}
    assert marked.pop(name) == alone and set(marked.values()) == {None}
    assert name != alone and details(expr_store, name)["trained_on"] == ["train", "validation"]
    assert details(expr_store, name)["figures"] == {}
    rules = {b.details["head"]: b for b in list_bundles(store, "postprocessing")}
    assert rules[name].details["figures"] == rules[alone].details["figures"]
    assert rules[name].details["tuned_with"] == alone
    content = json.loads(read_file(store, rules[name], "postprocessing.json"))
    assert content["figures"]["held_out"]["mean_f1"] > 0 and content["figures_of"] == alone
    assert read_candidates(store, rules[name]) == read_candidates(store, rules[alone]) != []
