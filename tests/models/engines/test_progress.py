import pytest

from models.engines import progress
from models.engines.progress import report_progress, reporting_to


@pytest.fixture
def clock(monkeypatch):
    times = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[0])
    return times


def test_a_line_is_reported_at_most_once_a_second(clock):
    lines = []
    with reporting_to(lines.append):
        for number in range(1, 401):
            clock[0] += 0.01
            report_progress("{:,} of {:,} rows", number * 1000, 400_000)
    assert lines == [f"{done},000 of 400,000 rows" for done in (100, 200, 300, 400)]


def test_without_a_receiver_lines_are_dropped_and_not_formatted(clock):
    class Unformatted:
        def __str__(self):
            raise AssertionError("a line that nobody reads was formatted")

    for receiver in (None, lambda line: None):
        with reporting_to(receiver):
            report_progress("{}", Unformatted())
    clock[0] += 60
    report_progress("{}", Unformatted())
