import dataclasses

import pytest

from data_contracts.store.fingerprint import fingerprint
from data_contracts.vocabulary import BRANCHES_OF_TASK
from models.heads.recipes import HEAD_KINDS, hidden_sizes
from models.recipes.registry import find_recipe


def test_paper_recipes_have_the_published_settings():
    (expr,) = find_recipe("paper").variant("expr").parts
    assert (expr.features, expr.hidden_units, expr.batch_size, expr.epochs) == ("embeddings", 128, 256, 10)
    assert (expr.checkpoint, expr.l2, expr.patience, expr.seeds) == ("accuracy", 0, 0, 1)
    (va,) = find_recipe("paper").variant("va").parts
    assert (va.features, va.hidden_units, va.l2, va.checkpoint) == ("scores", 0, 1 / 512, "loss")
    (mtl,) = find_recipe("paper").variant("mtl").parts
    assert mtl.branches == ("va", "expr", "au") and mtl.features == "both" and mtl.published_masking
    assert mtl.published_weighting


@pytest.mark.parametrize(
    ("task", "linear", "hidden"),
    [("expr", 1 / 256, 0), ("va", 1 / 512, 0), ("au", 1 / 512, 0), ("mtl", 1 / 256, 1 / 256)],
)
def test_linear_and_hidden_variants_of_the_paper_have_the_published_penalties(task, linear, hidden):
    for units, l2 in ((0, linear), (128, hidden)):
        (part,) = find_recipe("paper").variant(task, hidden_units=units).parts
        assert (part.hidden_units, part.l2) == (units, l2)
    (part,) = find_recipe("paper").variant(task).parts
    assert part.l2 == (linear if part.hidden_units == 0 else hidden)
    assert part.shared_hidden == (task == "mtl")


def test_default_fits_each_branch_on_its_own_metric():
    parts = find_recipe("default").variant("mtl").parts
    assert [part.branches for part in parts] == [("va",), ("expr",), ("au",)]
    assert [part.checkpoint for part in parts] == ["mean_ccc", "macro_f1", "mean_f1"]
    assert not any(part.published_masking or part.published_weighting or part.shared_hidden for part in parts)


@pytest.mark.parametrize("task", list(BRANCHES_OF_TASK))
@pytest.mark.parametrize("name", ["paper", "default"])
def test_changes_reach_every_part(name, task):
    changed = find_recipe(name).variant(task).replace(seeds=5, hidden_units=7)
    assert {(part.seeds, part.hidden_units) for part in changed.parts} == {(5, 7)} and changed.seeds == 5


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected recipe paper, default"):
        find_recipe("defaults")
    with pytest.raises(ValueError, match="at least 1"):
        find_recipe("default").variant("expr").replace(seeds=0)


def test_best_differs_from_default_in_valence_and_arousal_alone():
    best, default = find_recipe("best"), find_recipe("default")
    changed = best.postprocessing_of("va").replace(spaces=("probability",), name="default")
    assert best.version == 2 and best.heads["va"] == default.heads["va"].replace(features="both")
    assert changed == default.postprocessing_of("va") != best.postprocessing_of("va").replace(name="default")
    for task in ("expr", "au"):
        assert best.heads[task] == default.heads[task]
        assert best.postprocessing[task] == default.postprocessing[task]


# Computed by commit 34a2ed4 with fingerprint(recipe=get_recipe(name, task=task)).
NAMES_IN_EXISTING_STORES = {
    ("paper", "expr"): "e2fb19d8c60e6d3e",
    ("paper", "va"): "c3513c3ee6a389b1",
    ("paper", "au"): "66ca9c3577b8ab09",
    ("paper", "mtl"): "962524752576ac04",
    ("default", "expr"): "4291e68cbc95cbdc",
    ("default", "va"): "ea736d7a3e940a07",
    ("default", "au"): "35c1b557f4b7b051",
    ("default", "mtl"): "f5e29965157feedd",
}


@pytest.mark.parametrize(("name", "task"), list(NAMES_IN_EXISTING_STORES))
def test_fingerprints_are_those_of_existing_stores(name, task):
    found = fingerprint(recipe=find_recipe(name).variant(task))
    assert found.startswith(NAMES_IN_EXISTING_STORES[name, task])


def test_scores_change_fingerprints_only_where_they_are_used():
    for task in BRANCHES_OF_TASK:
        plain, softmax = (find_recipe("paper").variant(task, published_scores=f) for f in ("logits", "probabilities"))
        uses_scores = plain.parts[0].features != "embeddings"
        assert (fingerprint(recipe=plain) != fingerprint(recipe=softmax)) == uses_scores
        default = find_recipe("default").variant(task, published_scores="probabilities").replace(features="both")
        assert {part.scores for part in default.parts} == {"logits"}


def test_other_settings_have_other_fingerprints(monkeypatch):
    monkeypatch.setitem(HEAD_KINDS, "other", "models.heads.mlp:MlpHead")
    (va,) = find_recipe("default").variant("va").parts
    changes = [{}, {"hidden_units": 0}, {"hidden_units": (128,)}, {"hidden_units": (128, 64)}, {"kind": "other"}]
    assert len({fingerprint(recipe=va.replace(**change)) for change in changes}) == 5
    # A linear head of this recipe was fitted by L-BFGS under this fingerprint.
    linear = fingerprint(recipe=va.replace(hidden_units=0))
    assert linear != fingerprint(recipe=dataclasses.asdict(va) | {"hidden_units": 0, "optimizer": "lbfgs"})


@pytest.mark.parametrize(("hidden_units", "sizes"), [(0, ()), (7, (7,)), ((7, 5), (7, 5)), ((), ())])
def test_hidden_sizes(hidden_units, sizes):
    assert hidden_sizes(hidden_units) == sizes


def test_wrong_hidden_units_and_kinds_are_refused():
    (va,) = find_recipe("default").variant("va").parts
    for wrong in (-1, (3, 0), (1.5,)):
        with pytest.raises(ValueError, match="hidden_units: expected"):
            va.replace(hidden_units=wrong)
    with pytest.raises(ValueError, match="expected one of mlp"):
        va.replace(kind="forest")
