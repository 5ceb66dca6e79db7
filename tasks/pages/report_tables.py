"""The contents of the tables in a report of a store or a run."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from urllib.parse import quote

from data_contracts.details.backbones import BackboneDetails
from data_contracts.details.heads import HeadDetails, PostprocessingDetails, label_coverage_columns
from data_contracts.details.submissions import COVERAGE_COUNTS, SubmissionDetails
from data_contracts.errors import InputError
from data_contracts.store.bundles import Bundle
from data_contracts.store.contents import StoreContents
from data_contracts.store.input_accounts import InputsDetails
from data_contracts.store.store import Store
from data_contracts.vocabulary import ACTION_UNITS, EXPRESSIONS, FACE_FOUND
from models.decisions.postprocessing import PostProcessing
from tasks.fit.head_selection import date_of
from tasks.fit.stored_heads import load_postprocessing
from tasks.fit.tune_postprocessing import read_candidates
from tasks.pages.page import Section
from tasks.pages.table import Code, Link, Share, State, Table, Tenths
from tasks.results.head_scores import attainable_column, score_columns, scores_of
from tasks.units import MAX_TRIES

_CANDIDATES_SHOWN = 5


@dataclass(frozen=True)
class RunRecord:
    """Parameters and results of a run.

    Attributes:
        outcome: how the run ended, and its numbers, in one line.
        is_good: nothing is missing in its results; None: it has not ended.
        is_simulated: its results are made from simulated features.
        stages: a row of cells per stage; ``stage_columns`` is the header.
        causes: (what, stage, unit, cause) of all units that failed, were used in part, or are quarantined.
    """

    name: str
    flow: str
    started: datetime
    seconds: float
    outcome: str
    is_good: bool | None
    parameters: Mapping[str, object]
    stage_columns: Sequence[str]
    stages: Sequence[Sequence[object]]
    causes: Sequence[tuple[str, str, str, str]]
    is_simulated: bool = False


def headline_counts(contents: StoreContents) -> list[tuple[str, int]]:
    """Return the names and values of the counts at the top of the page."""
    coverage = contents.coverage
    quarantined = sum(note.tries >= MAX_TRIES for note in contents.failures.values())
    return [
        ("videos", len(coverage.frames)),
        ("frames", sum(coverage.frames.values())),
        ("faces found", sum(counts[FACE_FOUND] for counts in coverage.faces.values())),
        ("subjects", len({subject for subject, _, _ in coverage.features})),
        ("heads", len(contents.bundles["heads"])),
        ("submissions", len(contents.bundles["submissions"])),
        ("failed", len(contents.failures) - quarantined),
        ("quarantined", quarantined),
        ("used in part", len(contents.problems)),
    ]


def sections_of_run(run: RunRecord) -> list[Section]:
    """Return the heading and the tables of a run, without those of its store."""
    return [("What the run did", _run_tables(run))]


def sections_of(store: Store, contents: StoreContents) -> list[Section]:
    """Return the headings of the inventory and their tables, without empty sections."""
    heads = contents.bundles["heads"]
    tuned = contents.bundles["postprocessing"]
    rules, unreadable = _rules(store, tuned)
    sections: list[Section] = [
        ("Problems", [_failures(contents, unreadable)]),
        ("Inputs", _inputs(contents.inputs)),
        ("Contents", [_variants(contents)]),
        (
            "Heads",
            [
                _labels(heads),
                *_splits(heads),
                *_decisions(rules),
                _candidates(store, tuned),
            ],
        ),
        ("Trained backbones", _backbones(contents.backbones)),
        ("Submissions", _submissions(contents.bundles["submissions"])),
        ("Coverage", [_faces(contents), _features(contents)]),
    ]
    return [(title, tables) for title, tables in sections if tables]


def _failures(contents: StoreContents, unreadable: Sequence[tuple[str, str]]) -> Table:
    rows: list[list[object]] = []
    for key, note in contents.failures.items():
        what = "failed" if note.tries < MAX_TRIES else f"quarantined, {note.format_tries()}"
        rows.append([State(what, False), key.dataset, str(key), note.cause])
    rows += [[State("unreadable", False), "postprocessing", name, cause] for name, cause in unreadable]
    rows += [[State("used in part", False), key.dataset, str(key), line] for key, line in contents.problems]
    return Table("Failures and losses", ["what", "dataset", "unit", "cause"], rows, empty="None.")


def _inputs(accounts: Sequence[InputsDetails]) -> list[Table]:
    counts = [[one.kind, one.place, one.found, one.used, one.found - one.used] for one in accounts]
    skipped: list[list[object]] = [
        [
            State("ignored" if s.is_harmless else "skipped", s.is_harmless),
            one.kind,
            s.count,
            s.reason,
            "; ".join(s.examples),
        ]
        for one in accounts
        for s in one.skipped
    ]
    notes = [[one.kind, line] for one in accounts for line in one.notes]
    tables = [
        Table("Inputs of the last runs", ["inputs", "place", "found", "used", "skipped"], counts),
        Table("Skipped inputs", ["what", "inputs", "count", "reason", "examples"], skipped),
        Table("Notes on inputs", ["inputs", "note"], notes),
    ]
    return [table for table in tables if table.rows]


def _run_tables(run: RunRecord) -> list[Table]:
    parameters = [[Code(name), _parameter(value)] for name, value in run.parameters.items() if value is not None]
    causes = [[State(what, False), *rest] for what, *rest in run.causes]
    stages = [[Tenths(cell) if isinstance(cell, float) else cell for cell in row] for row in run.stages]
    return [
        Table("Stages", run.stage_columns, stages, empty="The run ended before its first stage."),
        Table("Failures and losses of this run", ["what", "stage", "unit", "cause"], causes),
        Table("Parameters", ["parameter", "value"], parameters),
    ]


def _parameter(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _variants(contents: StoreContents) -> Table:
    rows = [
        [v.dataset, Code(v.variant), v.units, v.rows, Tenths(v.size_bytes / 1e6), Tenths(v.seconds), v.failed]
        for v in contents.variants
    ]
    header = ["dataset", "variant", "units", "rows", "MB", "seconds of work", "failed"]
    return Table("Datasets", header, rows, empty="No unit is done yet.")


def _faces(contents: StoreContents) -> Table:
    failed = {key.item for key in contents.failures}
    rows = []
    for one in contents.coverage.faces_of_videos():
        state = State("failed", False) if one.name in failed else State("ok", True)
        with_face = None if not one.frames else max(0.0, 1 - (one.frames_without_face + one.unusable) / one.frames)
        share = Share(with_face if one.source else None)
        rows.append(
            [one.name, Code(one.source), one.frames, one.faces, one.frames_without_face, share, one.unusable, state]
        )
    header = ["video", "source", "frames", "faces", "no face", "with a face", "unusable", "state"]
    return Table("Videos and crops", header, rows, empty="No video is indexed yet.")


def _features(contents: StoreContents) -> Table:
    rows = [
        [f.subject, Code(f.source), Code(f.backbone), f.frames, f.with_face, _share(f.with_face, f.frames), f.heads]
        for f in contents.coverage.features_of_subjects(contents.bundles["heads"])
    ]
    header = ["subject", "source", "backbone", "frames", "with a face", "share", "heads with predictions"]
    return Table("Subjects", header, rows, empty="No subject has features yet.")


def _share(part: int, whole: int) -> Share:
    return Share(part / whole if whole else None)


def settings_table(store: Store, heads: Sequence[Bundle]) -> Table:
    """Return the settings of each head, in the terms of the options of ``fit``."""
    rows: list[list[object]] = []
    for head in heads:
        details = HeadDetails.of(head)
        settings = [value or None for value in details.part_settings().values()]
        trained_on = " and ".join(details.trained_on) or None
        variants = [Code(details.backbone), Code(details.source)]
        date = date_of(store, head)
        rows.append([Code(head.name), details.kind, details.recipe, *settings, *variants, trained_on, date])
    header = ["head", "kind", "recipe", "features", "hidden units", "seeds", "features variant", "faces variant"]
    return Table("Settings", [*header, "trained on", "written"], rows)


def validation_table(store: Store, heads: Sequence[Bundle], rules: Sequence[Bundle]) -> Table:
    """Return the main metric of each head, untuned, in-sample and held-out."""
    of_head: dict[str, list[Bundle | None]] = {head.name: [] for head in heads}
    for rule in rules:
        of_head.setdefault(PostprocessingDetails.of(rule).head, []).append(rule)
    pairs = [(head, rule) for head in heads for rule in of_head[head.name] or [None]]
    scores = [scores_of(head, rule) for head, rule in pairs]
    columns = score_columns(scores) | attainable_column(store, [head for head, _ in pairs])
    rows: list[list[object]] = []
    for (head, _), *cells in zip(pairs, *columns.values(), strict=True):
        details = HeadDetails.of(head)
        seeds = details.seed_figures
        spread = f"{min(seeds):.3f} to {max(seeds):.3f}" if seeds else None
        rows.append([Code(head.name), details.task, details.recipe, details.figure, spread, *cells])
    header = ["head", "task", "recipe", "metric", "seeds", *columns]
    notes = [line for one in scores for line in one.notes()]
    return Table("Scores on the validation set", header, rows, empty="No head is fitted yet.", notes=notes)


def _candidates(store: Store, rules: Sequence[Bundle]) -> Table:
    """Return the windows with the highest scores, for all outputs whose window was searched for."""
    rows: list[list[object]] = []
    for rule in (rule for rule in rules if not PostprocessingDetails.of(rule).tuned_with):
        windows = [one for one in read_candidates(store, rule) if one.step == "smoothing" and one.name is None]
        for branch in dict.fromkeys(one.branch for one in windows):
            best = sorted((one for one in windows if one.branch == branch), key=lambda one: -one.score)
            if len(best) < 2:
                continue
            head = PostprocessingDetails.of(rule).head
            rows += [[Code(head), branch, one.smoothing.describe(), one.score] for one in best[:_CANDIDATES_SHOWN]]
    header = ["head", "outputs", "smoothing", "in-sample score"]
    return Table("Best smoothing candidates", header, rows, folded=True)


def _labels(heads: Sequence[Bundle]) -> Table:
    coverage = [(head, one) for head in heads for one in HeadDetails.of(head).coverage]
    columns = label_coverage_columns(one for _, one in coverage)
    rows = [[Code(head.name), *(getattr(one, name) for name in columns)] for head, one in coverage]
    return Table("Labels that heads were fitted on", ["head", *map(_words, columns)], rows, folded=True)


def _splits(heads: Sequence[Bundle]) -> list[Table]:
    """Return tables of the annotations of each head, and of subjects in both sets."""
    known = [(Code(head.name), HeadDetails.of(head)) for head in heads]
    annotations = [
        [name, one.task, one.annotations, len(one.train_subjects), len(one.validation_subjects)]
        for name, one in known
        if one.annotations
    ]
    shared = [[name, subject] for name, one in known for subject in one.excluded_subjects]
    excluded = "Validation subjects whose video is in the training set too; their rows are excluded"
    tables = [
        Table("Annotations", ["head", "task", "folder", "training subjects", "validation subjects"], annotations),
        Table(excluded, ["head", "subject"], shared),
    ]
    return [table for table in tables if table.rows]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _rules(store: Store, bundles: Sequence[Bundle]) -> tuple[list[tuple[str, PostProcessing]], list[tuple[str, str]]]:
    rules, unreadable = [], []
    for bundle in bundles:
        try:
            rules.append((PostprocessingDetails.of(bundle).head, load_postprocessing(store, bundle)))
        except InputError as error:
            unreadable.append((bundle.name, str(error)))
    return rules, unreadable


def _decisions(rules: Sequence[tuple[str, PostProcessing]]) -> list[Table]:
    """Return tables of smoothing, class bias and thresholds of every post-processing."""
    branches = [(head, branch, rule) for head, whole in rules for branch, rule in whole.rules.items()]
    smoothing = [[Code(h), b, r.describe_smoothing()] for h, b, r in branches]
    biases = [[Code(h), *map(float, r.class_bias)] for h, b, r in branches if b == "expr"]
    thresholds = [[Code(h), *map(float, r.thresholds)] for h, b, r in branches if b == "au"]
    tables = [
        Table("Smoothing", ["head", "outputs", "smoothing"], smoothing),
        Table("Bias of each expression (added to log-probabilities)", ["head", *EXPRESSIONS], biases),
        Table("Thresholds of action units", ["head", *ACTION_UNITS], thresholds),
    ]
    return [table for table in tables if table.rows]


def _backbones(bundles: Sequence[Bundle]) -> list[Table]:
    names = ("accuracy", "balanced_accuracy", "mean_ccc")
    rows = [[Code(b.name), *(getattr(BackboneDetails.of(b).figures, name) for name in names)] for b in bundles]
    return [Table("Scores on the validation photos", ["backbone", *map(_words, names)], rows)] if rows else []


def _submissions(bundles: Sequence[Bundle]) -> list[Table]:
    rows: list[list[object]] = []
    for bundle in bundles:
        details = SubmissionDetails.of(bundle)
        total = sum(row.rows for row in details.coverage)
        with_face = sum(row.with_face for row in details.coverage)
        link = Link(details.zip, quote(f"../../{bundle.folder}/{details.zip}"))
        what = [details.edition, details.task, link, State(details.format_checks(), details.has_no_fault)]
        names = [Code(details.head), Code(bundle.files[details.zip])]
        rows.append([*what, len(details.coverage), total, _share(with_face, total), *names])
    header = ["edition", "task", "zip", "checks", "subjects", "rows", "with a face", "head", "sha256 of the zip file"]
    summary = Table("Zip files", header, rows, empty="No submission is written yet.")
    return [summary, *_inputs_of_submissions(bundles), *map(_coverage, bundles)]


def _inputs_of_submissions(bundles: Sequence[Bundle]) -> list[Table]:
    """Return tables of the lists and annotations that submissions were made from, and of subjects in both."""
    written = [(Code(bundle.name), SubmissionDetails.of(bundle)) for bundle in bundles]
    lists = [[name, one.test_list, one.annotations] for name, one in written if one.test_list]
    seen = [[name, subject, "train"] for name, one in written for subject in one.in_train]
    seen += [[name, subject, "validation"] for name, one in written for subject in one.in_validation]
    tables = [
        Table("Test lists", ["submission", "test list", "annotations of the head"], lists),
        Table("Test subjects in the sets that the head was fitted on", ["submission", "subject", "set"], seen),
    ]
    return [table for table in tables if table.rows]


def _coverage(bundle: Bundle) -> Table:
    details = SubmissionDetails.of(bundle)
    rows = [astuple(row) for row in details.coverage]
    header = ["subject", *map(_words, COVERAGE_COUNTS), "frames known from"]
    return Table(f"Coverage: {details.edition} {details.task}, {bundle.name}", header, rows, folded=True)
