import numpy as np
import pytest

from models.decisions.recipes import get_postprocessing_recipe
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS
from models.decisions.subject_outputs import published_rows
from models.decisions.thresholds import grid_thresholds
from models.heads.metrics import score_branch
from models.tuning.folds import split_by_video
from models.tuning.published import HALF_THRESHOLDS, HELD_OUT, UNSMOOTHED, score_published
from models.tuning.tuning import tune_postprocessing
from tests.models.tuning.test_tuning import subjects


@pytest.mark.parametrize(("task", "smoothing"), [("expr", "mean 15"), ("va", "mean 15"), ("au", "median 15")])
def test_scores_are_those_of_recipe_paper(task, smoothing):
    """``fit --recipe paper`` scores the smoothing that was best in the paper."""
    data = subjects(6)
    expected, scores = (
        tune_postprocessing(data, task=task, recipe=get_postprocessing_recipe("paper", task=task)),
        score_published(data, task=task),
    )
    assert scores[smoothing] == pytest.approx(expected.tuned, abs=1e-12)
    assert scores[HALF_THRESHOLDS if task == "au" else UNSMOOTHED] == pytest.approx(expected.untuned, abs=1e-12)
    assert set(scores) == {*PUBLISHED_SMOOTHINGS, *((HALF_THRESHOLDS, HELD_OUT) if task == "au" else ())}


def test_multi_task_scores_are_not_smoothed():
    data = subjects(6)
    expected, scores = (
        tune_postprocessing(data, task="mtl", recipe=get_postprocessing_recipe("paper", task="mtl")),
        score_published(data, task="mtl"),
    )
    assert set(scores) == {UNSMOOTHED, HALF_THRESHOLDS, HELD_OUT}
    assert scores[UNSMOOTHED] == pytest.approx(expected.tuned) and scores[HELD_OUT] == pytest.approx(expected.held_out)


def test_held_out_thresholds_are_tuned_on_other_videos():
    data = [published_rows(one) for one in subjects(7)]
    labels, decisions = [], []
    for outside, inside in split_by_video([one.name for one in data], 5):
        joined = [np.concatenate([v]) for v in (_rows([data[n] for n in outside]), _rows([data[n] for n in inside]))]
        thresholds = grid_thresholds(joined[0][:, :12].astype(int), joined[0][:, 12:])
        labels.append(joined[1][:, :12].astype(int))
        decisions.append((joined[1][:, 12:] >= thresholds).astype(int))
    expected = score_branch("au", np.concatenate(labels), np.concatenate(decisions))
    scores = score_published(subjects(7), task="au")
    assert scores[HELD_OUT] == pytest.approx(expected)
    assert scores[HELD_OUT]["mean_f1"] < scores[UNSMOOTHED]["mean_f1"]


def _rows(data):
    """Labels and outputs of the labelled rows, side by side."""
    return np.concatenate([np.hstack([one.labels["au"], one.outputs["au"][one.labelled_frame]]) for one in data])


def test_one_video_has_no_held_out_score():
    assert HELD_OUT not in score_published(subjects(1), task="au")


def test_subjects_without_labels_are_refused():
    with pytest.raises(ValueError, match="found none"):
        score_published([], task="expr")
