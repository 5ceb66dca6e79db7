import pytest

from data_contracts.details.heads import PostprocessingDetails, TuningFigures
from data_contracts.store.bundles import Bundle
from models.heads.metrics import MAIN_METRIC
from tasks.results.head_scores import score_columns, scores_of
from tests.details_factory import head_details


def head_of(task, name="head-1"):
    return Bundle(f"heads/{name}", "f", {}, head_details(task).to_json())


def scores(task, tuning, untuned, chosen, held_out, **more):
    name = MAIN_METRIC[task]
    figures = TuningFigures(
        untuned={name: untuned}, tuned={name: chosen}, held_out=None if held_out is None else {name: held_out}
    )
    details = PostprocessingDetails(head="head-1", task=task, tuning=tuning, figures=figures, **more)
    return scores_of(head_of(task), Bundle("postprocessing/p", "f", {}, details.to_json()))


@pytest.mark.parametrize(
    ("task", "tuning", "columns"),
    [
        ("expr", "paper", ["untuned", "post-processed"]),
        ("va", "paper", ["untuned", "post-processed"]),
        ("au", "paper", ["untuned", "in-sample", "held-out"]),
        ("mtl", "paper", ["untuned", "in-sample", "held-out"]),
        ("expr", "default", ["untuned", "in-sample", "held-out"]),
        ("va", "default", ["untuned", "in-sample", "held-out"]),
    ],
)
def test_headings_name_what_was_done(task, tuning, columns):
    assert list(score_columns([scores(task, tuning, 0.4, 0.5, 0.45)])) == columns


def test_rows_of_fixed_and_tuned_settings_share_a_table():
    columns = score_columns([scores("va", "paper", 0.4, 0.5, 0.5), scores("va", "default", 0.4, 0.6, 0.45)])
    assert columns == {
        "untuned": [0.4, 0.4],
        "post-processed": [0.5, None],
        "in-sample": [None, 0.6],
        "held-out": [None, 0.45],
    }
    assert list(score_columns([])) == list(score_columns([scores_of(head_of("va"), None)]))


@pytest.mark.parametrize(
    ("tuning", "chosen", "held_out", "line"),
    [
        ("paper", 0.326, 0.326, "from 0.790 (untuned) to 0.326 (post-processed)"),
        ("default", 0.8, 0.7, "from 0.790 (untuned) to 0.700 (held-out)"),
        ("default", 0.8, 0.79, None),
        ("default", 0.8, 0.7896, None),
        ("default", 0.7, None, "from 0.790 (untuned) to 0.700 (in-sample)"),
    ],
)
def test_a_line_says_that_post_processing_lowers_the_score(tuning, chosen, held_out, line):
    notes = scores("expr", tuning, 0.79, chosen, held_out).notes()
    assert notes == ([f"head-1: post-processing lowers macro_f1 {line}"] if line else [])


def test_scores_of_another_head_are_marked():
    marked = scores("au", "default", 0.4, 0.5, 0.45, tuned_with="alone-1")
    assert score_columns([marked, scores("au", "default", 0.4, 0.5, 0.45)])["scores of"] == [
        "the head fitted on train alone",
        "this head",
    ]
    assert marked.notes() == [
        "head-1: fitted on train and validation; the scores are those of alone-1, fitted on train alone"
    ]
