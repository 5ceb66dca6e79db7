"""Tables and charts of one head in a report: scores, classes, confusion, fitting, calibration, tuning and subjects."""

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from data_contracts.details.heads import HeadDetails
from data_contracts.store.bundles import Bundle, read_file
from data_contracts.store.store import Store
from data_contracts.vocabulary import ACTION_UNITS, DIMENSIONS, EXPRESSIONS, BranchName, video_of_subject
from models.decisions.evaluation import (
    FALSE_ALARMS,
    HITS,
    MISSES,
    REJECTIONS,
    Calibration,
    Interval,
    calibration_of,
    f1_of_thresholds,
    metrics_of_counts,
)
from models.decisions.smoothing import NOMINAL_FRAMES_PER_SECOND, Smoothing
from models.decisions.subject_outputs import SubjectOutputs
from models.heads.metrics import MAIN_METRIC
from models.tuning.calibration import calibration_error, scores_by_coverage
from tasks.fit.tune_postprocessing import read_candidates
from tasks.pages.charts import PALETTE, Chart, Line, Point, density_chart, interval_chart, line_chart
from tasks.pages.table import Code, Heat, Link, Share, Table
from tasks.results.evaluations import Evaluation

Content = list[Table | Chart]
OUTPUTS_OF = {"expr": "expressions", "va": "valence and arousal", "au": "action units"}
_THRESHOLDS = np.arange(0.02, 0.99, 0.02)
_SUBJECTS_SHOWN = 5
# Names of metrics -> how a page shows them.
_METRICS = {
    "macro_f1": "mean F1 of expressions",
    "mean_ccc": "mean CCC",
    "mean_f1": "mean F1 of action units",
    "p_mtl": "sum of the three scores",
    "train_loss": "training loss",
    "loss": "validation loss",
}


def name_metric(metric: str) -> str:
    """Return the name of a metric as a page shows it: ``f1_Anger`` is ``F1 Anger``."""
    words = metric.replace("f1_", "F1 ").replace("ccc_", "CCC ").replace("_", " ")
    return _METRICS.get(metric, words)


def content_of_head(
    store: Store,
    evaluation: Evaluation,
    tuned: Bundle,
    *,
    intervals: dict[str, dict[str, Interval]],
    viewers: Sequence[str] = (),
) -> Content:
    """Return what a report shows of a head, in order.

    Args:
        store: it has the head.
        evaluation: of the head.
        tuned: its post-processing.
        intervals: kind of score -> metric -> interval.
        viewers: names of videos that have a viewer.
    """
    content: Content = []
    kind = evaluation.best_kind
    for branch, counts in evaluation.counts[kind].items():
        content += _classes(branch, counts.sum(axis=0), intervals, kind, evaluation)
    content += learning_curves(store, evaluation.head)
    for branch in evaluation.rule.rules:
        content += _calibration(branch, evaluation.rows)
        content += _selective(branch, evaluation)
        content += _thresholds(branch, evaluation)
    content += _windows(store, tuned)
    content += _seeds(store, evaluation.head)
    content += [_subjects(evaluation, branch, kind, viewers) for branch in evaluation.counts[kind]]
    return content


# -- classes -------------------------------------------------------------------------------------------------------


def _classes(
    branch: BranchName,
    counts: np.ndarray,
    intervals: dict[str, dict[str, Interval]],
    kind: str,
    evaluation: Evaluation,
) -> Content:
    if branch == "va":
        return [_agreement(evaluation, at, name) for at, name in enumerate(DIMENSIONS)]
    classes = EXPRESSIONS if branch == "expr" else ACTION_UNITS
    points = [Point(name, one, known[f"f1_{name}"]) for name in classes for one, known in intervals.items()]
    chart = interval_chart(
        f"F1 of each {'expression' if branch == 'expr' else 'action unit'}",
        points,
        value_label="F1",
        description="The values are in the table below." if branch == "au" else "The values are in the table of F1.",
    )
    if branch == "expr":
        return [chart, _f1_table(points), _confusion(counts, kind)]
    return [chart, _units(counts, intervals[kind], kind)]


def _f1_table(points: Sequence[Point]) -> Table:
    series = list(dict.fromkeys(one.series for one in points))
    values = {(one.category, one.series): one.interval for one in points}
    rows: list[list[object]] = [
        [name, *(cell for one in series for cell in cells_of_interval(values[name, one]))]
        for name in dict.fromkeys(one.category for one in points)
    ]
    header = [name for one in series for name in (one, "from", "to")]
    return Table("F1 of each expression", ["expression", *header], rows, folded=True)


