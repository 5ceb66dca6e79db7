"""The scores that the paper publishes of one head: its thresholds, and its five smoothings (Tables 1 to 6)."""

from collections.abc import Callable, Sequence

import numpy as np

from data_contracts.vocabulary import BRANCHES_OF_TASK, TaskName
from models.decisions.postprocessing import BranchRule
from models.decisions.recipes import get_postprocessing_recipe
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS
from models.decisions.subject_outputs import SubjectOutputs, labelled_subjects, published_rows
from models.decisions.tuning import BranchCandidates, score_folds, split_by_video

# Names of decisions, besides ``PUBLISHED_SMOOTHINGS``. All but the last two use the thresholds of the grid that are
# best on the same subjects.
UNSMOOTHED = "none"
HALF_THRESHOLDS, HELD_OUT = "thresholds 0.5", "held-out"


def score_published(
    subjects: Sequence[SubjectOutputs], *, task: TaskName, folds: int = 5
) -> dict[str, dict[str, float]]:
    """Return the metrics of ``score_branches`` for each of the published decisions, by name.

    Rows without a face are excluded, as published. Names are those of ``PUBLISHED_SMOOTHINGS`` (``mtl``: unsmoothed
    only). Tasks with action units also have ``HALF_THRESHOLDS`` and ``HELD_OUT``, both without smoothing; the
    thresholds of the latter are tuned on the other folds of videos. Without a second video, it is left out.

    Raises:
        ValueError: a branch of the task has no label.
    """
    used = labelled_subjects([published_rows(subject) for subject in subjects], task)
    names = (UNSMOOTHED,) if task == "mtl" else tuple(PUBLISHED_SMOOTHINGS)
    branches, smoothings = BRANCHES_OF_TASK[task], tuple(PUBLISHED_SMOOTHINGS[name] for name in names)
    recipe = get_postprocessing_recipe("paper", task=task).replace(smoothings=dict.fromkeys(branches, smoothings))
    tables = {branch: BranchCandidates(used, branch, recipe) for branch in branches}
    everyone = np.arange(len(used))

    def score(choose: Callable[[BranchCandidates, np.ndarray], BranchRule]) -> dict[str, float]:
        return score_folds(tables, [(everyone, everyone)], choose)

    def rule_of(name: str) -> Callable[[BranchCandidates, np.ndarray], BranchRule]:
        return lambda table, tuned_on: table.rule(tuned_on, PUBLISHED_SMOOTHINGS[name])

    scores = {name: score(rule_of(name)) for name in names}
    if "au" in tables:
        scores[HALF_THRESHOLDS] = score(lambda table, tuned_on: BranchRule())
        splits = split_by_video([subject.name for subject in used], folds)
        if splits:
            scores[HELD_OUT] = score_folds(tables, splits, rule_of(UNSMOOTHED))
    return scores
