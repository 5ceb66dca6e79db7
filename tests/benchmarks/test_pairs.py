import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))  # the scripts run from this folder and import each other by name
import pairs  # noqa: E402
from pairs import Growth, Measured, Pair, describe, goal_is_met, measure, measure_growth  # noqa: E402
from result_files import BEGIN, END, find_fallen_ratios, load_results, render_tables, store_results, write_page  # noqa: E402
from run_benchmarks import find_scripts, read_constant, run_script  # noqa: E402

pytestmark = pytest.mark.service


def equal(expected, got):
    assert expected == got, f"{expected} is not {got}"
    return "equal"


class Clock:
    """A clock that advances only in ``sleep``."""

    now = 0.0

    def sleep(self, seconds, result=1):
        self.now += seconds
        return result


CLOCK = Clock()


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(pairs.time, "perf_counter", lambda: CLOCK.now)


def pair(**changes):
    fields = {
        "name": "sleep",
        "reference": lambda: CLOCK.sleep(0.02),
        "ours": lambda: CLOCK.sleep(0.005),
        "parity": equal,
    }
    return Pair(**fields | changes)


def test_ratio_uses_medians_and_rounds_are_stored(clock):
    durations = iter([9.0, 9.0, 0.004, 0.005, 7.0])
    measured = measure(
        pair(ours=lambda: CLOCK.sleep(next(durations)), rounds=3, goal=2, work=10, unit="calls"), script="sleep"
    )
    assert measured.reference.seconds == pytest.approx([0.02] * 3)
    assert measured.ours.seconds == pytest.approx([0.004, 0.005, 7.0])
    assert measured.ratio == pytest.approx(4) and goal_is_met(measured)
    assert "(goal 2x)" in describe(measured) and "2,000 calls/s" in describe(measured)


def test_slow_reference_is_called_once_and_scaled(clock):
    calls = []
    measure(pair(reference=lambda: calls.append(1), ours=lambda: None, reference_rounds=1))
    assert len(calls) == 1
    twice = measure(pair(reference_rounds=1, reference_scale=10, rounds=1))
    assert twice.reference.median_seconds == pytest.approx(0.2)


def test_the_steady_state_is_without_start_up(clock):
    growth = Growth(
        "sleep",
        lambda copies: CLOCK.sleep(5 + copies),
        lambda copies: CLOCK.sleep(1.2 + 0.1 * copies),
        equal,
        work=20,
        unit="call",
        goal=12,
    )
    steady = measure_growth(growth)
    assert steady.ratio == pytest.approx(10) and not goal_is_met(steady)
    assert "200 calls/s" in describe(steady) and "core-ms per call" in steady.parity


def test_memory_is_measured_per_side():
    big, small = (lambda size=size: np.ones(size) is not None for size in (30_000_000, 10))
    measured = measure(pair(reference=big, ours=small, rounds=1))
    if measured.reference.grown_mb is None:
        pytest.skip("this kernel cannot reset the peak memory")
    assert measured.reference.grown_mb > 200 and measured.ours.grown_mb < 20


def test_memory_of_child_processes_is_included():
    code = "import time; held = b'1' * 100_000_000; time.sleep(0.4)"
    child = pair(reference=lambda: subprocess.run([sys.executable, "-c", code]).returncode, ours=lambda: 0, rounds=1)
    measured = measure(child)
    assert measured.reference.grown_mb is None or measured.reference.grown_mb > 90


def test_failed_parity_is_stored_and_reported():
    measured = measure(pair(ours=lambda: 2, rounds=1))
    assert not measured.parity_holds and "BROKEN: 1 is not 2" in describe(measured)


SCRIPT = """
from pairs import Pair, run_script

ALLOCATORS = ("default", "tuned")


def make_pairs(quick):
    def parity(expected, got):
        assert got == {wanted}
        return "equal"

    yield Pair(f"sum, quick {{quick}}", lambda: 7, lambda: 7, parity)


if __name__ == "__main__":
    run_script(make_pairs)
"""


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    (tmp_path / "bench_right.py").write_text(SCRIPT.format(wanted=7))
    (tmp_path / "bench_wrong.py").write_text(SCRIPT.format(wanted=8))
    (tmp_path / "bench_long.py").write_text("QUICK = False\n")
    return tmp_path