def cells_of_interval(interval: Interval) -> tuple[float, float | None, float | None]:
    """Return the cells of a value and of the ends of its interval."""
    return interval.value, interval.low, interval.high


def _confusion(counts: np.ndarray, kind: str) -> Table:
    rows: list[list[object]] = []
    for name, row in zip(EXPRESSIONS, counts, strict=True):
        total = row.sum()
        rows.append([name, *(Heat(float(cell / total) if total else None, int(cell)) for cell in row), int(total)])
    return Table(
        f"Confusion of expressions, {kind}: rows are labels, columns decisions",
        ["label", *EXPRESSIONS, "rows"],
        rows,
        notes=["Each cell: share of the label's rows, and their number. The diagonal is the recall."],
    )


def _units(counts: np.ndarray, intervals: dict[str, Interval], kind: str) -> Table:
    rows: list[list[object]] = []
    for name, cell in zip(ACTION_UNITS, counts, strict=True):
        active, decided, total = cell[HITS] + cell[MISSES], cell[HITS] + cell[FALSE_ALARMS], cell.sum()
        shares = (cell[HITS] / decided if decided else None), (cell[HITS] / active if active else None)
        counted = [int(cell[at]) for at in (HITS, MISSES, FALSE_ALARMS, REJECTIONS)]
        prevalence = Share(float(active / total) if total else None)
        ratios = [None if one is None else float(one) for one in shares]
        rows.append([name, *cells_of_interval(intervals[f"f1_{name}"]), *ratios, prevalence, *counted])
    header = ["action unit", "F1", "from", "to", "precision", "recall", "active rows"]
    counted_names = ["active, decided so", "active only", "decided only", "neither"]
    return Table(f"Action units, {kind}", [*header, *counted_names], rows)


def _agreement(evaluation: Evaluation, at: int, name: str) -> Chart:
    pairs = []
    for one in evaluation.rows:
        decided = one.decide(evaluation.rule)["va"][one.labelled_frame, at]
        label = one.labels["va"][:, at]
        known = ~np.isnan(label)
        pairs.append((label[known], decided[known]))
    labels, values = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return density_chart(
        f"{name.capitalize()}: labels and values",
        labels,
        values,
        x_label="label",
        y_label="value",
        description=f"Rows per label and predicted {name}, after post-processing. The dashed line is equality.",
    )


# -- fitting -------------------------------------------------------------------------------------------------------


def learning_curves(store: Store, head: Bundle) -> Content:
    """Return the charts of what every epoch of a fit achieved: of each part of the recipe, a line per seed."""
    metrics, kept = _read_metrics(store, head), HeadDetails.of(head).best_epochs
    charts: dict[tuple[int, str], list[Line]] = {}
    for seed, parts in enumerate(metrics.get("history", ())):
        colour = PALETTE[seed % len(PALETTE)]
        for number, epochs in enumerate(parts):
            for name in (key for key in (epochs[0] if epochs else {}) if key != "epoch"):
                lines = charts.setdefault((number, name), [])
                values = [one.get(name, np.nan) for one in epochs]
                lines.append(Line(f"seed {seed + 1}", [one["epoch"] for one in epochs], values, colour))
                if kept:
                    at = kept[seed][number]
                    name_kept = f"seed {seed + 1}, kept"
                    lines.append(Line(name_kept, [at], [values[at - 1]], colour, is_marked=True, is_in_legend=False))
    parts_shown = len({number for number, _ in charts})
    dots = ", with a dot at the kept epoch" if kept else ""
    return [
        line_chart(
            f"Learning curve: {name_metric(name)}{f', part {number + 1}' if parts_shown > 1 else ''}" + dots,
            lines,
            x_label="epoch",
            y_label=name_metric(name),
            height_px=220,
            description=f"{name_metric(name)} after each epoch, for every seed{dots}.",
        )
        for (number, name), lines in charts.items()
    ]


def _read_metrics(store: Store, head: Bundle) -> Any:
    return json.loads(read_file(store, head, "metrics.json")) if "metrics.json" in head.files else {}


