"""Which head and post-processing serve a request: one rule for score, rescore and submit."""

import re

import pytest

from data_contracts.details.heads import ZERO_SHOT, PostprocessingDetails, TuningFigures
from data_contracts.errors import InputError
from data_contracts.store.bundles import write_bundle
from data_contracts.store.store import Store
from tasks.fit.head_selection import select_head_of_submission, select_heads, select_postprocessings
from tests.details_factory import head_details

BACKBONE, SOURCE = "emotion_lite0-a65c9139", "mtcnn-b3f6ef21"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def add_head(store, name, *, recipe="default", hidden_units=128, fitted_labels=(), **facts):
    task = name.split("-")[0]
    details = head_details(
        task,
        recipe=recipe,
        settings={"parts": [{"features": "embeddings", "hidden_units": hidden_units, "seeds": 3}]},
        backbone=BACKBONE,
        source=SOURCE,
        backbone_name="emotion_lite0",
        fitted_labels=fitted_labels,
        **facts,
    )
    return write_bundle(store, f"heads/{name}", {"head.json": b"{}"}, fingerprint=name, details=details)


def add_rule(store, head, name):
    details = PostprocessingDetails(
        head=head, task=head.split("-")[0], tuning="default", figures=TuningFigures(), subjects=("one", "two")
    )
    return write_bundle(store, f"postprocessing/{name}", {"p.json": b"{}"}, fingerprint=name, details=details)


ALL = ["expr-1", "va-1", "au-1", "mtl-1"]


# Heads in the store, names given with --head, head -> branches that it serves.
@pytest.mark.parametrize(
    ("heads", "names", "served"),
    [
        ([], None, {}),
        (["expr-1"], None, {"expr-1": "expr"}),
        (["mtl-1"], None, {"mtl-1": "expr va au"}),
        (["mtl-1", "va-1"], None, {"mtl-1": "expr au", "va-1": "va"}),
        (ALL, None, {"expr-1": "expr", "va-1": "va", "au-1": "au"}),
        ([*ALL, "mtl-2"], None, {"expr-1": "expr", "va-1": "va", "au-1": "au"}),
        (ALL, ["mtl"], {"mtl-1": "expr va au"}),
        (ALL, ["va-1"], {"va-1": "va"}),
        (ALL, ["va-1", "va", "va-1"], {"va-1": "va"}),
        (ALL, ["mtl-1", "au-1"], {"mtl-1": "expr va", "au-1": "au"}),
        ([*ALL, "expr-2", "mtl-2"], ["expr-2", "mtl-2"], {"expr-2": "expr", "mtl-2": "va au"}),
        (["expr-zero-shot-1"], None, {}),
        (["expr-zero-shot-1", "expr-1"], None, {"expr-1": "expr"}),
        (["expr-zero-shot-1", "mtl-1"], None, {"mtl-1": "expr va au"}),
    ],
)
def test_single_task_heads_win_over_multi_task_heads(store, heads, names, served):
    for name in heads:
        add_head(store, name, recipe=ZERO_SHOT if ZERO_SHOT in name else "default")
    assert {one.head.name: " ".join(one.branches) for one in select_heads(store, names)} == served


SETTINGS = (
    rf"on {BACKBONE} {SOURCE}, recipe default, features embeddings, hidden units \d+, seeds 3, kind mlp, \d{{4}}-"
)


@pytest.mark.parametrize(
    ("heads", "names", "message"),
    [
        (
            ["expr-1", "expr-2"],
            None,
            rf"several serve expr: expr-1 \({SETTINGS}.*; expr-2 \(.*; the newest is expr-2; .*with --head$",
        ),
        (["expr-1", "expr-2", "va-1", "va-2"], None, r"several serve expr: .*; several serve va: .*with --head$"),
        (["expr-1", "expr-2", "mtl-1"], None, r"several serve expr: expr-1"),
        (["mtl-1", "mtl-2"], None, r"several serve expr: mtl-1 .* mtl-2"),
        (["mtl-1", "mtl-2", "va-1"], None, r"several serve expr: mtl-1 .* mtl-2"),
        (["expr-1", "expr-2"], ["expr-1", "expr-2"], r"several serve expr: .*name one head for each task with --head"),
        (["mtl-1", "mtl-2"], ["mtl-1", "mtl-2"], r"several serve expr"),
        (["expr-1", "expr-2"], ["expr"], rf"--head expr: expected the name of one .*several match.*{SETTINGS}"),
        (["expr-1"], ["va"], r"--head va: .*none matches; found: expr-1"),
        (["expr-1"], [""], r"none matches"),
        (ALL, ALL, r"--head mtl-1: serves no task, because expr-1, va-1, au-1 serve all; leave it out"),
    ],
)
def test_several_candidates_are_refused_with_their_settings(store, heads, names, message):
    for name in heads:
        add_head(store, name)
    with pytest.raises(InputError, match=message):
        select_heads(store, names)


