"""Tables 1 to 6 of the paper, with the values that its methods reach on the features of a store."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_contracts.store.details import CellDetails
from data_contracts.vocabulary import is_simulated
from tasks.reproduce.published import BACKBONES, ERRATA, MODELS, TABLES, Column, Kind, PublishedRow, PublishedTable

NOT_IN_PAPER = "not in the paper"
SIMULATED = "SIMULATED DATA, not Aff-Wild2"
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
        features: what ours is fitted on; None if the store has no such features.
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
        """Whether ours is of simulated features."""
        return self.features is not None and self.features.is_simulated


@dataclass(frozen=True)
class ReproducedTable:
    """A table of the paper with our values. ``notes``: why cells are empty."""

    published: PublishedTable
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Number and content, and whether any value is of simulated data."""
        mark = f" ({SIMULATED})" if any(row.is_simulated for row in self.rows) else ""
        return f"Table {self.published.number}: {self.published.title}{mark}"


@dataclass(frozen=True)
class Listing:
    """A table as texts, as the terminal, Markdown files and pages show it. ``notes``: lines below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def build_tables(
    cells: Sequence[CellDetails], *, best: Mapping[str, Scores], empty: Mapping[str, str]
) -> list[ReproducedTable]:
    """Return the six tables.

    Args:
        cells: fitted on the training set alone, of any features and seeds.
        best: task -> best attainable scores on the validation set; empty unless the data is simulated.
        empty: name of a backbone or task -> why it has no cells.
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
        known = {kind.label: kind for kind in self._table.kinds}
        rows, shown = list[TableRow](), set[tuple[FeaturesName, str]]()
        for row in self._table.rows:
            kind, features = known.get(row.label), self._features_of(row.model)
            for one in features:
                assert kind
                rows.append(self._row(row, kind, one))
                shown.add((one, row.label))
            if not features:
                entries = [Entry(*pair) for pair in zip(row.values, row.notebook, strict=True)]
                entries += [Entry()] * (len(self._table.columns) - len(entries))
                rows.append(TableRow(row.model, row.label, None, tuple(entries), row.marks))
        for one in self._cells:
            for kind in self._table.kinds:
                if (one, kind.label) not in shown:
                    extra = self._row(None, kind, one)
                    if any(entry.values for entry in extra.entries):
                        rows.append(extra)
        return ReproducedTable(self._table, tuple(rows), tuple(self._notes(rows)))

    def _features_of(self, model: str) -> list[FeaturesName]:
        names = dict(BACKBONES).get(model, ())  # type: ignore[call-overload]
        return [features for features in self._cells if features.backbone_name in names]

    def _row(self, row: PublishedRow | None, kind: Kind, features: FeaturesName) -> TableRow:
        count = len(self._table.columns)
        printed = (*(row.values if row else ()), *[None] * count)
        notebook = (*(row.notebook if row else ()), *[None] * count)
        entries = tuple(
            Entry(
                printed[at], notebook[at], self._values(column, kind, features), self._best_of(column, kind, features)
            )
            for at, column in enumerate(self._table.columns)
        )
        models = (model for model in MODELS if features.backbone_name in BACKBONES[model])
        model = row.model if row else next(models, features.backbone_name)
        return TableRow(model, kind.label, features, entries, row.marks if row else (), row is not None)

    def _values(self, column: Column, kind: Kind, features: FeaturesName) -> tuple[float, ...]:
        method, rule = column.method or kind.method, column.rule or kind.rule
        found = {
            cell.seed: cell.scores[rule][column.metric]
            for cell in self._cells[features]
            if method == (cell.task, cell.features, cell.is_hidden) and column.metric in cell.scores.get(rule or "", {})
        }
        return tuple(value for _, value in sorted(found.items()))

    def _best_of(self, column: Column, kind: Kind, features: FeaturesName) -> float | None:
        method = column.method or kind.method
        if method is None or not features.is_simulated:
            return None
        return self._best.get(method.task, {}).get(column.metric)

    def _notes(self, rows: Sequence[TableRow]) -> Iterable[str]:
        tasks = {method.task for kind in self._table.kinds if (method := kind.method)}
        tasks |= {method.task for column in self._table.columns if (method := column.method)}
        models = {name for row in rows if row.features is None for name in dict(BACKBONES).get(row.model, ())}  # type: ignore[call-overload]
        yield from (line for name, line in self._empty.items() if name in models or name in tasks)
        if any(not column.metric for column in self._table.columns):
            yield "Test set: its labels are not public, so that these columns have published values only."
        marks = (*self._table.marks, *(mark for row in rows for mark in row.marks))
        yield from (f"{mark}: {ERRATA[mark]}" for mark in sorted(set(marks), key=lambda mark: int(mark[1:])))


def list_table(table: ReproducedTable) -> Listing:
    """Return a table as texts: the published value, ours, the difference and the seeds are in rows of their own."""
    columns = table.published.columns
    digits = 4 if table.published.number == 5 else 3
    header = ("model", "method", "value", *(_heading(column) for column in columns))
    rows = []
    for row in table.rows:
        model = row.model
        if row.features:
            model += f" ({row.features.backbone} {row.features.source})" + (" SIMULATED" if row.is_simulated else "")
        lines = []
        marks = f" [{', '.join(row.marks)}]" if row.marks else ""
        if row.in_paper:
            lines.append((f"published{marks}", [_number(entry.published, digits) for entry in row.entries]))
        if row.features:
            ours = "ours" if row.in_paper else f"ours ({NOT_IN_PAPER})"
            lines.append((ours, [_number(entry.mean, digits) for entry in row.entries]))
        if row.in_paper and row.features:
            lines.append(("difference", [_number(entry.difference, digits, "+") for entry in row.entries]))
        if any(len(entry.values) > 1 for entry in row.entries):
            lines.append(("seeds", [_spread(entry.values, digits) for entry in row.entries]))
        if any(entry.best_attainable is not None for entry in row.entries):
            lines.append(("best attainable", [_number(entry.best_attainable, digits) for entry in row.entries]))
        rows += [(model, row.label, what, *values) for what, values in lines]
    return Listing(table.title, header, tuple(rows), table.notes)


def _heading(column: Column) -> str:
    return column.name if column.in_paper else f"{column.name} ({NOT_IN_PAPER})"


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{digits}f}"


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f}..{max(values):.{digits}f}" if values else "-"


def list_heads_on_all(cells: Sequence[tuple[str, CellDetails]]) -> Listing:
    """Return the heads that were fitted on the training and validation sets; (name, details) each."""
    rows = []
    for name, cell in cells:
        epochs = "/".join(map(str, cell.best_epochs))
        fitted_on = sum(one.used for one in cell.coverage)
        rows.append((cell.backbone, cell.task, cell.features, str(cell.seed), epochs, f"{fitted_on:,}", name))
    is_marked = any(is_simulated(cell.backbone_name) for _, cell in cells)
    return Listing(
        "Heads fitted on train and validation" + (f" ({SIMULATED})" if is_marked else ""),
        ("backbone", "task", "features", "seed", "epochs", "rows", "head"),
        tuple(rows),
        (
            "They have no score: the validation set is a part of their training set. Epochs are the best on train alone.",
        ),
    )


def to_markdown(listings: Sequence[Listing]) -> str:
    """Return listings as sections of a Markdown file."""
    parts = []
    for one in listings:
        lines = [f"### {one.title}", "", _line(one.header), _line("---" for _ in one.header)]
        lines += [_line(row) for row in one.rows]
        lines += ["", *(f"- {note}" for note in one.notes)] if one.notes else []
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


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
