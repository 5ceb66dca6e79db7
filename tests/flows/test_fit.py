import json
import shutil

from data_contracts.store.bundles import list_bundles, read_file
from data_contracts.store.store import Store
from flows.fit import fit
from models.faces.detection import DetectorParams
from tasks.fit.predict_outputs import load_head


def details(store, name):
    return next(b for b in list_bundles(Store(store), "heads") if b.name == name).details


def test_paper_recipe_and_overrides(demo, store_copy, dask_address):
    options = {"store": str(store_copy), "annotations": demo.data, "dask_address": dask_address}
    paper = fit("expr", recipe="paper", **options)
    linear = fit("expr", features="both", hidden_units=0, seeds=1, **options)
    assert details(store_copy, paper)["settings"]["parts"][0]["epochs"] == 10
    store = Store(store_copy)
    (head,) = [load_head(store, b) for b in list_bundles(store, "heads") if b.name == linear]
    assert list(head.tensors) == ["seed0.expr.0.weight", "seed0.expr.0.bias"]
    assert head.tensors["seed0.expr.0.weight"].shape == (8, 1280 + 5)
    assert fit("expr", recipe="paper", **options) == paper


def test_labels_without_a_face_are_counted(demo, store_copy, tmp_path, dask_address, capsys):
    annotations = shutil.copytree(demo.data / "Third ABAW Annotations", tmp_path / "Third ABAW Annotations")
    validation = annotations / "VA_Estimation_Challenge" / "Validation_Set"
    text = (validation / "validation01.txt").read_text()
    (validation / "validation01.txt").write_text(text.replace("-5.000,-5.000", "0.5,0.5"))
    (validation / "unknown.txt").write_text(text)
    name = fit("va", str(store_copy), annotations, seeds=1, dask_address=dask_address)
    row = next(c for c in details(store_copy, name)["coverage"] if c["set_name"] == "validation")
    assert row["subjects_without_features"] == 1
    # 48 are of an unknown subject and of frames without a face; a face that reappears is found a few frames later.
    late = DetectorParams().search_every_frames - 1
    assert 48 <= row["labelled_without_face"] <= 48 + late * row["subjects"]
    assert "labelled without face" in capsys.readouterr().out


def test_training_on_both_sets_keeps_the_held_out_score(demo, store_copy, dask_address):
    options = {"store": str(store_copy), "annotations": demo.data, "seeds": 1, "dask_address": dask_address}
    name = fit("au", train_on_validation=True, **options)
    store = Store(store_copy)
    alone = fit("au", **options)
    assert name != alone and details(store_copy, name)["trained_on"] == ["train", "validation"]
    assert details(store_copy, name)["figures"] == {}
    rules = {b.details["head"]: b for b in list_bundles(store, "postprocessing")}
    assert rules[name].details["figures"] == rules[alone].details["figures"]
    assert rules[name].details["tuned_with"] == alone
    figures = json.loads(read_file(store, rules[name], "postprocessing.json"))["figures"]
    assert figures["held_out"]["mean_f1"] > 0
