import csv
import io
from dataclasses import replace

import pytest

from data_contracts.details.heads import CellDetails
from data_contracts.vocabulary import SIMULATED_NOTICE
from models.tuning.published import HALF_THRESHOLDS, HELD_OUT, UNSMOOTHED
from tasks.reproduce.tables import build_tables, list_notes, list_table, to_csv, to_markdown

EXPR = CellDetails(
    task="expr",
    features="embeddings",
    is_hidden=True,
    seed=0,
    settings={},
    backbone="enet_b0_8_best_vgaf-12345678",
    source="cropped",
    backbone_name="enet_b0_8_best_vgaf",
    trained_on=("train",),
    best_epochs=[3],
    scores={UNSMOOTHED: {"macro_f1": 0.371, "accuracy": 0.5}},
    coverage=(),
    seconds=1.0,
    fitted_in="float32",
)
MODEL, METHOD = "EfficientNet-B0", "embeddings, 1 hidden layer"


def with_scores(cell, seed, **scores):
    return replace(cell, seed=seed, scores={UNSMOOTHED: scores})


def simulated(cell):
    return replace(cell, backbone_name="simulated_enet_b0", backbone="simulated_enet_b0-1")


def entries_of(table, label, model=MODEL):
    (row,) = (row for row in table.rows if (row.model, row.label) == (model, label))
    return dict(zip((column.name for column in table.published.columns), row.entries, strict=True))


def lines_of(table, label, model=MODEL):
    """Name of a value -> its texts, of the rows of one label."""
    found, current = {}, None
    for name, method, what, *values in list_table(table).rows:
        # Only the first line of a row has names.
        current = (name, method) if name else current
        if current[0].startswith(model) and current[1] == label:
            found[what] = tuple(values)
    return found


def test_a_cell_is_compared_with_the_published_value():
    cells = [with_scores(EXPR, 1, macro_f1=0.361, accuracy=0.6), EXPR]
    first, *_ = build_tables(cells, best={}, empty={})
    f1 = entries_of(first, METHOD)["F1"]
    assert f1.values == (0.371, 0.361) and f1.published == 0.381 and f1.notebook == 0.380707
    assert f1.mean == pytest.approx(0.366) and f1.difference == pytest.approx(-0.015)
    assert lines_of(first, METHOD) == {
        "published [D10]": ("0.381", "0.500"),
        "ours": ("0.366", "0.550"),
        "difference": ("-0.015", "+0.050"),
        "seeds": ("0.361..0.371", "0.500..0.600"),
    }
    assert lines_of(first, "embeddings") == {"published": ("0.307", "0.428")}


def test_rows_and_columns_that_the_paper_lacks_are_marked():
    other = replace(EXPR, backbone_name="emotion_lite0", features="scores")
    units = replace(EXPR, task="au", scores={HALF_THRESHOLDS: {"mean_f1": 0.5}, UNSMOOTHED: {"mean_f1": 0.54}})
    units.scores[HELD_OUT] = {"mean_f1": 0.52}
    first, _, third, *_ = tables = build_tables([EXPR, other, units], best={}, empty={})
    assert lines_of(first, "scores, 1 hidden layer", "emotion_lite0") == {"ours [+]": ("0.371", "0.500")}
    assert list_table(third).header[-1].endswith("held-out [+]")
    assert lines_of(third, METHOD)["ours"] == ("0.500", "0.540", "0.520")
    assert lines_of(third, METHOD)["difference"] == ("-0.008", "+0.003", "-")
    assert "+: not in the paper." in list_notes(tables)
    # The rows of the paper come first, in its order.
    assert [row.in_paper for row in first.rows] == [True] * 9 + [False]


def test_columns_of_the_test_set_stay_empty():
    fifth = build_tables([EXPR], best={}, empty={})[4]
    entries = entries_of(fifth, "no smoothing")
    assert entries["EXPR"].values == (0.371,) and entries["AU"].values == ()
    assert entries["EXPR, test"].published == 0.2926 and entries["EXPR, test"].values == ()
    assert any(note.startswith("Test set:") for note in fifth.notes)


