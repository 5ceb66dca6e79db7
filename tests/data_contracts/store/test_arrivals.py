import os

import pytest

from data_contracts.challenge.layout import find_data
from data_contracts.errors import InputError
from data_contracts.store.arrivals import SEEN_FOLDER, forget_seen, list_videos, split_settled
from data_contracts.store.store import Store
from data_contracts.video.packets import index_video
from flows.score import find_videos

NOW = 1_800_000_000.0


def file_at(path, *, age_seconds=1000.0, size=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - age_seconds, NOW - age_seconds))
    return path


def test_videos_of_all_subfolders_are_listed_without_hidden_and_excluded_folders(tmp_path):
    for name in ("a.mp4", "day 1/b.MKV", "day 1/deep/c.avi", ".hidden/d.mp4", "day 1/.e.mp4", "notes.txt"):
        file_at(tmp_path / name)
    file_at(tmp_path / "out" / "store" / "f.mp4")
    (tmp_path / "folder.mp4").mkdir()
    os.symlink(tmp_path / "a.mp4", tmp_path / "day 1" / "a.mp4")
    os.symlink(tmp_path, tmp_path / "day 1" / "round")
    found = list_videos([tmp_path], leave_out=[tmp_path / "out"])
    assert {stem: path.name for stem, path in found.videos.items()} == {"a": "a.mp4", "b": "b.MKV", "c": "c.avi"}
    assert found.twins == {} and found.unreadable == []
    (tmp_path / "empty").mkdir()
    assert list_videos([tmp_path / "empty"]).videos == {}


def test_broken_links_count_as_videos(tmp_path):
    videos = tmp_path / "videos"
    file_at(tmp_path / "elsewhere" / "real.mp4")
    videos.mkdir()
    (videos / "link.mp4").symlink_to(tmp_path / "elsewhere" / "real.mp4")
    (videos / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (videos / "round.mp4").symlink_to("round.mp4")
    (videos / "folder.mp4").symlink_to(tmp_path / "elsewhere")
    (videos / "elsewhere").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(videos / "pipe.mp4")
    wanted = {name: videos / f"{name}.mp4" for name in ("link", "lost", "round")}
    assert list_videos([videos]).videos == wanted == find_data(videos).videos == find_videos([videos])
    causes = []
    for path in (wanted["lost"], wanted["round"], videos / "pipe.mp4"):
        with pytest.raises(InputError) as caught:
            index_video(path)
        causes.append(str(caught.value).removeprefix(f"{path}: expected a video file, got "))
    advice = "which does not exist; repair the link or remove it"
    assert causes[:2] == [f"a link to {tmp_path / 'nowhere.mp4'}, {advice}", f"a link to round.mp4, {advice}"]
    assert causes[2] == "a pipe or a device; leave it out"


def test_files_with_the_same_stem_are_reported_and_skipped(tmp_path):
    pair = [file_at(tmp_path / "a.mp4"), file_at(tmp_path / "sub" / "a.avi")]
    file_at(tmp_path / "b.mp4")
    found = list_videos([tmp_path, tmp_path / "sub"])
    assert list(found.videos) == ["b"] and found.twins == {"a": tuple(sorted(pair))}


def test_invalid_paths_are_reported_in_one_line(tmp_path):
    with pytest.raises(InputError, match="found nothing there"):
        list_videos([tmp_path / "typo"])
    with pytest.raises(InputError, match="got another file"):
        list_videos([file_at(tmp_path / "clip.txt")])


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
