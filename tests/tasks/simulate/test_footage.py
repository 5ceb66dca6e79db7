"""Videos and crops of simulated subjects, read by the product's own readers."""

from dataclasses import replace

import numpy as np
import pytest

from data_contracts.challenge.crops import list_crops
from data_contracts.challenge.layout import find_data, subjects_of_videos
from data_contracts.video.packets import index_video
from data_contracts.vocabulary import ACTION_UNITS
from tasks.simulate.footage import claim_frames, has_footage, write_footage
from tasks.simulate.labels import SubjectLabels
from tasks.simulate.plan import plan_simulation


def labels_of(subject):
    """Return action units that change four times."""
    units = np.zeros((subject.frames, len(ACTION_UNITS)), np.int8)
    for first in range(0, subject.frames, subject.frames // 4 + 1):
        units[first:, first % len(ACTION_UNITS)] ^= 1
    units[-1] = -1
    return SubjectLabels({"au": units}, np.empty(0, np.int32), {})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The shortest pair of two people in a video with a wrong container, and the shortest MP4 with gaps."""
    plan = plan_simulation(0.001, 0)
    by_length = sorted(plan.subjects, key=lambda subject: subject.frames)
    left = next(s for s in by_length if s.name.endswith("_left") and s.container_count != s.frames)
    pair = [s for s in plan.subjects if s.video == left.video]
    whole = [subject for subject in by_length if subject.name == subject.video and subject.missing_count]
    single = next(s for s in whole if s.number % 2 == 0 and s.container_count == s.frames)
    few = replace(plan, subjects=(*pair, single))
    root, seen = tmp_path_factory.mktemp("data"), []
    write_footage(root, few, labels_of, advance=seen.append)
    return root, few, seen


def test_containers_claim_the_frames_of_the_plan_and_hold_all_of_them(written):
    root, plan, seen = written
    videos = find_data(root).videos
    assert {path.suffix for path in videos.values()} == {".avi", ".mp4"}
    assert seen == list(dict.fromkeys(subject.video for subject in plan.subjects))
    for subject in plan.subjects:
        index = index_video(videos[subject.video])
        assert (index.frame_count, index.claimed_frame_count) == (subject.frames, subject.container_count)
        assert index.problem is None
    assert any(subject.frames > subject.container_count for subject in plan.subjects)


def test_crops_exist_for_the_frames_of_the_plan(written):
    root, plan, _ = written
    layout = find_data(root)
    assert set(layout.crops) == {"cropped", "cropped_aligned"}
    for folders in layout.crops.values():
        listing = list_crops(folders)
        assert listing.account.lost == 0
        assert set(listing.subjects) == {subject.name for subject in plan.subjects}
        for subject in plan.subjects:
            frames = [crop.frame for crop in listing.subjects[subject.name]]
            assert frames == (np.flatnonzero(~plan.missing(subject)) + 1).tolist()
            assert listing.subjects[subject.name][0].path.endswith(f"{frames[0]:05d}.jpg")
    pair = tuple(subject.name for subject in plan.subjects[:2])
    assert subjects_of_videos(layout) == {plan.subjects[0].video: pair}


def test_a_repeated_call_writes_only_what_is_missing(written):
    root, plan, _ = written
    paths = sorted((root / "videos").iterdir())
    before, times = [path.read_bytes() for path in paths], [path.stat().st_mtime_ns for path in paths]
    paths[0].unlink()
    (root / ".unfinished.mp4").write_bytes(b"what a killed process left")
    write_footage(root, plan, labels_of)
    assert [path.read_bytes() for path in paths] == before
    assert paths[1].stat().st_mtime_ns == times[1]
    assert not list(root.glob(".*"))


def test_large_data_sets_have_no_footage():
    assert has_footage(plan_simulation(0.003, 0))
    assert not has_footage(plan_simulation(0.01, 0))


def test_only_avi_files_get_another_count(tmp_path):
    path = tmp_path / "clip.avi"
    path.write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="expected an AVI file"):
        claim_frames(path, 3)
