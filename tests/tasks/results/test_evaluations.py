import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_contracts.details.heads import PostprocessingDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import find_bundle, list_bundles
from data_contracts.store.store import Store
from models.decisions.evaluation import Interval
from tasks.results.evaluations import evaluate_head

OLD_STORE = Path(__file__).parents[2] / "data" / "store_34a2ed4" / "store"


@pytest.fixture
def old_store(tmp_path):
    """A store that an earlier version wrote, with one validation video."""
    return Store(shutil.copytree(OLD_STORE, tmp_path / "store"))


def heads_and_rules(store):
    for rule in list_bundles(store, "postprocessing"):
        yield find_bundle(store, f"heads/{PostprocessingDetails.of(rule).head}"), rule


def test_scores_of_an_earlier_version_are_found_again(old_store):
    """Of the held-out score, only the interval is missing: the rules of its folds are not stored."""
    tasks = set()
    for head, rule in heads_and_rules(old_store):
        details = PostprocessingDetails.of(rule)
        found = evaluate_head(old_store, head, rule)
        for kind, expected in (("untuned", details.figures.untuned), ("in-sample", details.figures.tuned)):
            assert {name: one.value for name, one in found.intervals(kind).items()} == pytest.approx(expected)
        assert set(found.rules) == {"untuned", "in-sample"} and found.best_kind == "in-sample"
        assert set(found.intervals("untuned").values()) == {
            Interval(one.value) for one in found.intervals("untuned").values()
        }
        assert len(found.notes) == bool(details.figures.held_out)
        tasks.add(found.task)
    assert tasks == {"expr", "mtl"}


def test_changed_outputs_are_noted_and_missing_ones_refused(old_store):
    head, rule = next(pair for pair in heads_and_rules(old_store) if pair[0].name.startswith("expr"))
    before = PostprocessingDetails.of(rule)
    figures = replace(before.figures, tuned=before.figures.tuned | {"macro_f1": 0.9})
    other = replace(rule, details=replace(before, figures=figures).to_json())
    (note,) = evaluate_head(old_store, head, other).notes
    assert note.startswith("Outputs or labels have changed since this head was tuned: macro_f1 was 0.900 (in-sample)")
    (subject,) = before.subjects
    shutil.rmtree(next((Path(old_store.root) / "outputs" / f"head={head.name}").glob(f"*/subject={subject}")))
    with pytest.raises(
        InputError, match=f"expected outputs and labels of 1 validation subject, found none of {subject}"
    ):
        evaluate_head(old_store, head, rule)
