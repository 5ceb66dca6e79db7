"""The printed summary of persons."""

import pyarrow as pa
import pytest

from data_contracts.schemas.predictions import SUMMARY
from flows.engine import console
from flows.scoring.persons import print_persons


def table_of(*rows):
    return pa.Table.from_pylist(list(rows), schema=SUMMARY.schema)


def row(video, person, frames=1000, **values):
    empty = dict.fromkeys(SUMMARY.schema.names)
    return empty | {"video": video, "person": person, "frames": frames, "face_share": 0.98} | values


ALL = {
    **{"share_neutral": 0.2, "share_happiness": 0.7, "share_anger": 0.1, "rate_au1": 0.0, "rate_au12": 0.66},
    **{f"{name}_{kind}": value for name in ("valence", "arousal") for kind, value in
       (("mean", 0.314), ("min", -0.75), ("max", 1.0))},
}  # fmt: skip


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(console, "_WIDTH", 80)


def test_the_table_fits_80_columns_and_has_no_cut_numbers(narrow, capsys):
    long_name = row("a_video_with_a_long_name_of_the_lab_2022", 1, 123456, **ALL)
    print_persons(table_of(long_name, row("b", None, 3), row("c", 2, is_short_track=True)), "out")
    printed = capsys.readouterr().out
    assert "person 2* " in printed and "* seen in fewer than 25 frames" in printed
    assert max(map(len, printed.splitlines())) <= 80
    for text in ("123,456", "98% face", "Happiness 70%", "Neutral 20%", "+0.31", "-0.8..+1.0", "AU12 66%", "no face"):
        assert text in printed
    assert printed.splitlines()[-1] == "all columns: out/tables/summary.csv"


def test_columns_without_values_are_left_out(narrow, capsys):
    print_persons(table_of(row("clip", 1, share_neutral=1.0)), "out")
    printed = capsys.readouterr().out
    assert "valence" not in printed and "units" not in printed and "Neutral 100%" in printed


def test_of_crowds_and_many_videos_the_most_seen_persons_are_shown(narrow, capsys):
    crowd = [row("crowd", person, frames=person) for person in range(1, 61)]
    print_persons(table_of(*crowd, *(row(f"v{number:03d}", 1) for number in range(1000))), "out")
    printed = capsys.readouterr().out
    assert all(f"person {person} " in printed for person in (58, 59, 60)) and "person 57 " not in printed
    assert printed.count("person ") == 12 and "v008" in printed and "v009" not in printed
    print_persons(table_of(*crowd), "out")
    assert "person 49 " in capsys.readouterr().out, "of one video, more persons are shown"
    assert "1,048 more rows, and all columns: out/tables/summary.csv" in printed