def test_multi_task_values_are_compared_in_the_right_columns():
    scores = {"p_mtl": 1.1, "macro_f1": 0.3, "mean_ccc": 0.35, "mean_f1": 0.45}
    cell = replace(EXPR, task="mtl", features="both", is_hidden=False, scores={HALF_THRESHOLDS: scores})
    sixth = build_tables([cell], best={}, empty={})[5]
    assert lines_of(sixth, "embeddings + scores")["difference"] == ("-0.023", "+0.017", "-0.036", "-0.005")
    assert "[D3, " in sixth.title


def test_simulated_data_is_marked_everywhere():
    best = {"expr": {"macro_f1": 0.8, "accuracy": 0.7}}
    tables = build_tables([simulated(EXPR)], best=best, empty={})
    assert "Best attainable" not in " ".join(list_notes(build_tables([EXPR], best=best, empty={})))
    first, _, third, *_ = tables
    assert SIMULATED_NOTICE in first.title and SIMULATED_NOTICE not in third.title
    names = {row[0] for row in list_table(first).rows}
    assert f"{MODEL} (simulated_enet_b0)" in names
    # The best decisions maximise the F1, not the accuracy.
    assert lines_of(first, METHOD)["best attainable"] == ("0.800", "-")
    assert any(note.startswith("Best attainable:") for note in first.notes)
    # Best attainable scores are of simulated data, too: a table without ours has none of them.
    tables = build_tables([simulated(EXPR)], best=best | {"au": {"mean_f1": 0.9}}, empty={})
    assert all(SIMULATED_NOTICE in one.title or "best attainable" not in str(list_table(one)) for one in tables)
    assert SIMULATED_NOTICE in to_markdown([list_table(first)], [])
    rows = [row for row in csv.DictReader(io.StringIO(to_csv(tables))) if row["is_simulated"] == "True"]
    assert {row["best_attainable"] for row in rows if row["column"] == "F1"} == {"0.8"}


def test_real_and_simulated_features_of_a_model_have_rows_of_their_own():
    first, *_ = build_tables([EXPR, simulated(with_scores(EXPR, 0, macro_f1=0.7, accuracy=0.7))], best={}, empty={})
    found = [
        (row.is_simulated, row.entries[0].values) for row in first.rows if (row.model, row.label) == (MODEL, METHOD)
    ]
    assert found == [(False, (0.371,)), (True, (0.7,))]


def test_missing_values_name_the_command_that_computes_them():
    empty = {"MobileNet": "MobileNet: run x", MODEL: "B0: run y", "expr": "expr: run z", "mtl": "mtl: run w"}
    first, *_ = tables = build_tables([EXPR], best={}, empty=empty)
    assert [note for note in first.notes if "run" in note] == ["MobileNet: run x", "expr: run z"]
    assert "mtl: run w" in list_notes(tables) and "B0: run y" not in list_notes(tables)


def test_files_contain_every_value():
    tables = build_tables([EXPR], best={}, empty={})
    rows = list(csv.DictReader(io.StringIO(to_csv(tables))))
    assert len(rows) == sum(len(table.rows) * len(table.published.columns) for table in tables)
    one = next(r for r in rows if (r["model"], r["row"], r["column"]) == (MODEL, METHOD, "F1"))
    assert (one["published"], one["mean"], one["seeds"], one["errata"]) == ("0.381", "0.371", "1", "D10")
    text = to_markdown([list_table(table) for table in tables], list_notes(tables))
    assert text.count("### Table ") == 6 and "- D10: the published value is of stored weights." in text


def test_wide_tables_are_split_between_columns():
    """Folded numbers cannot be read."""
    fifth = list_table(build_tables([simulated(EXPR)], best={}, empty={})[4])
    assert fifth.split(200) == [fifth]
    parts = fifth.split(80)
    assert [part.header[:3] for part in parts] == [fifth.header[:3]] * len(parts) and len(parts) > 1
    assert sum((part.header[3:] for part in parts), ()) == fifth.header[3:]
    assert all(sum(max(6, len(name)) + 3 for name in part.header[3:]) <= 80 - (19 + 19 + 18) for part in parts)
    rows = [row[:3] + sum((part.rows[at][3:] for part in parts), ()) for at, row in enumerate(fifth.rows)]
    assert rows == list(fifth.rows)
    assert all(part.title == fifth.title for part in parts)
