import os

from data_contracts.store.arrivals import (
    SEEN_FOLDER,
    count_known_skipped,
    forget_seen,
    remember_skipped,
    split_settled,
)
from data_contracts.store.store import Store

NOW = 1_800_000_000.0


def file_at(path, *, age_seconds=1000.0, size=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - age_seconds, NOW - age_seconds))
    return path


def arrivals(tmp_path, now, **videos):
    found = split_settled(Store(tmp_path / "store"), videos, roots=[tmp_path], settle_seconds=60, now=now)
    assert {**found.settled, **{stem: path for stem, (path, _) in found.waiting.items()}} == videos
    return list(found.settled), {stem: why for stem, (_, why) in found.waiting.items()}


def test_file_waits_until_its_last_change_is_old_enough(tmp_path):
    old, young = file_at(tmp_path / "old.mp4"), file_at(tmp_path / "young.mp4", age_seconds=5, size=1234)
    settled, waiting = arrivals(tmp_path, NOW, old=old, young=young)
    assert settled == ["old"] and waiting == {"young": "1,234 bytes, changed 5 s ago"}
    assert arrivals(tmp_path, NOW + 54, old=old, young=young)[0] == ["old"]
    assert arrivals(tmp_path, NOW + 55, old=old, young=young)[0] == ["old", "young"]
    assert not list((tmp_path / "store" / SEEN_FOLDER).iterdir()), "nothing needs to be remembered"


def test_file_with_a_time_in_the_future_waits_until_it_was_seen_unchanged_for_long_enough(tmp_path):
    ahead = file_at(tmp_path / "ahead.mp4", age_seconds=-7200)
    _, waiting = arrivals(tmp_path, NOW, ahead=ahead)
    assert waiting == {"ahead": "3 bytes, changed 7200 s in the future"}
    assert arrivals(tmp_path, NOW + 1, ahead=ahead)[0] == [], "two runs within a second tell nothing"
    assert arrivals(tmp_path, NOW + 60, ahead=ahead)[0] == ["ahead"]
    assert arrivals(tmp_path, NOW + 61, ahead=ahead)[0] == ["ahead"], "it stays so"
    file_at(ahead, age_seconds=-7200, size=4)
    assert arrivals(tmp_path, NOW + 200, ahead=ahead)[0] == [], "it grew"
    assert arrivals(tmp_path, NOW - 9, ahead=ahead)[0] == [], "our clock was put back"
    assert arrivals(tmp_path, NOW + 51, ahead=ahead)[0] == ["ahead"]


def test_remembered_files_are_sealed_and_can_be_forgotten(tmp_path):
    videos = {stem: file_at(tmp_path / f"{stem}.mp4", age_seconds=-99) for stem in ("a", "b")}
    arrivals(tmp_path, NOW, **videos)
    (place,) = (tmp_path / "store" / SEEN_FOLDER).iterdir()
    assert forget_seen(Store(tmp_path / "store"), "a") == 1 and forget_seen(Store(tmp_path / "store"), "a") == 0
    assert "b.mp4" in place.read_text() and "a.mp4" not in place.read_text()
    place.write_text(place.read_text().replace("b.mp4", "c.mp4"))
    assert arrivals(tmp_path, NOW + 70, **videos)[0] == [], "edited by hand: not believed"


def test_missing_file_counts_as_settled(tmp_path):
    assert arrivals(tmp_path, NOW, gone=tmp_path / "gone.mp4") == (["gone"], {})


def test_skipped_files_are_remembered_by_digests_of_their_paths(tmp_path):
    store, roots, paths = Store(tmp_path / "store"), [tmp_path], [f"{tmp_path}/a.xyz", f"{tmp_path}/b\udcff.xyz"]
    assert count_known_skipped(store, roots, paths) == 0
    remember_skipped(store, roots, paths)
    assert count_known_skipped(store, roots, [*paths, "new.xyz"]) == 2
    assert count_known_skipped(store, [tmp_path / "other"], paths) == 0, "other folders have their own"
    (place,) = (tmp_path / "store" / SEEN_FOLDER).iterdir()
    assert "a.xyz" not in place.read_text()
    remember_skipped(store, roots, paths[:1])
    assert count_known_skipped(store, roots, paths) == 1, "a file that comes back is new"
    remember_skipped(store, roots, [])
    assert list((tmp_path / "store" / SEEN_FOLDER).iterdir()) == []
