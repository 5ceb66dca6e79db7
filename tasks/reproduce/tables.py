"""Tables 1 to 6 of the paper, with the values that its methods reach on the features of a store."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from data_contracts.details.heads import CellDetails
from data_contracts.vocabulary import SIMULATED_NOTICE, is_simulated
from tasks.reproduce.published import BACKBONES, ERRATA, TABLES, Column, Kind, PublishedRow, PublishedTable

# The metrics that the best decisions maximise. Their other metrics are no upper bounds.
_MAXIMISED = ("macro_f1", "mean_f1", "mean_ccc", "ccc_valence", "ccc_arousal", "p_mtl")
# Marks rows and columns that the paper does not have.
ADDED = "+"
ON_ALL = "Heads fitted on train and validation have no score: the validation set is a part of their training set."
_CSV_COLUMNS = (
    "table",
    "model",
    "backbone",
    "source",
    "row",
    "column",
    "in_paper",
    "is_simulated",
    "published",
    "notebook",
    "mean",
    "difference",
    "lowest_seed",
    "highest_seed",
    "seeds",
    "best_attainable",
    "errata",
)
# Columns of a listing that name a row. On narrow terminals they are folded to a number of characters.
_NAMES, _NARROW_NAME = 3, 16
_COLUMN_GAP = 3
# Metric -> value, for each of them that is known.
Scores = Mapping[str, float]


class FeaturesName(NamedTuple):
    """Names of a features variant."""

    backbone: str
    source: str
    backbone_name: str

    @property
    def is_simulated(self) -> bool:
        """Whether the features are simulated."""
        return is_simulated(self.backbone_name)


@dataclass(frozen=True)
class Entry:
    """A cell of a table.

    Attributes:
        published: value that the paper prints.
        notebook: the same value in the authors' notebook.
        values: ours, one per seed.
        best_attainable: score of the best possible decisions on simulated data.
    """

    published: float | None = None
    notebook: float | None = None
    values: tuple[float, ...] = ()
    best_attainable: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def difference(self) -> float | None:
        """Our mean minus the published value."""
        return None if self.mean is None or self.published is None else self.mean - self.published


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        model: of the paper, or the name of a backbone that the paper does not have.
        label: method or smoothing.
        features: what ours is fitted on; None without ours.
        entries: one per column.
        marks: errata of the published values.
        in_paper: whether the paper has the row.
    """

    model: str
    label: str
    features: FeaturesName | None
    entries: tuple[Entry, ...]
    marks: tuple[str, ...] = ()
    in_paper: bool = True

    @property
    def is_simulated(self) -> bool:
        """Whether ours are of simulated features."""
        return self.features is not None and self.features.is_simulated

    @property
    def model_in_text(self) -> str:
        """The model, and the backbone whose features ours is fitted on if it has another name."""
        if self.features is None or self.features.backbone_name == self.model:
            return self.model
        return f"{self.model} ({self.features.backbone_name})"


@dataclass(frozen=True)
class ReproducedTable:
    """A table of the paper with our values. ``notes``: why values are missing, and what ours are fitted on."""

    published: PublishedTable
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def marks(self) -> set[str]:
        """The errata of the table and of its rows."""
        return {*self.published.marks, *(mark for row in self.rows for mark in row.marks)}

    @property
    def title(self) -> str:
        """Number, content and errata, and whether any value is of simulated data."""
        simulated = f": {SIMULATED_NOTICE}" if self.is_simulated else ""
        marks = f" [{', '.join(self.published.marks)}]" if self.published.marks else ""
        return f"Table {self.published.number}: {self.published.title}{marks}{simulated}"

    @property
    def is_simulated(self) -> bool:
        """Whether any of our values is of simulated features."""
        return any(row.is_simulated for row in self.rows)


