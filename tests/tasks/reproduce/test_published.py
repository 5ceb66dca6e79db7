import pytest

from models.decisions.smoothing import PUBLISHED_SMOOTHINGS
from models.tuning.published import HALF_THRESHOLDS, HELD_OUT
from tasks.reproduce.published import BACKBONES, ERRATA, TABLES

BY_NUMBER = {table.number: table for table in TABLES}


def row_of(number, model, label):
    return next(row for row in BY_NUMBER[number].rows if (row.model, row.label) == (model, label))


def test_every_row_fits_its_table():
    """A misspelt label, model or mark in the data would leave a row empty without any error."""
    assert [len(table.rows) for table in TABLES] == [9, 1, 9, 7, 6, 8]
    for table in TABLES:
        labels = {kind.label for kind in table.kinds}
        columns = sum(column.in_paper for column in table.columns)
        for row in table.rows:
            assert len(row.values) == len(row.notebook) == columns
            assert (row.label == "baseline") != (row.model in BACKBONES and row.label in labels)
            assert set(row.marks) <= set(ERRATA)
        assert set(table.marks) <= set(ERRATA)
        rules = {column.rule or kind.rule for column in table.columns for kind in table.kinds if column.metric}
        assert rules <= {*PUBLISHED_SMOOTHINGS, HALF_THRESHOLDS, HELD_OUT}


def test_printed_values_are_the_notebooks_but_for_known_errata():
    pairs = [
        (row, *pair) for table in TABLES for row in table.rows for pair in zip(row.values, row.notebook, strict=True)
    ]
    known = [(row, printed, digits) for row, printed, digits in pairs if digits is not None]
    assert len(known) > 60
    # The paper sometimes cuts digits off instead of rounding.
    wrong = [(row.label, printed, digits) for row, printed, digits in known if abs(printed - digits) > 0.00101]
    assert wrong == [("scores", 0.496, 0.497962)]
    assert "E1" in row_of(4, "EfficientNet-B0", "scores").marks


@pytest.mark.parametrize("row", BY_NUMBER[6].rows[1:], ids=lambda row: f"{row.model} {row.label}")
def test_multi_task_scores_are_the_sums_of_their_parts(row):
    p_mtl, *parts = row.values
    assert (abs(p_mtl - sum(parts)) > 0.0025) == ("D4" in row.marks)


def test_exchanged_columns_are_put_right():
    """Valence and arousal score higher than expressions in every row of the notebook (D3)."""
    names = [column.name for column in BY_NUMBER[6].columns]
    for row in BY_NUMBER[6].rows[1:]:
        values = dict(zip(names, row.values, strict=True))
        assert values["P_VA"] > values["P_EXPR"]
    best = row_of(6, "EfficientNet-B2", "embeddings + scores")
    assert dict(zip(names, best.values, strict=True)) == {"P_MTL": 1.147, "P_EXPR": 0.302, "P_VA": 0.384, "P_AU": 0.461}


def test_smoothing_starts_from_the_heads_of_the_other_tables():
    expr, au, valence, arousal, *_ = row_of(5, "EfficientNet-B0", "no smoothing").notebook
    assert expr == row_of(1, "EfficientNet-B0", "embeddings, 1 hidden layer").notebook[0]
    assert au == row_of(3, "EfficientNet-B0", "embeddings, 1 hidden layer").notebook[1]
    assert (valence, arousal) == row_of(4, "EfficientNet-B0", "scores").notebook[:2]


def test_scores_of_expressions_are_the_mean_of_their_classes():
    (per_class,) = BY_NUMBER[2].rows
    assert sum(per_class.notebook) / 8 == pytest.approx(
        row_of(1, per_class.model, per_class.label).notebook[0], abs=1e-6
    )
