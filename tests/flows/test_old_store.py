"""A store that commit 34a2ed4 wrote (``tests/data/store_34a2ed4``): this version reads it and refits only its heads."""

import io
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_contracts.challenge.editions import ABAW3_TEST_LISTS
from data_contracts.challenge.submissions import verify_submission
from data_contracts.schemas.faces import FACES, FRAMES, SUBJECTS, VIDEOS
from data_contracts.schemas.features import features_dataset
from data_contracts.schemas.labels import LABELS, PICTURES
from data_contracts.store.arrivals import names_seen
from data_contracts.store.bundles import list_bundles
from data_contracts.store.contents import read_contents
from data_contracts.store.input_accounts import INPUTS
from data_contracts.store.store import Store
from data_contracts.vocabulary import BRANCHES_OF_TASK
from flows.commands.parameters import StatusParameters
from flows.commands.status import print_status
from flows.extract import extract
from flows.fit import fit
from flows.submit import submit
from models.heads.sequences import SubjectSequence
from models.recipes.registry import find_recipe
from tasks.fit import fit_head
from tasks.fit.head_selection import find_head
from tasks.fit.predict_outputs import read_outputs
from tasks.fit.stored_heads import load_head
from tasks.fit.subject_features import find_features, nominal_seconds, read_features