@dataclass(frozen=True)
class Listing:
    """A table as texts, as the terminal, Markdown files and pages show it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def split(self, width: int) -> list["Listing"]:
        """Return parts with the names of the rows and some of the other columns, so that numbers fit into ``width``."""
        texts = zip(self.header, *self.rows, strict=True)
        widths = [max(map(len, column)) + _COLUMN_GAP for column in texts]
        names = sum(min(one, _NARROW_NAME + _COLUMN_GAP) for one in widths[:_NAMES])
        groups, left = list[list[int]](), 0
        for at, needed in enumerate(widths[_NAMES:], start=_NAMES):
            if not groups or needed > left:
                groups, left = [*groups, []], width - names
            groups[-1].append(at)
            left -= needed
        return [self._with_columns([*range(_NAMES), *group]) for group in groups]

    def _with_columns(self, columns: Sequence[int]) -> "Listing":
        header, *rows = (tuple(row[at] for at in columns) for row in (self.header, *self.rows))
        return Listing(self.title, header, tuple(rows))


def build_tables(
    cells: Sequence[CellDetails], *, best: Mapping[str, Scores], empty: Mapping[str, str]
) -> list[ReproducedTable]:
    """Return the six tables.

    Args:
        cells: fitted on the training set alone, of any features and seeds.
        best: task -> scores of the best decisions on the validation set; empty unless the data is simulated.
        empty: name of a model of the paper, or task -> why it has no cells.
    """
    of_features: dict[FeaturesName, list[CellDetails]] = {}
    for cell in cells:
        of_features.setdefault(FeaturesName(cell.backbone, cell.source, cell.backbone_name), []).append(cell)
    return [_Builder(table, of_features, best, empty).build() for table in TABLES]


class _Builder:
    """Builds one table."""

    def __init__(
        self,
        table: PublishedTable,
        cells: Mapping[FeaturesName, Sequence[CellDetails]],
        best: Mapping[str, Scores],
        empty: Mapping[str, str],
    ) -> None:
        self._table, self._cells, self._best, self._empty = table, cells, best, empty

    def build(self) -> ReproducedTable:
        kinds = {kind.label: kind for kind in self._table.kinds}
        rows = list[TableRow]()
        for row in self._table.rows:
            ours = [found for one in self._features_of(row) if (found := self._row(row, kinds[row.label], one))]
            rows += ours or [TableRow(row.model, row.label, None, self._published(row), row.marks)]
        shown = {(row.features, row.label) for row in rows}
        others = (self._row(None, kind, one) for one in self._cells for kind in self._table.kinds)
        rows += [row for row in others if row and (row.features, row.label) not in shown]
        return ReproducedTable(self._table, tuple(rows), tuple(self._notes(rows)))

    def _features_of(self, row: PublishedRow) -> list[FeaturesName]:
        return [features for features in self._cells if _model_of(features) == row.model]

    def _published(self, row: PublishedRow | None) -> tuple[Entry, ...]:
        """Return one entry per column, without ours."""
        pairs = zip(row.values, row.notebook, strict=True) if row else ()
        entries = [Entry(*pair) for pair in pairs]
        return (*entries, *[Entry()] * (len(self._table.columns) - len(entries)))

    def _row(self, row: PublishedRow | None, kind: Kind, features: FeaturesName) -> TableRow | None:
        """Return a row of the paper, or one that it lacks, with ours; None if there are none."""
        entries = tuple(
            self._with_ours(entry, column, kind, features)
            for entry, column in zip(self._published(row), self._table.columns, strict=True)
        )
        if not any(entry.values for entry in entries):
            return None
        marks = row.marks if row else ()
        return TableRow(_model_of(features), kind.label, features, entries, marks, in_paper=row is not None)

    def _with_ours(self, entry: Entry, column: Column, kind: Kind, features: FeaturesName) -> Entry:
        values = self._values(column, kind, features)
        best = self._best_of(column, kind, features) if values else None
        return replace(entry, values=values, best_attainable=best)

    def _values(self, column: Column, kind: Kind, features: FeaturesName) -> tuple[float, ...]:
        method, rule = column.method or kind.method, column.rule or kind.rule
        if not column.metric or rule is None:
            return ()
        found = {
            cell.seed: cell.scores[rule][column.metric]
            for cell in self._cells[features]
            if method == (cell.task, cell.features, cell.is_hidden) and column.metric in cell.scores.get(rule, {})
        }
        return tuple(value for _, value in sorted(found.items()))

    def _best_of(self, column: Column, kind: Kind, features: FeaturesName) -> float | None:
        method = column.method or kind.method
        if method is None or not features.is_simulated or column.metric not in _MAXIMISED:
            return None
        return self._best.get(method.task, {}).get(column.metric)

    def _notes(self, rows: Sequence[TableRow]) -> Iterable[str]:
        methods = [kind.method for kind in self._table.kinds] + [column.method for column in self._table.columns]
        absent = {row.model for row in rows} - {_model_of(features) for features in self._cells}
        names = {method.task for method in methods if method} | absent
        yield from (line for name, line in self._empty.items() if name in names)
        for features in dict.fromkeys(row.features for row in rows if row.features):
            yield f"{features.backbone_name}: fitted on the features {features.backbone} {features.source}."
        if any(not row.in_paper for row in rows) or any(not column.in_paper for column in self._table.columns):
            yield f"{ADDED}: not in the paper."
        if any(entry.best_attainable is not None for row in rows for entry in row.entries):
            yield "Best attainable: the score of the best decisions if the state behind every label were known."
        if any(not column.metric for column in self._table.columns):
            yield "Test set: its labels are not public, so these columns have published values only."


def _model_of(features: FeaturesName) -> str:
    """Return the model of the paper, or the name of a backbone that the paper does not have."""
    names = (model for model, backbones in BACKBONES.items() if features.backbone_name in backbones)
    return next(names, features.backbone_name)


def list_notes(tables: Sequence[ReproducedTable]) -> list[str]:
    """Return the notes of all tables, each once, and the errata that they mention."""
    marks = {mark for table in tables for mark in table.marks}
    errata = [f"{mark}: {text}" for mark, text in ERRATA.items() if mark in marks]
    return [*dict.fromkeys(note for table in tables for note in table.notes), *errata]


def list_table(table: ReproducedTable) -> Listing:
    """Return a table as texts: the published value, ours, the difference and the seeds are in rows of their own."""
    digits = 4 if table.published.number == 5 else 3
    names = (column.name if column.in_paper else f"{column.name} [{ADDED}]" for column in table.published.columns)
    rows = []
    for row in table.rows:
        lines = [(what, values) for what, values in _lines(row, digits) if set(values) != {"-"}]
        # Lines after the first one of a row do not repeat its names.
        names_of_row = [(row.model_in_text, row.label), *[("", "")] * len(lines)]
        rows += [(*named, what, *values) for named, (what, values) in zip(names_of_row, lines, strict=False)]
    return Listing(table.title, ("model", "method", "value", *names), tuple(rows))


def _lines(row: TableRow, digits: int) -> Iterable[tuple[str, list[str]]]:
    """Yield the lines of a row: the name of a value, and its text in each column."""
    if row.in_paper:
        marks = f" [{', '.join(row.marks)}]" if row.marks else ""
        yield f"published{marks}", [_number(entry.published, digits) for entry in row.entries]
    yield "ours" if row.in_paper else f"ours [{ADDED}]", [_number(entry.mean, digits) for entry in row.entries]
    yield "difference", [_number(entry.difference, digits, "+") for entry in row.entries]
    if any(len(entry.values) > 1 for entry in row.entries):
        yield "seeds", [_spread(entry.values) for entry in row.entries]
    yield "best attainable", [_number(entry.best_attainable, digits) for entry in row.entries]


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{digits}f}"


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.3f}..{max(values):.3f}" if values else "-"


def list_heads_on_all(cells: Sequence[tuple[str, CellDetails]]) -> Listing:
    """Return the heads that were fitted on the training and validation sets; (name, details) each."""
    rows = []
    for name, cell in cells:
        epochs = "/".join(map(str, cell.best_epochs))
        fitted_on = sum(one.used for one in cell.coverage)
        rows.append((name, cell.task, str(cell.seed), epochs, f"{fitted_on:,}"))
    mark = f": {SIMULATED_NOTICE}" if any(is_simulated(cell.backbone_name) for _, cell in cells) else ""
    return Listing(
        f"Heads fitted on train and validation, without scores{mark}",
        ("head", "task", "seed", "epochs", "rows"),
        tuple(rows),
    )


def to_markdown(listings: Sequence[Listing], notes: Sequence[str]) -> str:
    """Return listings and notes as sections of a Markdown file."""
    parts = []
    for one in listings:
        lines = [f"### {one.title}", "", _line(one.header), _line("---" for _ in one.header)]
        parts.append("\n".join([*lines, *(_line(row) for row in one.rows)]))
    return "\n\n".join([*parts, "### Notes", "\n".join(f"- {note}" for note in notes)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(tables: Sequence[ReproducedTable]) -> str:
    """Return the tables as CSV with one line per row and column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            for column, entry in zip(table.published.columns, row.entries, strict=True):
                names = (row.features.backbone, row.features.source) if row.features else ("", "")
                extremes = (min(entry.values), max(entry.values)) if entry.values else (None, None)
                writer.writerow(
                    [
                        table.published.number,
                        row.model,
                        *names,
                        row.label,
                        column.name,
                        row.in_paper and column.in_paper,
                        row.is_simulated,
                        entry.published,
                        entry.notebook,
                        entry.mean,
                        entry.difference,
                        *extremes,
                        len(entry.values),
                        entry.best_attainable,
                        " ".join(row.marks),
                    ]
                )
    return text.getvalue()
