"""The first sections of a report: scores of all heads with their intervals, and the charts of each head."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle, written_at
from data_contracts.store.contents import StoreContents
from data_contracts.store.store import Store
from models.decisions.evaluation import CONFIDENCE, RESAMPLES, SEED, Interval
from models.engines.progress import report_progress
from tasks.pages.charts import Chart, Point, interval_chart
from tasks.pages.head_charts import cells_of_interval, content_of_head, name_metric
from tasks.pages.page import Section
from tasks.pages.report_tables import settings_table, validation_table
from tasks.pages.table import Code, Table
from tasks.results.evaluations import Evaluation, evaluate_head

# Charts of more heads would make a page of many megabytes.
_MOST_HEADS = 12
INTERVALS_NOTE = (
    f"Intervals: {CONFIDENCE:.0%} BCa bootstrap over videos (Efron and Tibshirani 1993, chapter 14.3), {RESAMPLES:,} "
    f"resamples, seed {SEED}. They cover the choice of validation videos, not that of training videos or seeds."
)


@dataclass(frozen=True)
class _Evaluated:
    evaluation: Evaluation
    tuned: Bundle
    intervals: dict[str, dict[str, Interval]]

    @property
    def metric(self) -> str:
        return HeadDetails.of(self.evaluation.head).figure


def score_sections(store: Store, contents: StoreContents, *, with_charts: bool) -> list[Section]:
    """Return the section with the scores and settings of all heads and, with charts, one for each of the newest heads.

    Charts need the outputs of all validation subjects.
    """
    heads, rules = contents.bundles["heads"], contents.bundles["postprocessing"]
    tables = [validation_table(store, heads, rules), settings_table(store, heads)]
    evaluated, left_out = _evaluate(store, heads, rules) if with_charts else ([], [])
    viewers = store.list_folder("reports/viewers") if evaluated else []
    shown = [*tables[:1], _table(evaluated), *tables[1:], Table("Heads without charts", ["head", "reason"], left_out)]
    return [
        ("Scores", [*_charts(evaluated), *(one for one in shown if one.rows or one.empty)]),
        *((f"Head {one.evaluation.head.name}", _content(store, one, viewers)) for one in evaluated),
    ]


def _evaluate(
    store: Store, heads: Sequence[Bundle], rules: Sequence[Bundle]
) -> tuple[list[_Evaluated], list[list[object]]]:
    """Return the newest heads by name, and rows about those that are left out."""
    known = {head.name: head for head in heads}
    rules = [rule for rule in rules if PostprocessingDetails.of(rule).head in known]
    rules.sort(key=lambda rule: -written_at(store, known[PostprocessingDetails.of(rule).head]))
    evaluated: list[_Evaluated] = []
    left_out: list[list[object]] = []
    for number, rule in enumerate(rules, 1):
        report_progress("evaluating head {} of {}", number, len(rules))
        head = known[PostprocessingDetails.of(rule).head]
        if len(evaluated) == _MOST_HEADS:
            left_out.append([Code(head.name), f"the page has charts of the newest {_MOST_HEADS} heads only"])
            continue
        if PostprocessingDetails.of(rule).tuned_with:
            left_out.append([Code(head.name), "fitted on train and validation: its scores are those of another head"])
            continue
        try:
            evaluation = evaluate_head(store, head, rule)
        except InputError as error:
            left_out.append([Code(head.name), str(error)])
            continue
        evaluated.append(_Evaluated(evaluation, rule, {k: evaluation.intervals(k) for k in evaluation.rules}))
    return sorted(evaluated, key=lambda one: one.evaluation.head.name), left_out


def _content(store: Store, one: _Evaluated, viewers: Sequence[str]) -> list[Table | Chart]:
    content = content_of_head(store, one.evaluation, one.tuned, intervals=one.intervals, viewers=viewers)
    notes = [[note] for note in one.evaluation.notes]
    return [*([Table("Notes", ["note"], notes)] if notes else []), *content]


def _charts(evaluated: Sequence[_Evaluated]) -> list[Chart]:
    """Return a chart per task: the main metric of each head, a series per kind of score."""
    charts = []
    for task in dict.fromkeys(one.evaluation.task for one in evaluated):
        own = [one for one in evaluated if one.evaluation.task == task]
        points = [
            Point(one.evaluation.head.name, kind, known[one.metric])
            for one in own
            for kind, known in one.intervals.items()
        ]
        metric = name_metric(own[0].metric)
        charts.append(
            interval_chart(
                f"{task}: {metric} of each head",
                points,
                value_label=metric,
                description="Scores with their intervals; the values are in the table below.",
            )
        )
    return charts


def _table(evaluated: Sequence[_Evaluated]) -> Table:
    rows: list[list[object]] = []
    for one in evaluated:
        videos = len(next(iter(one.evaluation.counts_of_videos(one.evaluation.best_kind).values())))
        scored = sum(len(subject.labelled_frame) for subject in one.evaluation.rows)
        for kind, known in one.intervals.items():
            name = Code(one.evaluation.head.name)
            rows.append([name, kind, name_metric(one.metric), *cells_of_interval(known[one.metric]), videos, scored])
    header = ["head", "score", "metric", "value", "from", "to", "videos", "rows"]
    return Table("Scores with intervals", header, rows, notes=[INTERVALS_NOTE])
