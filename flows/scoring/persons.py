"""Print the summary of a run's videos and persons, for a terminal of 80 columns."""

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.errors import counted
from data_contracts.store.store import Store
from data_contracts.vocabulary import ACTION_UNITS, DIMENSIONS, EXPRESSIONS, SHORT_TRACK_FRAMES
from flows.engine.console import Lines, print_line, print_table, print_warning
from tasks.results.prediction_folder import SUMMARY_TABLE
from tasks.results.summary import update_summary

# Maximum number of rows, and number of persons of each video if there are many videos.
_ROWS_SHOWN, _PERSONS_SHOWN = 12, 3
# A share of an expression, and a rate of an action unit, below which neither is shown.
_SMALLEST_SHARE = 0.005
_LINES_PER_ROW = 2

_Row = Mapping[str, Any]


def summarize_folder(target: Store, videos: Collection[str]) -> pa.Table:
    """Write the summary of a folder of predictions; return the rows (``SUMMARY``) of these videos."""
    table, problems = update_summary(target)
    for line in problems:
        print_warning(f"note: {line}")
    return select_videos(table, videos)


def select_videos(persons: pa.Table, videos: Collection[str]) -> pa.Table:
    """Return the rows of some videos."""
    return persons.filter(pc.is_in(persons["video"], pa.array(sorted(videos), pa.string())))


def print_persons(persons: pa.Table, out: object) -> None:
    """Print the persons with most frames of each video, and how many others the files in ``out`` have.

    ``persons``: rows of ``SUMMARY``.
    """
    rows: list[_Row] = persons.to_pylist()
    if not rows:
        return
    shown = _most_seen(rows)
    columns = {"video": [_name(row) for row in shown], "frames": [_frames(row) for row in shown]}
    if any(row["share_neutral"] is not None for row in rows):
        columns["expression"] = [_largest(row, "share", EXPRESSIONS) for row in shown]
    for name in DIMENSIONS:
        if any(row[f"{name}_mean"] is not None for row in rows):
            columns[name] = [_range(row, name) for row in shown]
    if any(row[f"rate_{ACTION_UNITS[0].lower()}"] is not None for row in rows):
        columns["units"] = [_largest(row, "rate", ACTION_UNITS) for row in shown]
    print_table("Summary", list(columns), zip(*columns.values(), strict=True))
    if any(row["is_short_track"] for row in shown):
        print_line(f"* seen in fewer than {SHORT_TRACK_FRAMES} frames, too few to trust smoothed values")
    more = len(rows) - len(shown)
    others = f"{counted(more, 'more row')}, and all columns" if more else "all columns"
    print_line(f"{others}: {out}/{SUMMARY_TABLE}.csv")


def _most_seen(rows: Collection[_Row]) -> list[_Row]:
    """Return the first rows, with the persons of each video who are seen in most frames."""
    of_videos: dict[str, list[_Row]] = {}
    for row in rows:
        of_videos.setdefault(row["video"], []).append(row)
    most = max(_PERSONS_SHOWN, _ROWS_SHOWN // len(of_videos))
    shown: list[_Row] = []
    for persons in of_videos.values():
        seen = sorted(persons, key=lambda row: -row["face_share"] * row["frames"])[:most]
        shown += sorted(seen, key=lambda row: row["person"] or 0)
    return shown[:_ROWS_SHOWN]


def _name(row: _Row) -> Lines:
    if row["person"] is None:
        return Lines(row["video"], "no face")
    return Lines(row["video"], f"person {row['person']}{'*' if row['is_short_track'] else ''}")


def _frames(row: _Row) -> Lines:
    return Lines(f"{row['frames']:,}", f"{row['face_share']:.0%} face")


def _range(row: _Row, name: str) -> Lines:
    mean, low, high = (row[f"{name}_{kind}"] for kind in ("mean", "min", "max"))
    return Lines("-") if mean is None else Lines(f"{mean:+.2f}", f"{low:+.1f}..{high:+.1f}")


def _largest(row: _Row, kind: str, names: Collection[str]) -> Lines:
    values = {name: row[f"{kind}_{name.lower()}"] for name in names}
    known = [(value, name) for name, value in values.items() if value is not None and value >= _SMALLEST_SHARE]
    largest = sorted(known, key=lambda one: -one[0])[:_LINES_PER_ROW]
    return Lines(*(f"{name} {value:.0%}" for value, name in largest)) if largest else Lines("-")
