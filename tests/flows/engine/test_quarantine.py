import pytest

from data_contracts.errors import InputError, InvalidFileError, RefusedFilesError
from data_contracts.schemas.faces import FACES
from data_contracts.store.manifest import UnitKey
from data_contracts.store.store import Store
from flows.engine.quarantine import count_tries, describe_shared_cause
from flows.engine.stage_summary import StageSummary, work_here
from tasks.units import Product, Unit


def unit(name, part="00000"):
    path = f"/data/my videos/{name}.mp4" if len(name) > 1 else ""
    return Unit(UnitKey("faces", (("video", name),), part), "f" * 64, path, input_files=(path,) if path else ())


def compute(store, work):
    name, path = work.key.value("video"), work.arguments
    if name.startswith("bad"):
        raise InvalidFileError(f"{path}: expected a video, got packet {name[-1]} of 1,0{name[-1]}2 damaged")
    if name.startswith("large"):
        raise InvalidFileError(f"{path}: expected a smaller video")
    if name.startswith("same"):
        raise RefusedFilesError(f"{path}: expected one video per name")
    if name.startswith("memory"):
        raise MemoryError("expected " + name[-1:] * 5)
    if name.startswith("changed"):
        raise InputError(f"{path}: it was changed")
    if name.startswith("defect"):
        raise ValueError(f"Defect in {path}")
    if len(name) == 1:
        raise RuntimeError("basic_ios::clear: iostream error")
    return Product(FACES, [FACES.schema.empty_table()])


def run(store, *names, ready=0, release=False):
    """Return the summary of a stage and the tries of its failed units."""
    todo, summary = [unit(*name.split("#")) for name in names], StageSummary("stage", ready=ready)
    work_here(store, todo, compute, summary)
    count_tries(store, todo, summary, release=release)
    return summary, {key.value("video"): note.tries for key, note in store.failures("faces").items()}


def test_failures_of_inputs_count_and_others_never_do(tmp_path):
    store, names = Store(tmp_path), ("bad1", "changed1", "defect1", "good")
    for night in (1, 2, 3, 4):
        summary, tries = run(store, *names)
        assert tries == {"bad1": night, "changed1": 0, "defect1": 0} and summary.shared_cause is None


@pytest.mark.parametrize(("kind", "ready"), [("bad", 0), ("defect", 0), ("changed", 0), ("defect", 100)])
def test_one_cause_of_all_units_is_a_fault_of_the_machine(tmp_path, kind, ready):
    store = Store(tmp_path)
    for _ in range(3):
        summary, tries = run(store, f"{kind}1", f"{kind}2", ready=ready)
        assert set(tries.values()) == {0} and summary.shared_cause == summary.failures[f"{kind}1"]
    line = describe_shared_cause(summary)
    assert line.startswith("stage: all 2 units of this run failed for one cause, so it is probably the machine")
    assert line.endswith(summary.shared_cause) and ("remove these files" in line) == (kind == "bad")


def test_too_little_memory_is_one_cause_wherever_it_shows(tmp_path):
    summary, tries = run(Store(tmp_path), "memory-a", "memory-b")
    assert summary.out_of_memory == 2 and summary.shared_cause and set(tries.values()) == {0}


def test_invalid_files_count_if_earlier_runs_accepted_others(tmp_path):
    """The only new videos of a night may all be incomplete uploads."""
    for night in (1, 2, 3):
        summary, tries = run(Store(tmp_path), "bad1", "bad2", ready=100)
        assert tries == {"bad1": night, "bad2": night} and summary.shared_cause is None


def test_a_name_that_the_store_refuses_fails_without_a_note(tmp_path):
    summary, tries = run(Store(tmp_path), "bad1", f"bad{'x' * 300}", "good")
    assert len(summary.failures) == 2 and tries == {"bad1": 1}


def test_the_notes_of_a_stage_are_read_together(tmp_path, monkeypatch):
    """One by one, thousands of failed units would take minutes on S3."""
    store, read = Store(tmp_path), []
    read_many = store.files.read_many
    monkeypatch.setattr(store.files, "read_many", lambda paths: read.append(len(paths)) or read_many(paths))
    assert run(store, "bad1", "bad2", "bad3", "good")[1] == {"bad1": 1, "bad2": 1, "bad3": 1}
    assert 3 in read and 1 not in read


def test_letters_of_a_cause_that_are_the_name_of_a_unit_are_kept(tmp_path):
    assert run(Store(tmp_path), "a", "b")[0].shared_cause


@pytest.mark.parametrize(
    "names",
    [
        ("bad1", "bad2", "good"),
        ("bad1", "bad2", "large1"),
        ("bad1",),
        ("bad1#00000", "bad1#00001"),
        ("same1", "same2"),
    ],
)
def test_other_results_in_the_same_run_or_a_single_input_show_no_fault_of_the_machine(tmp_path, names):
    summary, tries = run(Store(tmp_path), *names)
    assert set(tries.values()) == {1} and summary.shared_cause is None


def test_a_cause_that_was_shown_to_be_the_inputs_still_counts_when_only_such_units_are_left(tmp_path):
    store = Store(tmp_path)
    run(store, "bad1", "bad2", "good")
    summary, tries = run(store, "bad1", "bad2", ready=1)
    assert tries == {"bad1": 2, "bad2": 2} and summary.shared_cause is None


def test_released_units_stay_quarantined_only_if_they_fail_because_of_their_input(tmp_path):
    store = Store(tmp_path)
    for _ in range(3):
        run(store, "bad1", "good")
    note = store.failure_of(unit("bad1").key)
    store.note_failure(unit("defect1").key, note)
    assert run(store, "bad1", "defect1", release=True)[1] == {"bad1": 4, "defect1": 0}
