"""Two faults of deployed runs, as examples of ``python -m tests.faults unattended``; and the table in the docs."""

import re
from pathlib import Path

import pytest

from tests.faults.unattended.lab import running_lab
from tests.faults.unattended_matrix import CASES, run_case

GUIDE = Path(__file__).parents[3] / "docs/operations.md"
EXAMPLES = ("`kill -9` of the run's process", "weights missing")


@pytest.mark.service
def test_the_server_shows_the_truth_and_the_next_run_completes_everything(tmp_path):
    chosen = [case for case in CASES if case.name in EXAMPLES]
    with running_lab(tmp_path) as lab:
        for number, case in enumerate(chosen):
            row, problems = run_case(case, lab, tmp_path / f"case-{number}")
            assert problems == [], row
            assert row.startswith(f"| {case.name} | ") and "| starts after" in row
    assert len(chosen) == 2


def test_every_fault_in_the_table_of_the_docs_can_be_brought_about():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    (table,) = re.findall(r"\| fault \| shown after two minutes.*\n\|---.*\n((?:\|.*\n)+)", GUIDE.read_text())
    rows = [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()]
    assert set(rows) <= set(names), set(rows) - set(names)
