"""What a worker runs finds its inputs by the manifests that its unit carries: listings of a large store are slow."""

import shutil
from pathlib import Path

import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.files.locations import location
from data_contracts.store.bundles import list_bundles, require_bundle
from data_contracts.store.store import Store
from models.faces.tracking import TrackingParams
from tasks.extract import assign_subjects, crop_faces, embed_faces, index_videos
from tasks.extract.embed_faces import BackboneChoice
from tasks.fit import fit_head, import_labels, predict_outputs, tune_postprocessing
from tasks.fit.subject_features import find_features
from tasks.results import write_submission

OLD = Path(__file__).parents[1] / "data" / "store_34a2ed4"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with one result of every stage. It names its videos relative to the current folder."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Store("store")


def refuse_to_list(*args):
    raise AssertionError("a worker lists a folder")


@pytest.fixture
def unlisted(store):
    """The same store as a worker has it: listing any folder is an error."""
    same = Store(store.url)
    for name in ("states", "iter_states", "list_folder"):
        assert callable(getattr(same.files, name))
        setattr(same.files, name, refuse_to_list)
    return same


def rows(product):
    return sum(table.num_rows for table in product.tables)


def test_listing_is_noticed(unlisted):
    with pytest.raises(AssertionError, match="a worker lists a folder"):
        unlisted.manifests("videos")


def test_units_of_extract(store, unlisted):
    videos = {path.stem: path for path in sorted(Path("data/videos").iterdir()) if path.stem == "train01"}
    (index,) = index_videos.plan_index_videos(videos)
    for key in (index.key, *index.companions):
        shutil.rmtree(store.locate(key.folder))
    index_videos.write_product(
        store, index.key, index_videos.compute(store, index), fingerprint=index.fingerprint, started=0.0
    )
    known = index_videos.indexed_videos(store)
    params = crop_faces.crop_params(min_face_px=40, exact=False)
    segments = crop_faces.plan_crop_faces({"train01": known["train01"]}, params=params)
    assert [rows(crop_faces.compute(unlisted, unit)) for unit in segments] == [12]
    source = crop_faces.source_of(params)
    cropped = crop_faces.cropped_videos(store, segments)
    (tracking,) = assign_subjects.plan_assign_subjects(cropped, source=source, subjects={}, params=TrackingParams())
    assert rows(assign_subjects.compute(unlisted, tracking)) == 3
    faces = [one for one in embed_faces.subjects_of_source(store, source) if one.subject == "train01"]
    backbone = BackboneChoice.find("emotion_lite0", None)
    (embedding,) = embed_faces.plan_embed_faces(faces, source=source, backbone=backbone)
    assert rows(embed_faces.compute(unlisted, embedding)) == 12


def test_units_of_fit_and_submit(store, unlisted):
    variant = find_features(store)
    head = require_bundle(store, "heads", "expr")
    (unit, *_) = predict_outputs.plan_predict_outputs(store, variant, head=head)
    assert rows(predict_outputs.compute(unlisted, unit)) == 12
    annotations = location("data/Third ABAW Annotations/EXPR_Classification_Challenge")
    labels, _ = import_labels.plan_import_labels(annotations, task="expr", sets=("train", "validation"))
    assert rows(import_labels.compute(unlisted, labels)) > 0
    choice = fit_head.HeadChoice("expr", features="scores", hidden_units=16, seeds=1)
    assert "head.json" in fit_head.make(unlisted, fit_head.plan_fit_head(store, variant, choice)).files
    tuning = tune_postprocessing.plan_tune_postprocessing(store, head=head, source=variant.source, tuning="default")
    assert "postprocessing.json" in tune_postprocessing.make(unlisted, tuning).files
    rule = next(one for one in list_bundles(store, "postprocessing") if one.name.startswith("expr"))
    test_list = location(f"data/names_of_videos_in_each_test_set/{ABAW3_TEST_LISTS['expr']}")
    job = write_submission.plan_write_submission(
        store, head=head, postprocessing=rule, source=variant.source, test_list=test_list
    )
    assert "abaw3_expr.zip" in write_submission.make(unlisted, job).files
