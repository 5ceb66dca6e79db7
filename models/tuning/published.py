"""The scores that the paper publishes of one head: its thresholds, and its five smoothings (Tables 1 to 6)."""

from collections.abc import Sequence

from data_contracts.vocabulary import BRANCHES_OF_TASK, TaskName
from models.decisions.postprocessing import BranchRule
from models.decisions.recipes import get_postprocessing_recipe
from models.decisions.smoothing import PUBLISHED_SMOOTHINGS, Smoothing
from models.decisions.subject_outputs import SubjectOutputs, labelled_subjects, published_rows
from models.tuning.branch_search import NONE, LeftOut, Option
from models.tuning.folds import FOLDS, split_by_video
from models.tuning.tuning import score_rules, searches_of

# Names of decisions, besides ``PUBLISHED_SMOOTHINGS``. All but the last two use the thresholds of the grid that are
# best on the same subjects.
UNSMOOTHED = "none"
HALF_THRESHOLDS, HELD_OUT = "thresholds 0.5", "held-out"


def score_published(
    subjects: Sequence[SubjectOutputs], *, task: TaskName, folds: int = FOLDS
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
    splits = [scored for _, scored in split_by_video([one.name for one in used], folds)]
    searches = searches_of(used, splits, task, get_postprocessing_recipe("paper", task=task))

    def score(smoothing: Smoothing, left_out: Sequence[LeftOut] = (NONE,)) -> dict[str, float]:
        rules = [{b: one.rule(Option(smoothing), folds) for b, one in searches.items()} for folds in left_out]
        return score_rules(searches, rules)

    scores = {name: score(PUBLISHED_SMOOTHINGS[name]) for name in names}
    if "au" in BRANCHES_OF_TASK[task]:
        scores[HALF_THRESHOLDS] = score_rules(searches, [dict.fromkeys(searches, BranchRule())])
        if splits:
            unsmoothed = PUBLISHED_SMOOTHINGS[UNSMOOTHED]
            scores[HELD_OUT] = score(unsmoothed, [frozenset({number}) for number in range(len(splits))])
    return scores
