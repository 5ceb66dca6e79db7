from data_contracts.store.manifest import UnitKey
from flows.engine.run import Run
from flows.engine.run_counts import RunCounts, count_units
from flows.engine.stage_summary import StageSummary
from tasks.units import Unit, UnitReport


def unit_of(video, dataset="features"):
    key = "video" if dataset == "videos" else "subject"
    return Unit(UnitKey(dataset, ((key, video),)), "0" * 64, None)


def summary_of(stage, *, ready=0, done=(), failed=(), quarantined=(), in_part=()):
    units = [*done, *failed, *quarantined]
    summary = StageSummary(stage, units=ready + len(units), ready=ready, missing={unit.name: unit for unit in units})
    summary.quarantined = [(unit.name, None) for unit in quarantined]
    summary.known_problems = [(name, line) for name in in_part for line in ("one part", "another part")]
    for unit in (*done, *failed):
        summary.add(UnitReport(unit.name, cause="damaged" if unit in failed else None))
    return summary


def test_numbers_that_are_zero_are_not_shown():
    counts = RunCounts("video", "scored", up_to_date=1200, done=3, failed=1, quarantined=3, waiting=1, skipped=2)
    assert counts.format() == "1,200 up to date, 3 scored, 1 failed, 3 quarantined, 1 waiting, 2 skipped"
    assert counts.describe() == f"1,208 videos: {counts.format()}" and counts.has_problems
    assert RunCounts().describe() == "0 units: nothing to do" and not RunCounts(up_to_date=1).has_problems


def test_units_of_all_stages_are_counted_until_inputs_are(tmp_path):
    with Run(str(tmp_path)) as run:
        assert run.counts.format() == "nothing to do"
        run.summaries = [
            summary_of("index_videos", ready=2, done=[unit_of("new", "videos")], failed=[unit_of("bad", "videos")]),
            summary_of("embed_faces", ready=1, done=[unit_of("new")], quarantined=[unit_of("odd")], in_part=["old"]),
        ]
        assert run.counts == count_units(run.summaries, skipped=0)
        assert run.counts.format() == "3 up to date, 2 done, 1 failed, 1 quarantined, 1 used in part"
        found = run.count_inputs({"old", "new", "odd", "bad"}, noun="video", verb="extracted", waiting=1)
        assert (found.up_to_date, found.done, found.failed, found.quarantined) == ({"old"}, {"new"}, {"bad"}, {"odd"})
        text = "5 videos: 1 up to date, 1 extracted, 1 failed, 1 quarantined, 1 waiting, 1 used in part"
        assert run.counts.describe() == text


def test_subjects_count_as_the_videos_that_they_are_in(tmp_path):
    with Run(str(tmp_path)) as run:
        run.summaries = [summary_of("embed_faces", done=[unit_of("two")], failed=[unit_of("two_left")])]
        found = run.count_inputs({"two", "one"}, noun="video", verb="extracted", videos={"two_left": "two"})
        assert found.failed == {"two"} and found.up_to_date == {"one"} and not found.done
        assert run.counts.total == 2
