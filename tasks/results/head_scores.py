"""Scores of heads on the validation set, named by what was done to the outputs and on which subjects."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.store.bundles import Bundle
from data_contracts.store.simulations import attainable_score
from data_contracts.store.store import Store
from tasks.fit.tune_postprocessing import recipe_of

_ALWAYS_SHOWN = ("untuned", "in-sample", "held-out")


@dataclass(frozen=True)
class HeadScores:
    """The main metric of one head; None where a score does not exist.

    Attributes:
        untuned: thresholds of 0.5, no smoothing.
        post_processed: smoothing over fixed windows; the recipe tunes nothing.
        in_sample: post-processing tuned on the subjects that are scored.
        held_out: post-processing tuned on other subjects.
        scored_head: name of the head that the scores belong to, if it is not this head.
    """

    head: str
    metric: str
    untuned: float | None = None
    post_processed: float | None = None
    in_sample: float | None = None
    held_out: float | None = None
    scored_head: str | None = None

    @property
    def by_name(self) -> dict[str, float | None]:
        """The scores by the names that tables show."""
        return {
            "untuned": self.untuned,
            "post-processed": self.post_processed,
            "in-sample": self.in_sample,
            "held-out": self.held_out,
        }

    def notes(self) -> list[str]:
        """Return a line if the scores belong to another head, and one if post-processing lowers the score."""
        lines = []
        if self.scored_head:
            lines.append(
                f"{self.head}: fitted on train and validation; the scores are those of {self.scored_head}, fitted on "
                "train alone"
            )
        known = {name: value for name, value in self.by_name.items() if value is not None}
        name, value = list(known.items())[-1] if known else ("untuned", None)
        if self.untuned is not None and value is not None and round(value, 3) < round(self.untuned, 3):
            lines.append(
                f"{self.head}: post-processing lowers {self.metric} from {self.untuned:.3f} (untuned) to {value:.3f} "
                f"({name})"
            )
        return lines


def scores_of(head: Bundle, postprocessing: Bundle | None) -> HeadScores:
    """Return the scores of a head with its post-processing."""
    metric = HeadDetails.of(head).figure
    if postprocessing is None:
        return HeadScores(head.name, metric)
    details = PostprocessingDetails.of(postprocessing)
    untuned, chosen, held_out = details.figures.of_metric(metric)
    if recipe_of(details).is_tuned(details.task):
        return HeadScores(
            head.name, metric, untuned, in_sample=chosen, held_out=held_out, scored_head=details.tuned_with
        )
    return HeadScores(head.name, metric, untuned, post_processed=chosen, scored_head=details.tuned_with)


def attainable_column(store: Store, heads: Sequence[Bundle]) -> dict[str, list[object]]:
    """Return a column with the best attainable score on simulated features, one per head; nothing without any."""
    known = [HeadDetails.of(head) for head in heads]
    best = [attainable_score(store, one.task, one.figure) if one.has_simulated_features else None for one in known]
    return {"best attainable": list(best)} if any(value is not None for value in best) else {}


def score_columns(scores: Sequence[HeadScores]) -> dict[str, list[object]]:
    """Return the columns of a table with one row per head, by heading; scores that no head has are left out."""
    columns: dict[str, list[object]] = {}
    if any(one.scored_head for one in scores):
        columns["scores of"] = ["the head fitted on train alone" if one.scored_head else "this head" for one in scores]
    for name in HeadScores("", "").by_name:
        values = [one.by_name[name] for one in scores]
        nothing_known = all(value is None for one in scores for value in one.by_name.values())
        if any(value is not None for value in values) or (nothing_known and name in _ALWAYS_SHOWN):
            columns[name] = list(values)
    return columns
