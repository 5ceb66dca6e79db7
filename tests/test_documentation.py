"""Links between the pages of the documentation, and its examples for readers of the data."""

import re
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.schemas.predictions import PREDICTIONS
from data_contracts.vocabulary import EXPRESSIONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_pages_and_headings_that_exist(page):
    broken = []
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_or_the_guide_leads_to_every_page():
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "operations.md").read_text()
    assert [page.name for page in PAGES[2:] if f"{page.name})" not in text and f"{page.name}#" not in text] == []


def code_blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.M | re.S)


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """A folder with a store, and with predictions and their summary, as the examples name them."""
    (tmp_path / "STORE").symlink_to(ROOT / "tests" / "data" / "store_34a2ed4" / "store")
    (tmp_path / "predictions").mkdir()
    rows = [{field.name: None for field in PREDICTIONS.schema}] * 4
    seen = [one | {"frame": n + 1, "has_face": n > 0, "expression": EXPRESSIONS[4]} for n, one in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(seen, PREDICTIONS.schema), tmp_path / "predictions" / "clip.parquet")
    (tmp_path / "predictions" / "tables").mkdir()
    pq.write_table(pa.table({"video": ["clip"]}), tmp_path / "predictions" / "tables" / "summary.parquet")
    monkeypatch.chdir(tmp_path)


def test_duckdb_runs_the_queries_of_the_data_contracts(readers_folder):
    expressions, happy, by_label = (duckdb.sql(one).pl() for one in code_blocks("data_contracts.md", "sql"))
    assert happy.shape == (6, 2) and happy["happy"].is_between(0, 1).all()
    assert by_label["frames"].sum() > 0 and by_label["p_happiness"].is_between(0, 1).all()
    assert expressions.rows() == [("Happiness", 3)]


def test_python_runs_the_examples_of_the_data_contracts(readers_folder):
    names: dict[str, pl.DataFrame] = {}
    for block in code_blocks("data_contracts.md", "python"):
        exec(block, names)
    assert names["seen"].shape == (6, 3) and names["seen"]["frames"].sum() == 72
    assert names["of_one"].shape[1] == 1280
    assert names["outputs"]["subject"].unique().to_list() == ["validation01"]
