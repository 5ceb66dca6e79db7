"""Compare two heads on the same labelled rows: every metric of both, and paired bootstrap intervals of differences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from data_contracts.details.heads import HeadDetails, PostprocessingDetails
from data_contracts.errors import InputError, counted
from data_contracts.store.bundles import Bundle, match_bundles
from data_contracts.store.contents import REPORT_PAGE, comparison_name
from data_contracts.store.store import Store
from data_contracts.vocabulary import SIMULATED_NOTICE, TaskName
from models.decisions.evaluation import CONFIDENCE, RESAMPLES, SEED, Interval, Metrics, bootstrap_intervals
from models.decisions.subject_outputs import SubjectOutputs
from tasks.fit.head_selection import describe_heads, fitted_heads, select_postprocessings
from tasks.fit.tune_postprocessing import recipe_of
from tasks.pages.charts import Chart, Point, interval_chart
from tasks.pages.head_charts import name_metric
from tasks.pages.page import Section, render_page
from tasks.pages.report_tables import settings_table
from tasks.pages.table import Code, Table
from tasks.results.evaluations import IN_SAMPLE, UNTUNED, Evaluation, evaluate_head, join_counts, joined_metrics

HEADER = ("score", "metric", "A", "B", "B - A", "from", "to")


@dataclass(frozen=True)
class Difference:
    """One metric of two heads, and the interval of its difference, B minus A."""

    score: str
    metric: str
    a: float
    b: float
    difference: Interval

    def cells(self) -> list[object]:
        """Return the cells of a table, as ``HEADER`` names them."""
        one = self.difference
        return [self.score, name_metric(self.metric), self.a, self.b, one.value, one.low, one.high]


@dataclass(frozen=True)
class Comparison:
    """Two heads on the same labelled rows of the same subjects."""

    a: Evaluation
    b: Evaluation
    differences: Sequence[Difference]
    videos: int
    rows: int
    notes: Sequence[str]


def find_compared(store: Store, name: str, *, task: TaskName | None) -> Bundle:
    """Return the head with this name, the only one whose name starts with it, or the only one of this recipe.

    Raises:
        InputError: none matches, or several do.
    """
    heads = [head for head in fitted_heads(store) if task in (None, HeadDetails.of(head).task)]
    found = match_bundles(heads, name)
    if not found:
        found = [head for head in heads if HeadDetails.of(head).recipe == name]
    if len(found) == 1:
        return found[0]
    of_task = f" of {task}" if task else ""
    is_of_several_tasks = len({HeadDetails.of(head).task for head in found}) > 1
    hint = "; add --task" if is_of_several_tasks else "; pass the name of a head, or its beginning"
    listed = describe_heads(store, found or heads) or "none"
    raise InputError(
        f"compare {name}: expected one head{of_task} in {store.url}, {'several match' if found else 'none matches'}: "
        f"{listed}{hint}"
    )


def compare_heads(store: Store, a: Bundle, b: Bundle) -> Comparison:
    """Score two heads on the labelled rows of both, and their differences.

    The intervals of differences are those of a paired bootstrap: every resample draws the same videos for both heads
    (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 8.4 and 14.3).

    Raises:
        InputError: it is one head, the tasks or validation subjects differ, or outputs or labels are missing.
    """
    names = f"{a.name} and {b.name}"
    tasks = HeadDetails.of(a).task, HeadDetails.of(b).task
    if a.name == b.name:
        raise InputError(f"{a.name}: expected two heads, got the same one twice; pass another name")
    if tasks[0] != tasks[1]:
        raise InputError(
            f"{names}: expected heads of one task, got {tasks[0]} and {tasks[1]}; compare heads of one task"
        )
    rules = select_postprocessings(store, [a, b])
    tuned = [rules[head.name] for head in (a, b)]
    if missing := [head.name for head, rule in zip((a, b), tuned, strict=True) if rule is None]:
        raise InputError(f"{missing[0]}: expected a tuned post-processing in {store.url}, found none; run fit again")
    details = [PostprocessingDetails.of(rule) for rule in tuned if rule]
    if other := [head.name for head, one in zip((a, b), details, strict=True) if one.tuned_with]:
        raise InputError(f"{other[0]}: expected a head with own scores, got one fitted on validation, too")
    is_mixed = len({recipe_of(one).scored_rows for one in details}) > 1
    one, two = (
        evaluate_head(store, head, rule, all_rows=is_mixed) for head, rule in zip((a, b), tuned, strict=True) if rule
    )
    note = "Their recipes score different rows; here both are scored on all labelled rows."
    return compare_evaluations(one, two, notes=[note] if is_mixed else [])


def _on_common_rows(a: Evaluation, b: Evaluation) -> tuple[Evaluation, Evaluation, list[str]]:
    """Return the evaluations on the labelled rows that both heads have outputs for."""
    if a.subjects != b.subjects:
        both = len(set(a.subjects) & set(b.subjects))
        raise InputError(
            f"{a.head.name} and {b.head.name}: expected the same validation subjects, found {len(a.subjects)} and "
            f"{len(b.subjects)}, {both} of "
            "them in both; fit both on the same annotations and features of the same subjects"
        )
    pairs = list(zip(a.rows, b.rows, strict=True))
    kept = [_common(x, y) for x, y in pairs], [_common(y, x) for x, y in pairs]
    before, after = (sum(len(one.labelled_frame) for one in rows) for rows in (a.rows, kept[0]))
    if before == after == sum(len(one.labelled_frame) for one in b.rows):
        return a, b, []
    return (
        replace(a, rows=kept[0]),
        replace(b, rows=kept[1]),
        [f"Scored on the {after:,} labelled rows that both heads are scored on."],
    )


def _common(subject: SubjectOutputs, other: SubjectOutputs) -> SubjectOutputs:
    kept = np.isin(subject.labelled_frame, other.labelled_frame)
    labels = {branch: values[kept] for branch, values in subject.labels.items()}
    return replace(subject, labelled_frame=subject.labelled_frame[kept], labels=labels)


def compare_evaluations(a: Evaluation, b: Evaluation, *, notes: Sequence[str] = ()) -> Comparison:
    """Compare two heads on the labelled rows that both are scored on; see ``compare_heads``.

    Raises:
        InputError: the subjects differ.
    """
    a, b, more = _on_common_rows(a, b)
    notes = [*notes, *more]
    differences = []
    # Rules that were not tuned on the scored subjects, where there are some.
    kinds = {UNTUNED: (UNTUNED, UNTUNED), "best": (a.best_kind, b.best_kind)}
    for kind_a, kind_b in kinds.values():
        counts = a.counts_of_videos(kind_a), b.counts_of_videos(kind_b)
        joined = [join_counts(one) for one in counts]
        width = joined[0].shape[1]
        metrics = joined_metrics(counts[0])

        def difference(sums: np.ndarray, metrics: Any = metrics, width: int = width) -> Metrics:
            of_a, of_b = metrics(sums[:, :width]), metrics(sums[:, width:])
            return {name: of_b[name] - value for name, value in of_a.items()}

        found = bootstrap_intervals(np.concatenate(joined, axis=1), difference)
        values = [{name: float(v[0]) for name, v in metrics(one.sum(axis=0)[None]).items()} for one in joined]
        label = kind_a if kind_a == kind_b else f"{kind_a} and {kind_b}"
        differences += [Difference(label, name, values[0][name], values[1][name], found[name]) for name in found]
    if IN_SAMPLE in kinds["best"]:
        notes.append("In-sample scores are too high: post-processing was tuned on the scored subjects.")
    notes.append(
        f"Intervals of differences: {CONFIDENCE:.0%} paired BCa bootstrap over {counted(len(joined[0]), 'video')} "
        f"(Efron and Tibshirani 1993), {RESAMPLES:,} resamples, seed {SEED}."
    )
    rows = sum(len(one.labelled_frame) for one in a.rows)
    return Comparison(a, b, differences, len(joined[0]), rows, notes)


def write_comparison(store: Store, found: Comparison, *, written: datetime) -> str:
    """Write ``reports/compare-A-B/index.html``; return its path within the store.

    Raises:
        StoreError: the store cannot be written to.
    """
    heads = [found.a.head, found.b.head]
    is_simulated = any(HeadDetails.of(head).is_simulated for head in heads)
    sections = _sections(store, found)
    page = render_page(
        "report.html.jinja",
        title=f"{found.a.task}: two heads",
        simulated=SIMULATED_NOTICE if is_simulated else None,
        charts=[one for _, parts in sections for one in parts if isinstance(one, Chart)],
        store=store.root,
        written=written,
        run=None,
        counts=[("videos", found.videos), ("scored rows", found.rows)],
        sections=sections,
    )
    path = f"reports/{comparison_name(found.a.head.name, found.b.head.name)}/{REPORT_PAGE}"
    store.write_bytes(path, page.encode())
    return path


def _sections(store: Store, found: Comparison) -> list[Section]:
    names = Table("Heads", ["", "head"], [["A", Code(found.a.head.name)], ["B", Code(found.b.head.name)]])
    content: list[Table | Chart] = [names]
    for score in dict.fromkeys(one.score for one in found.differences):
        own = [one for one in found.differences if one.score == score and one.metric != "p_mtl"]
        points = [Point(name_metric(one.metric), "B - A", one.difference) for one in own]
        values = [
            Point(name_metric(one.metric), name, Interval(value))
            for one in own
            for name, value in (("A", one.a), ("B", one.b))
        ]
        text = "The values are in the table below."
        content.append(
            interval_chart(
                f"Differences, {score}: right of zero, B is better",
                points,
                value_label="B - A",
                description=text,
                zero_line=True,
            )
        )
        content.append(interval_chart(f"Scores, {score}", values, value_label="score", description=text))
    table = Table("Differences", HEADER, [one.cells() for one in found.differences], notes=found.notes)
    return [("Comparison", [*content, table]), ("Settings", [settings_table(store, [found.a.head, found.b.head])])]
