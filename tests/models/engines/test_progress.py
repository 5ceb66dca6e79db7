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


def test_a_countdown_has_rate_and_time_left(clock):
    lines = []
    with reporting_to(lines.append):
        for _ in progress.track(["a", "b", "c", "d"], "writing: {} files"):
            clock[0] += 90
        for _ in progress.track(iter("abc"), "reading: {} files"):
            clock[0] += 0.3
    # The last line of each says that it has ended.
    assert lines == [
        "writing: 1 of 4 files, 40/h, about 4 min left",
        "writing: 2 of 4 files, 40/h, about 3 min left",
        "writing: 3 of 4 files, 40/h, about 90 s left",
        "writing: 4 of 4 files, 40/h, about 0 s left",
        "",
    ]


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(12_345.6, "12,346 rows/s"), (2.54, "2.5 rows/s"), (0.5, "30 rows/min"), (0.001, "3.6 rows/h")],
)
def test_rates_are_numbers_of_at_least_one(per_second, text):
    assert progress.format_rate(per_second, "rows") == text


def test_progress_may_count_something_else_than_items(clock):
    lines = []
    with reporting_to(lines.append):
        for _ in progress.track([10, 40, 100], "{} frames", total=200, reached=lambda last: last):
            clock[0] += 10
    assert lines[:2] == ["10 of 200 frames, 1.0/s, about 3 min left", "40 of 200 frames, 2.0/s, about 80 s left"]