def _seeds(store: Store, head: Bundle) -> Content:
    seeds = _read_metrics(store, head).get("seeds", ())
    averaged = _read_metrics(store, head).get("figures", {})
    names = [name for name in averaged if name in MAIN_METRIC.values() and name != "p_mtl"]
    if len(seeds) < 2 or not names:
        return []
    points = [
        *(Point(name_metric(name), "seeds alone", Interval(seed[name])) for name in names for seed in seeds),
        *(Point(name_metric(name), "averaged outputs", Interval(averaged[name])) for name in names),
    ]
    return [
        interval_chart(
            "Seeds",
            points,
            value_label="untuned score on rows with a face",
            description=f"Scores of {len(seeds)} seeds alone, and of their averaged outputs.",
        )
    ]


# -- outputs and tuning --------------------------------------------------------------------------------------------


def _calibration(branch: BranchName, rows: Sequence[SubjectOutputs]) -> Content:
    """Return the reliability diagram of outputs of frames with a face, before any post-processing."""
    if branch == "va":
        return []
    outputs, labels = labelled_outputs(branch, rows)
    lines, errors = [Line("perfect", [0, 1], [0, 1], PALETTE[6], is_dashed=True)], []
    if branch == "expr":
        known = labels >= 0
        decided = outputs[known].argmax(axis=1)
        found = calibration_of(outputs[known].max(axis=1), decided == labels[known])
        lines.append(_reliability("expressions", found, 0))
        errors.append(["decided expression", found.error, int(found.rows.sum())])
    else:
        for at, name in enumerate(ACTION_UNITS):
            known = labels[:, at] >= 0
            found = calibration_of(outputs[known, at], labels[known, at] == 1)
            lines.append(_reliability(name, found, at))
            errors.append([name, found.error, int(found.rows.sum())])
    mean = calibration_error(branch, labels, outputs)
    chart = line_chart(
        f"Reliability of {OUTPUTS_OF[branch]}: expected calibration error {mean:.3f}",
        lines,
        x_label="mean probability",
        y_label="share that is right" if branch == "expr" else "share that is active",
        x_range=(0, 1),
        y_range=(0, 1),
        description="Probabilities of the outputs against the share of rows for which they are right.",
    )
    if branch == "expr":
        return [chart]
    header = ["action unit", "expected calibration error", "rows"]
    return [chart, Table("Calibration of action units", header, errors, folded=True)]


def _selective(branch: BranchName, evaluation: Evaluation) -> Content:
    """Return the scores of the most certain decisions, which are made as for the best kind of score."""
    kind = evaluation.best_kind
    labels, probability, decisions = [], [], []
    for one in evaluation.rows:
        rule, at = evaluation.rules[kind][one.name], one.labelled_frame
        labels.append(one.labels[branch])
        smoothed = one.smooth(rule)
        probability.append(smoothed[branch][at])
        decisions.append(one.decide(rule, smoothed)[branch][at])
    arrays = (np.concatenate(part) for part in (labels, probability, decisions))
    found = scores_by_coverage(branch, *arrays)
    rows: list[list[object]] = [[Share(one.coverage), one.least_probability, one.score, one.accuracy] for one in found]
    header = ["decided rows", "lowest probability", name_metric(MAIN_METRIC[branch]), "accuracy"]
    note = (
        "Only the decisions with the highest smoothed probabilities are scored; classes that do not occur count as 0."
    )
    caption = f"Selective prediction of {OUTPUTS_OF[branch]}, {kind}"
    return [Table(caption, header, rows, folded=True, notes=[note])] if rows else []


def _reliability(name: str, found: Calibration, number: int) -> Line:
    style = _style(number)
    return Line(name, found.mean_probability, found.share, *style, is_marked=True)


def _style(number: int) -> tuple[str, bool]:
    """Return colour and dash of one of up to twelve lines: six colours, solid and dashed."""
    return PALETTE[number % 6], number >= 6