OLD = Path(__file__).parents[1] / "data" / "store_34a2ed4"
BACKBONE, SOURCE = "emotion_lite0-a65c9139", "mtcnn-b3f6ef21"
HEADS = {"expr": "expr-default-2f76ae44", "mtl": "mtl-default-a1669c4a"}
SUBJECT_NAMES = ["test01_left", "test01_right", "train01", "train02_left", "train02_right", "validation01"]
# Dataset and variant -> units, rows and failed units, as `affwild2 status` of commit 34a2ed4 printed them.
STATUS = {
    ("videos", ""): (4, 4, 1),
    ("frames", ""): (4, 48, 0),
    ("faces", SOURCE): (4, 72, 0),
    ("subjects", SOURCE): (4, 54, 0),
    ("features", f"{BACKBONE} {SOURCE}"): (6, 72, 0),
    ("labels", "expr"): (2, 48, 0),
    ("labels", "mtl"): (2, 24, 0),
    ("outputs", f"{HEADS['expr']} {SOURCE}"): (6, 72, 0),
    ("outputs", f"{HEADS['mtl']} {SOURCE}"): (6, 72, 0),
    ("pictures", "pictures-20fbf31b"): (1, 12, 0),
}
# Columns that the store does not have.
ADDED_LATER = ("index_method",)


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The current folder, with a copy of ``data`` and ``store``: the store names its videos relative to it."""
    shutil.copytree(OLD / "data", tmp_path / "data")
    shutil.copytree(OLD / "store", tmp_path / "store")
    # A file that cannot be read is tried in every run.
    (tmp_path / "data" / "videos" / "corrupt.mp4").unlink()
    for key, manifest in Store(tmp_path / "store").manifests("videos").items():
        _, mtime_ns = manifest.details["file_state"]
        (video,) = (tmp_path / "data" / "videos").glob(f"{key.value('video')}.*")
        os.utime(video, ns=(mtime_ns, mtime_ns))
    monkeypatch.chdir(tmp_path)
    return Store("store")


def files_written():
    """Path -> time of the last change of all results, which no run may replace. Videos are indexed again."""
    paths = (path for path in Path("store").rglob("*") if path.is_file() and path.name[0] not in "._")
    kept = (path for path in paths if path.parts[1] not in ("videos", "frames", INPUTS))
    return {str(path): path.stat().st_mtime_ns for path in kept}


def indexes(store):
    """Unit -> identity and rows of its video or its frames."""
    units = {key: manifest for name in ("videos", "frames") for key, manifest in store.manifests(name).items()}
    rows = {key: store.read_unit(key, manifest).to_pylist() for key, manifest in units.items()}
    for row in itertools.chain(*rows.values()):
        row.update(dict.fromkeys(ADDED_LATER))
        if "path" in row:
            # Earlier versions kept relative paths.
            row["path"] = os.path.abspath(row["path"])
    return {key: (units[key].identity, rows[key]) for key in units}


def test_status_counts_the_same_units_rows_and_failures(old, capsys):
    assert print_status(StatusParameters("store")) == 1
    printed = capsys.readouterr().out
    assert "failed: videos corrupt: data/videos/corrupt.mp4: expected a readable video file" in printed
    contents = read_contents(old)
    assert {(v.dataset, v.variant): (v.units, v.rows, v.failed) for v in contents.variants} == STATUS
    names = {kind: [bundle.name for bundle in found] for kind, found in contents.bundles.items()}
    assert names == {
        "heads": list(HEADS.values()),
        "postprocessing": ["expr-default-2f76ae44-default-dda5b54a", "mtl-default-a1669c4a-default-b74cb164"],
        "submissions": ["abaw3-expr-c6c37fad", "abaw3-mtl-fcfd013c"],
    }
    assert names_seen(old) == {"corrupt", "test01", "train01", "train02", "validation01"}


def types_of(schema):
    # Parquet files call the numbers of a list "element".
    return [(field.name, str(field.type).replace("element: ", "item: "), field.nullable) for field in schema]


def test_rows_of_every_dataset_have_the_schema_of_today(old):
    datasets = {
        "videos": VIDEOS,
        "frames": FRAMES,
        "faces": FACES,
        "subjects": SUBJECTS,
        "features": features_dataset(1280, ("five", "classes", "of", "the", "backbone")),
        "labels": LABELS,
        "pictures": PICTURES,
    }
    for name, dataset in datasets.items():
        for key, manifest in old.manifests(name).items():
            table = old.read_unit(key, manifest)
            missing = [column for column in types_of(dataset.schema) if column[0] in ADDED_LATER]
            assert [*types_of(table.schema), *missing] == types_of(dataset.schema), key
            assert table.num_rows == manifest.rows, key


def test_features_and_crops_have_values(old):
    variant = find_features(old, backbone=BACKBONE, source=SOURCE)
    assert sorted(variant.subjects) == SUBJECT_NAMES
    frame, has_face, embeddings, logits = map(np.concatenate, zip(*read_features(old, variant, "train01"), strict=True))
    assert frame.tolist() == list(range(1, 13)) and has_face.sum() == 3
    assert embeddings.shape == (12, 1280) and logits.shape == (12, 5)
    assert np.isfinite(embeddings[has_face]).all() and embeddings[has_face].std() > 0.1
    for key, manifest in old.manifests("faces").items():
        for crop in old.read_unit(key, manifest, columns=["crop_jpeg"])["crop_jpeg"].drop_null():
            with Image.open(io.BytesIO(crop.as_py())) as image:
                assert image.convert("RGB").size == image.size


@pytest.mark.parametrize("task", HEADS)
def test_old_head_predicts_the_outputs_that_were_stored(old, task):
    head = load_head(old, find_head(old, task))
    variant = find_features(old, backbone=BACKBONE, source=SOURCE)
    units = old.manifests("outputs", head=HEADS[task])
    assert [key.value("subject") for key in units] == SUBJECT_NAMES
    for key, manifest in units.items():
        present, outputs = read_outputs(old, key, manifest, BRANCHES_OF_TASK[task])
        ((frame, has_face, embeddings, logits),) = read_features(old, variant, key.value("subject"))
        predicted = head.predict_sequence(SubjectSequence(embeddings, logits, has_face, nominal_seconds(frame)))
        assert present.tolist() == has_face.tolist()
        for branch, values in outputs.items():
            np.testing.assert_allclose(predicted[branch][present], values[present], atol=1e-5)


@pytest.mark.parametrize(("recipe", "precision"), [("paper", "float32"), ("default", "bfloat16")])
def test_only_the_recipe_paper_is_always_fitted_in_float32(old, monkeypatch, recipe, precision):
    monkeypatch.setattr(fit_head, "native_precision", lambda device: "bfloat16")
    labels = {key.value("set"): manifest for key, manifest in old.manifests("labels", task="expr").items()}
    variant = find_features(old, backbone=BACKBONE, source=SOURCE)
    job = fit_head.plan_fit_head(old, variant, fit_head.HeadChoice("expr", find_recipe(recipe)), labels=labels)
    assert job.arguments.precision == precision


def test_extract_recomputes_nothing_and_fit_adds_heads_of_todays_recipes(old, dask_address, monkeypatch):
    monkeypatch.setattr(fit_head, "native_precision", lambda device: "bfloat16")
    before, indexes_before = files_written(), indexes(old)
    extract(Path("data"), "store", dask_address=dask_address)
    assert files_written() == before and indexes(old) == indexes_before
    # The recipe default bounds the rows of an epoch since: its heads have other names.
    for task, head in HEADS.items():
        settings = {"features": "scores", "hidden_units": 16, "seeds": 1, "dask_address": dask_address}
        fitted = fit(task, "store", Path("data"), **settings)
        assert fitted != head
        test_list = Path("data", "names_of_videos_in_each_test_set", ABAW3_TEST_LISTS[task])
        submit(task, "store", test_list, head=fitted, dask_address=dask_address)
    after = files_written()
    changed = {path.split("/")[1] for path in {*before, *after} if before.get(path) != after.get(path)}
    assert changed == {"heads", "outputs", "postprocessing", "submissions"}
    kept = [bundle.name for bundle in list_bundles(old, "heads") if bundle.name in HEADS.values()]
    assert kept == list(HEADS.values())


@pytest.mark.parametrize("task", HEADS)
def test_submission_from_old_outputs_is_the_old_submission(old, task, dask_address):
    (bundle,) = (b for b in list_bundles(old, "submissions") if b.details["zip"] == f"abaw3_{task}.zip")
    before = old.read_bytes(f"{bundle.folder}/{bundle.details['zip']}")
    shutil.rmtree("store/submissions")
    test_list = Path("data", "names_of_videos_in_each_test_set", ABAW3_TEST_LISTS[task])
    written = Path(submit(task, "store", test_list, dask_address=dask_address))
    assert verify_submission(written, task=task, test_list=test_list, expected_rows={"test01": 12}) == []
    assert written.read_bytes() == before
