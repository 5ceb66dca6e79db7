import shutil
import tempfile
from pathlib import Path

import pytest

from data_contracts.details.heads import CellDetails
from data_contracts.store.bundles import find_bundle
from data_contracts.store.store import Store
from models.tuning.published import UNSMOOTHED
from tasks.fit import training_rows
from tasks.fit.import_labels import labels_key
from tasks.fit.subject_features import find_features
from tasks.reproduce import fit_cell
from tasks.reproduce.fit_cell import plan_fit_cell, plan_fit_cell_on_all
from tasks.reproduce.grid import methods_of
from tasks.reproduce.published import BEST_EXPR, Method
from tasks.units import run_unit

SMALL = Path(__file__).parents[2] / "data" / "store_34a2ed4" / "store"
SCORES = Method("expr", "scores", False)


@pytest.fixture
def store(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(fit_cell, "_kept_rows", fit_cell._KeptRows())
    return Store(shutil.copytree(SMALL, tmp_path / "store"))


@pytest.fixture
def gathered(monkeypatch):
    """Sets and presence of embeddings of every call of ``gather_rows``."""
    calls, gather = [], training_rows.gather_rows

    def counted(store, variant, tables, **options):
        calls.append(("+".join(tables), options["with_embeddings"]))
        return gather(store, variant, tables, **options)

    monkeypatch.setattr(training_rows, "gather_rows", counted)
    return calls


def plan(store, method, seeds=1):
    known = store.manifests("labels")
    labels = {name: known[labels_key("expr", name)] for name in ("train", "validation")}
    return plan_fit_cell(store, find_features(store), method, labels=labels, seeds=seeds)


def make(store, job):
    assert run_unit(store.url, fit_cell.make, job).cause is None
    return find_bundle(store, job.folder)


def test_cells_on_the_same_rows_gather_them_once(store, gathered, tmp_path):
    first, second = plan(store, BEST_EXPR, seeds=2)
    (other,) = plan(store, SCORES)
    fitted = [make(store, job) for job in (first, second, other)]
    assert gathered == [("train", True), ("validation", True)]
    # The files are deleted while they are in use: a killed worker leaves none.
    assert list((tmp_path / "scratch").iterdir()) == []
    make(store, plan_fit_cell_on_all(first, fitted[0]))
    assert gathered[2:] == [("train+validation", True)]


def test_heads_on_scores_alone_gather_no_embeddings_and_score_the_same(store, gathered):
    (hidden,), (linear,) = plan(store, BEST_EXPR), plan(store, SCORES)
    alone = make(store, linear)
    assert gathered == [("train", False), ("validation", False)]
    make(store, hidden)
    assert gathered[2:] == [("train", True), ("validation", True)]
    store.remove_folder(linear.folder)
    assert make(store, linear).files["head.safetensors"] == alone.files["head.safetensors"]
    assert len(gathered) == 4


def test_seeds_are_different_cells_and_a_seed_is_always_the_same(store):
    first, second = plan(store, BEST_EXPR, seeds=2)
    assert first.fingerprint != second.fingerprint and first.fingerprint == plan(store, BEST_EXPR)[0].fingerprint
    digests = [make(store, job).files["head.safetensors"] for job in (first, second, first)]
    assert digests[0] == digests[2] != digests[1]


def test_a_head_on_both_sets_is_fitted_for_the_best_epochs_and_not_scored(store):
    (first,) = plan(store, BEST_EXPR)
    fitted = make(store, first)
    again = CellDetails.of(make(store, plan_fit_cell_on_all(first, fitted)))
    alone = CellDetails.of(fitted)
    assert alone.trained_on == ("train",) and alone.scores[UNSMOOTHED]["macro_f1"] >= 0
    assert again.trained_on == ("train", "validation") and again.scores == {}
    assert again.best_epochs == alone.best_epochs
    assert [one.set_name for one in again.coverage] == [one.set_name for one in alone.coverage]


def test_the_grid_has_every_head_of_the_tables():
    assert {task: len(methods_of(task)) for task in ("expr", "va", "au", "mtl")} == {
        "expr": 4,
        "va": 2,
        "au": 4,
        "mtl": 2,
    }
    assert [method.is_hidden for method in methods_of("expr")] == [True, True, False, False]