def labelled_outputs(branch: BranchName, rows: Sequence[SubjectOutputs]) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs [n, K] of labelled frames that show the face, and their labels."""
    outputs, labels = [], []
    for one in rows:
        shown = one.present[one.labelled_frame]
        outputs.append(one.outputs[branch][one.labelled_frame[shown]])
        labels.append(one.labels[branch][shown])
    return np.concatenate(outputs), np.concatenate(labels)


def _thresholds(branch: BranchName, evaluation: Evaluation) -> Content:
    if branch != "au":
        return []
    rule = evaluation.rule
    values = np.concatenate([one.smooth(rule)["au"][one.labelled_frame] for one in evaluation.rows])
    labels = np.concatenate([one.labels["au"] for one in evaluation.rows])
    lines = []
    for at, name in enumerate(ACTION_UNITS):
        style = _style(at)
        lines.append(Line(name, _THRESHOLDS, f1_of_thresholds(labels[:, at], values[:, at], _THRESHOLDS), *style))
        chosen = rule.rules["au"].thresholds[at]
        best = f1_of_thresholds(labels[:, at], values[:, at], [chosen])
        lines.append(Line(f"{name}, chosen", [chosen], best, *style, is_marked=True, is_in_legend=False))
    return [
        line_chart(
            "F1 of each threshold, with a dot at the chosen one",
            lines,
            x_label="threshold of the smoothed probability",
            y_label="F1",
            x_range=(0, 1),
            y_range=(0, 1),
            description="F1 of each action unit against its threshold, on the rows that thresholds are tuned on.",
        )
    ]


def _windows(store: Store, tuned: Bundle) -> Content:
    """Return the charts of the score against the smoothing window, for outputs whose window was searched for."""
    tried = [one for one in read_candidates(store, tuned) if one.step == "smoothing" and one.name is None]
    charts: Content = []
    for branch in dict.fromkeys(one.branch for one in tried):
        of_method: dict[str, list[tuple[float, float]]] = {}
        for one in (one for one in tried if one.branch == branch):
            method = one.smoothing.method + (" of logits" if one.smoothing.space == "logit" else "")
            of_method.setdefault(method, []).append((_window_seconds(one.smoothing), one.score))
        if sum(map(len, of_method.values())) < 2:
            continue
        lines = []
        for at, (method, pairs) in enumerate(of_method.items()):
            windows, scores = np.array(sorted(pairs)).T
            lines.append(Line(method, windows, scores, PALETTE[at % len(PALETTE)], is_marked=True))
        charts.append(
            line_chart(
                f"Score against the smoothing window: {OUTPUTS_OF[branch]}",
                lines,
                x_label="window, seconds",
                y_label=f"in-sample {name_metric(MAIN_METRIC[branch])}",
                description="In-sample score of every window that was tried, for each way of smoothing.",
            )
        )
    return charts


def _window_seconds(smoothing: Smoothing) -> float:
    """Return the width of a window; windows in frames at the nominal frame rate."""
    nominal = 1 if smoothing.unit == "seconds" else NOMINAL_FRAMES_PER_SECOND
    return 2 * smoothing.half_width / nominal


# -- subjects ------------------------------------------------------------------------------------------------------

# Metric by which subjects are ranked: F1 of expressions that a subject never shows would count as 0.
_SUBJECT_METRICS: dict[BranchName, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "expr": ("accuracy", lambda counts: metrics_of_counts("expr", counts)["accuracy"]),
    "va": ("mean CCC", lambda counts: metrics_of_counts("va", counts)["mean_ccc"]),
    "au": ("mean F1 of shown units", lambda counts: _f1_of_shown_units(counts)),
}


def _f1_of_shown_units(counts: np.ndarray) -> np.ndarray:
    hits, misses, wrong = (counts[..., at] for at in (HITS, MISSES, FALSE_ALARMS))
    is_shown = hits + misses > 0
    f1 = np.divide(2 * hits, 2 * hits + misses + wrong, out=np.zeros(hits.shape), where=is_shown)
    return np.divide(f1.sum(axis=-1), is_shown.sum(axis=-1), out=np.zeros(len(f1)), where=is_shown.any(axis=-1))


def _subjects(evaluation: Evaluation, branch: BranchName, kind: str, viewers: Sequence[str]) -> Table:
    name, score = _SUBJECT_METRICS[branch]
    scores = score(evaluation.counts[kind][branch])
    ranked = np.argsort(-scores, kind="stable")
    is_short = len(ranked) <= 2 * _SUBJECTS_SHOWN
    shown = ranked if is_short else [*ranked[:_SUBJECTS_SHOWN], *ranked[-_SUBJECTS_SHOWN:]]
    rows: list[list[object]] = []
    for at in shown:
        one = evaluation.rows[at]
        video = video_of_subject(one.name)
        link = Link(one.name, f"../viewers/{quote(video)}/index.html") if video in viewers else Code(one.name)
        with_face = float(one.present[one.labelled_frame].mean())
        rows.append([link, float(scores[at]), len(one.labelled_frame), Share(with_face)])
    which = "Subjects" if is_short else f"The {_SUBJECTS_SHOWN} best and the {_SUBJECTS_SHOWN} worst subjects"
    header = ["subject", name, "labelled rows", "with a face"]
    return Table(f"{which} by {name}, {kind}: {OUTPUTS_OF[branch]}", header, rows)
