import pytest

from models.heads.recipes import BRANCHES, get_recipe


def test_paper_is_as_published():
    (expr,) = get_recipe("paper", task="expr").parts
    assert (expr.features, expr.hidden_units, expr.batch_size, expr.epochs) == ("embeddings", 128, 256, 10)
    assert (expr.checkpoint, expr.l2, expr.patience, expr.seeds) == ("accuracy", 0, 0, 1)
    (va,) = get_recipe("paper", task="va").parts
    assert (va.features, va.hidden_units, va.l2, va.checkpoint) == ("scores", 0, 1 / 512, "loss")
    (mtl,) = get_recipe("paper", task="mtl").parts
    assert mtl.branches == ("va", "expr", "au") and mtl.features == "both" and mtl.published_masking


def test_default_fits_branches_apart_on_their_own_figures():
    parts = get_recipe("default", task="mtl").parts
    assert [part.branches for part in parts] == [("va",), ("expr",), ("au",)]
    assert [part.checkpoint for part in parts] == ["mean_ccc", "macro_f1", "mean_f1"]
    assert not any(part.published_masking for part in parts)


@pytest.mark.parametrize("task", list(BRANCHES))
@pytest.mark.parametrize("name", ["paper", "default"])
def test_changes_reach_every_part(name, task):
    changed = get_recipe(name, task=task).replace(seeds=5, hidden_units=7)
    assert {(part.seeds, part.hidden_units) for part in changed.parts} == {(5, 7)} and changed.seeds == 5


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected recipe paper or default"):
        get_recipe("best", task="expr")
    with pytest.raises(ValueError, match="at least 1"):
        get_recipe("default", task="expr").replace(seeds=0)


def test_linear_values_are_fitted_on_all_rows_at_once_in_default_only():
    (va,) = get_recipe("default", task="va").parts
    assert not va.takes_all_rows_at_once and va.replace(hidden_units=0).takes_all_rows_at_once
    assert [
        part.replace(hidden_units=0).takes_all_rows_at_once for part in get_recipe("default", task="mtl").parts
    ] == [
        True,
        False,
        False,
    ]
    assert not any(part.takes_all_rows_at_once for task in BRANCHES for part in get_recipe("paper", task=task).parts)