@pytest.mark.parametrize(
    ("heads", "task", "name", "selected"),
    [
        (ALL, "expr", None, "expr-1"),
        (ALL, "mtl", None, "mtl-1"),
        ([*ALL, "expr-2"], "expr", "expr-2", "expr-2"),
        ([*ALL, "expr-2"], "au", None, "au-1"),
        (["expr-zero-shot-1", "expr-1"], "expr", None, "expr-1"),
        (["mtl-1", "va-1"], "expr", None, "expected one for expr, found: mtl-1 .* allow only labels of that task"),
        (["mtl-1"], "expr", "mtl-1", "expected one for expr, found: mtl-1 .* allow only labels of that task"),
        (["expr-1", "va-1", "au-1"], "mtl", None, "expected one for mtl, found: au-1 .*run fit mtl"),
        (["expr-1"], "va", "expr", r"expected one for va, found: expr-1 \(expr\); run fit va"),
        ([*ALL, "expr-2"], "expr", None, rf"several serve expr: expr-1 \({SETTINGS}.*with --head"),
        ([*ALL, "expr-2"], "expr", "expr", "--head expr: .*several match"),
        ([], "expr", None, "found: none; run fit expr"),
    ],
)
def test_submissions_take_the_head_of_their_own_task(store, heads, task, name, selected):
    for head in heads:
        add_head(store, head, recipe=ZERO_SHOT if ZERO_SHOT in head else "default")
    if selected in heads:
        assert select_head_of_submission(store, task, name).name == selected
        return
    with pytest.raises(InputError, match=selected):
        select_head_of_submission(store, task, name)


def test_a_later_version_of_a_recipe_supersedes_an_earlier_one(store):
    add_head(store, "expr-1")
    add_head(store, "expr-2", recipe_version=2, trained_on=("train",))
    (served,) = select_heads(store)
    assert served.head.name == "expr-2" == select_head_of_submission(store, "expr").name
    assert served.why == "version 2 of recipe default supersedes expr-1 (choose with --head)"
    assert [one.head.name for one in select_heads(store, ["expr-1"])] == ["expr-1"]
    add_head(store, "expr-3", recipe="paper", recipe_version=3)
    with pytest.raises(InputError, match=r"several serve expr: expr-2 .*; expr-3 .*; the newest is expr-3; choose"):
        select_heads(store)
    with pytest.raises(InputError, match=r"several serve expr: expr-2 .*; expr-3 .*; the newest is expr-3; choose"):
        select_head_of_submission(store, "expr")


def test_a_head_that_used_labels_of_other_tasks_is_refused_unless_allowed(store):
    add_head(store, "expr-blend", fitted_labels=("expr", "va"))
    with pytest.raises(InputError, match=r"expr-blend: expected labels of expr alone, got also those of va; .*--allow"):
        select_head_of_submission(store, "expr")
    assert select_head_of_submission(store, "expr", allow_other_labels=True).name == "expr-blend"


@pytest.mark.parametrize(
    ("names", "selected"),
    [
        (None, "head expr-1: expected one post-processing, found several: e-1 .*; e-2 .*with --postprocessing"),
        (["e-2"], {"expr-1": "e-2", "va-1": "v-1", "au-1": None}),
        (["v-1", "e-1"], {"expr-1": "e-1", "va-1": "v-1", "au-1": None}),
        (["e-1", "e-2"], "head expr-1: expected one post-processing, found several"),
        (["e-1", "e-1"], {"expr-1": "e-1", "va-1": "v-1", "au-1": None}),
        (["e"], "--postprocessing e: expected the name of one, several match; found: e-1 .*; e-2"),
        (["other"], "--postprocessing other: expected .*none of expr-1, va-1, au-1 matches; found: e-1 .*v-1"),
        ([""], "none of expr-1"),
    ],
)
def test_each_head_has_one_postprocessing(store, names, selected):
    heads = [add_head(store, name) for name in ("expr-1", "va-1", "au-1", "expr-2")]
    for head, rule in (("expr-1", "e-1"), ("expr-1", "e-2"), ("va-1", "v-1"), ("expr-2", "other-1")):
        add_rule(store, head, rule)
    if isinstance(selected, str):
        with pytest.raises(InputError, match=selected) as error:
            select_postprocessings(store, heads[:3], names)
        assert re.search(r"recipe default, tuned on 2 subjects, \d{4}-\d\d-\d\d \d\d:\d\d UTC", str(error.value))
        return
    found = select_postprocessings(store, heads[:3], names)
    assert {head: rule and rule.name for head, rule in found.items()} == selected


def test_a_postprocessing_without_a_fitted_head_is_refused(store):
    with pytest.raises(InputError, match=r"--postprocessing e: .*, no head was fitted; found: none"):
        select_postprocessings(store, [], ["e"])
