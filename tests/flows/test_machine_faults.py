"""Nights with a fault of the machine, and one after the repair: no video is quarantined, and all are scored then."""

import os
import re
import subprocess

import pytest

from data_contracts.store.store import Store
from tests.processes import program
from tests.video_factory import VideoSpec, write_video

_OLD = 1_700_000_000
_NIGHTS = 3
# A folder of 64 kB, in which no converted network fits. Only the command and its workers see it.
_SMALL_DISK = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"')
_FAULTS = {
    "full cache disk": ((*_SMALL_DISK, "{cache}"), {}, "embed_segments: all 2 units .*iostream error"),
    "memory limit": (("prlimit", "--as=2400000000"), {}, "embed_segments: all 2 units .*out of memory: "),
    "wrong setting": ((), {"AFFWILD2_VIDEO_LIMITS": "pixels=100"}, "index_videos: all 2 units .* at most 100 pixels"),
}


@pytest.mark.service
@pytest.mark.parametrize("fault", _FAULTS)
def test_a_fault_of_the_machine_quarantines_no_video(tmp_path, fault):
    prefix, environment, message = _FAULTS[fault]
    (tmp_path / "videos").mkdir()
    (tmp_path / "cache").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "videos" / name, VideoSpec(frame_count=2, width_px=64, height_px=48))
        os.utime(tmp_path / "videos" / name, (_OLD, _OLD))
    store = tmp_path / "store"

    def rescore(prefix=(), environment=None):
        command = [program("affwild2"), "rescore", tmp_path / "videos", "--store", store, "--out", tmp_path / "out"]
        env = os.environ | {"AFFWILD2_CACHE": str(tmp_path / "cache")} | (environment or {})
        return subprocess.run([*prefix, *command], capture_output=True, text=True, env=env, timeout=800, check=False)

    prefix = [part.format(cache=tmp_path / "cache") for part in prefix]
    for _ in range(_NIGHTS):
        night = rescore(prefix, environment)
        (line,) = [line for line in night.stderr.splitlines() if line.startswith("affwild2: ")]
        assert night.returncode == 1 and "2 failed" in line and "; a fault of the machine; first: " in line
        assert re.search(message, line)
    repaired = rescore()
    assert repaired.returncode == 0 and "2 videos: 2 scored" in repaired.stdout
    assert Store(store).failures("videos") == Store(store).failures("face_features") == {}


@pytest.mark.service
def test_workers_that_cannot_start_are_reported_in_one_line(tmp_path):
    """Too few open files: the run ends before any unit."""
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "videos" / name, VideoSpec(frame_count=2, width_px=64, height_px=48))
    command = [program("affwild2"), "score", tmp_path / "videos", "--out", tmp_path / "out", "--workers", "2"]
    night = subprocess.run(
        ["prlimit", "--nofile=36", *command], capture_output=True, text=True, timeout=600, check=False
    )
    (line,) = [line for line in night.stderr.splitlines() if line.startswith("affwild2: ")]
    assert night.returncode == 2 and "Traceback" not in night.stderr
    assert "expected local workers to start, got: " in line and "check the limits of open files" in line


@pytest.mark.service
def test_a_folder_of_predictions_on_a_read_only_disk_is_reported_as_such(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "out").mkdir()
    read_only = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o ro tmpfs "$0" && exec "$@"', tmp_path / "out")
    command = [program("affwild2"), "rescore", tmp_path / "videos", "--store", tmp_path / "store"]
    night = subprocess.run(
        [*read_only, *command, "--out", tmp_path / "out"], capture_output=True, text=True, timeout=600, check=False
    )
    assert night.returncode == 2 and len(night.stderr.splitlines()) == 1
    assert f"expected a folder that can be written, got a read-only disk at {tmp_path / 'out'}" in night.stderr
