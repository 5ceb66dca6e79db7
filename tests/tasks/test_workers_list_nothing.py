"""Workers list no folder, because listing a large store is slow. A unit carries the manifests of its inputs."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.challenge.test_lists import read_test_list
from data_contracts.files.local import LocalFiles
from data_contracts.files.locations import location
from data_contracts.store.bundles import list_bundles
from data_contracts.store.store import Store
from models.decisions.recipes import DEFAULT
from models.faces.tracking import TrackingParams
from tasks.backbones import BackboneChoice
from tasks.extract import assign_subjects, crop_faces, embed_faces, embed_segments, index_videos
from tasks.fit import fit_head, import_labels, predict_outputs, tune_postprocessing
from tasks.fit.head_selection import find_head
from tasks.fit.subject_features import find_features
from tasks.reproduce import fit_cell
from tasks.reproduce.published import BEST_EXPR
from tasks.results import write_submission
from tasks.units import run_unit, split_pending

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
def work(monkeypatch):
    """A function that computes and writes a unit or a job as a worker does. Listing any folder is an error."""

    def run(compute, unit):
        with monkeypatch.context() as context:
            for name in ("iter_states", "list_folder"):
                assert hasattr(LocalFiles, name)
                context.setattr(LocalFiles, name, refuse_to_list)
            report = run_unit("store", compute, unit)
        assert report.cause is None
        return report.counts

    return run


def planned(store, units):
    """The units as a run sends them to workers: not done, and each with the data file of an earlier version."""
    for unit in units:
        store.remove(unit.key.manifest_path)
        store.write_bytes(unit.key.part_path("0" * 64), b"")
    todo = split_pending(store, units).todo
    assert len(todo) == len(units) > 0 and all(unit.stale_parts for unit in todo)
    return todo


def test_listing_is_noticed(store, work):
    def compute(store, unit):
        store.manifests("videos")

    with pytest.raises(AssertionError, match="a worker lists a folder"):
        work(compute, None)


def test_units_of_extract(store, work):
    videos = {path.stem: path for path in sorted(Path("data/videos").iterdir()) if path.stem == "train01"}
    (index,) = planned(store, index_videos.plan_index_videos(videos))
    assert work(index_videos.compute, index) == {"frames": 12}
    known = index_videos.indexed_videos(store)
    params = crop_faces.crop_params(min_face_px=40, exact=False)
    segments = planned(store, crop_faces.plan_crop_faces({"train01": known["train01"]}, params=params))
    assert [sum(work(crop_faces.compute, unit).values()) for unit in segments] == [12]
    source = crop_faces.source_of(params)
    cropped = crop_faces.cropped_videos(store, segments)
    tracking = assign_subjects.plan_assign_subjects(cropped, source=source, subjects={}, params=TrackingParams())
    assert work(assign_subjects.compute, *planned(store, tracking))
    faces = [one for one in embed_faces.subjects_of_source(store, source) if one.subject == "train01"]
    backbone = BackboneChoice.find("emotion_lite0", None)
    embedding = embed_faces.plan_embed_faces(faces, source=source, backbone=backbone)
    assert sum(work(embed_faces.compute, *planned(store, embedding)).values()) == 12
    assert not list(Path("store").rglob("*-00000000.parquet"))
    params = replace(params, keep_crops=False)
    segments = crop_faces.plan_crop_faces({"train01": known["train01"]}, params=params)
    (unit,) = embed_segments.plan_embed_segments(store, segments, backbone=backbone)
    assert sum(work(embed_segments.compute, unit).values()) == 12


def test_units_of_fit_and_submit(store, work):
    variant = find_features(store)
    head = find_head(store, "expr")
    predicting = predict_outputs.plan_predict_outputs(store, variant, head=head)
    for unit in planned(store, predicting):
        work(predict_outputs.compute, unit)
    annotations = location("data/Third ABAW Annotations/EXPR_Classification_Challenge")
    labels = import_labels.plan_import_labels(annotations, task="expr", sets=("train", "validation"))
    for unit in planned(store, labels):
        work(import_labels.compute, unit)
    choice = fit_head.HeadChoice("expr", features="scores", hidden_units=16, seeds=1)
    manifests = import_labels.imported_labels(store, labels)
    fitting = fit_head.plan_fit_head(store, variant, choice, labels=manifests)
    work(fit_head.make, fitting)
    tuning = tune_postprocessing.plan_tune_postprocessing(
        head=head,
        outputs=predict_outputs.predicted_outputs(store, predicting),
        labels=manifests["validation"],
        split=fitting.arguments.split,
        recipe=DEFAULT,
        frames_per_second={},
    )
    work(tune_postprocessing.make, tuning)
    rule = next(one for one in list_bundles(store, "postprocessing") if one.name.startswith("expr"))
    test_list = location(f"data/names_of_videos_in_each_test_set/{ABAW3_TEST_LISTS['expr']}")
    submission = write_submission.plan_write_submission(
        store,
        head=head,
        postprocessing=rule,
        outputs=predict_outputs.predicted_outputs(store, predicting),
        wanted=read_test_list(test_list),
        edition="abaw3",
    )
    work(write_submission.make, submission)
    (cell,) = fit_cell.plan_fit_cell(store, variant, BEST_EXPR, labels=manifests, seeds=1)
    work(fit_cell.make, cell)
    assert split_pending(store, [fitting, tuning, submission, cell]).todo == []