def test_each_script_runs_in_its_own_process(scripts):
    assert [path.stem for path in find_scripts(scripts, [])] == ["bench_long", "bench_right", "bench_wrong"]
    assert [path.stem for path in find_scripts(scripts, ["rig"])] == ["bench_right"]
    assert [read_constant(path, "QUICK", True) for path in find_scripts(scripts, [])] == [False, True, True]
    assert read_constant(scripts / "bench_right.py", "ALLOCATORS", ("default",)) == ("default", "tuned")
    (right,), succeeded = run_script(scripts / "bench_right.py", allocator="tuned", quick=True)
    assert succeeded and (right.script, right.allocator, right.name) == ("right", "tuned", "sum, quick True")
    (wrong,), succeeded = run_script(scripts / "bench_wrong.py", allocator="default", quick=False)
    assert not succeeded and not wrong.parity_holds and wrong.name == "sum, quick False"


def test_constants_of_every_script_can_be_read():
    for path in find_scripts(FOLDER, []):
        assert read_constant(path, "ALLOCATORS", ("default",)) and read_constant(path, "QUICK", True) in (True, False)
        assert "def make_pairs(" in path.read_text()


def test_results_of_a_day_are_merged_and_the_newest_are_rendered(tmp_path):
    first, second = (measure(pair(name=name, rounds=1), script=name) for name in ("first", "second"))
    store_results(tmp_path / "2026-01-01.json", [first, second], date="2026-01-01")
    store_results(tmp_path / "2026-01-02.json", [first], date="2026-01-02")
    store_results(tmp_path / "2026-01-02.json", [first], date="2026-01-02")
    assert load_results(tmp_path / "2026-01-01.json") == [first, second]
    assert load_results(tmp_path / "2026-01-02.json") == [first]
    other = measure(pair(name="other", rounds=1), script="first")
    store_results(tmp_path / "2026-01-02.json", [other], date="2026-01-02")
    assert load_results(tmp_path / "2026-01-02.json") == [first, other]
    table = render_tables(tmp_path)
    assert table.count("| first |") == 1 and "2026-01-01" in table and "2026-01-02" in table
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(tmp_path, page)
    assert "old" not in page.read_text() and "| second |" in page.read_text() and page.read_text().endswith("after\n")
    page.write_text("no markers")
    with pytest.raises(ValueError, match="once each"):
        write_page(tmp_path, page)


def test_each_kind_of_machine_has_a_table(tmp_path):
    measured = measure(pair(rounds=1), script="sleep")
    for date, processor in (("2026-01-01", "Old"), ("2026-01-02", "New"), ("2026-01-03", "Old")):
        path = tmp_path / f"{date}.json"
        store_results(path, [measured], date=date)
        content = json.loads(path.read_text())
        content["machine"]["processor"] = processor
        path.write_text(json.dumps(content))
    tables = render_tables(tmp_path)
    assert tables.index("of Old") < tables.index("of New") and tables.count("| sleep |") == 2
    assert "2026-01-03" in tables and "2026-01-01" not in tables


def test_stored_results_identify_no_machine(tmp_path):
    store_results(tmp_path / "2026-01-01.json", [measure(pair(rounds=1))], date="2026-01-01")
    text = (tmp_path / "2026-01-01.json").read_text()
    assert str(tmp_path) not in text and str(FOLDER) not in text
    assert set(json.loads(text)["machine"]) == {"processor", "flags", "cores", "memory_gb", "python", "versions"}


def test_a_fallen_ratio_is_reported_in_one_line(clock):
    before = measure(pair(rounds=1), script="sleep")
    slower = Measured.from_dict(before.to_dict() | {"ours": before.to_dict()["reference"]})
    assert find_fallen_ratios([before], [before]) == [] and find_fallen_ratios([slower], []) == []
    (line,) = find_fallen_ratios([slower], [before])
    assert line.startswith("sleep: sleep (default): ratio 1x, was ")
