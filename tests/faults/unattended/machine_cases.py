"""Faults of disks, memory, weights, the clock, and the folder of videos."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.faults.unattended.case import Case
from tests.faults.unattended.lab import command_of, set_age
from tests.faults.unattended.small_disk import missing_for_mounts, small_disk
from tests.faults.unattended.trial import Trial

# As often as a video may fail before it is quarantined.
_TRIES = 3
_ADDRESS_SPACE_BYTES = 3_200_000_000


def _full_cache(trial: Trial) -> None:
    with small_disk(trial.folder / "cache", "1m"):
        trial.run_with_fault(_TRIES, AFFWILD2_CACHE=str(trial.folder / "cache"))


def _full_store(trial: Trial) -> None:
    with small_disk(trial.store, "400k"):
        trial.run_with_fault(to_the_end=True)


def _full_out(trial: Trial) -> None:
    with small_disk(trial.out, "16k"):
        trial.run_with_fault(to_the_end=True)


def _read_only_store(trial: Trial) -> None:
    with small_disk(trial.store, "100m") as remount:
        remount("ro")
        trial.run_with_fault()


def _full_temporary_folder(trial: Trial) -> None:
    with small_disk(trial.folder / "tmp", "4k"):
        (trial.folder / "tmp" / "full").write_bytes(bytes(4096))
        trial.run_with_fault(TMPDIR=str(trial.folder / "tmp"))


def _little_memory(trial: Trial) -> None:
    """Limit the memory of local workers to what they need before they load a network."""

    def workers() -> list[psutil.Process]:
        return [one for one in trial.lab.processes_of(trial.run) if "forkserver" in command_of(one)]

    def wait() -> None:
        trial.wait_until(lambda: bool(workers()), "the process that workers are forked from")

    with trial.fault_during_a_run(wait, to_the_end=True):
        for process in workers():
            process.rlimit(psutil.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))


def _missing_weights(trial: Trial) -> None:
    trial.parameters["weights"] = str(trial.folder / "missing.safetensors")
    trial.run_with_fault()
    del trial.parameters["weights"]


def _damaged_weights(trial: Trial) -> None:
    damaged = trial.folder / "damaged.safetensors"
    damaged.write_bytes(bytes(1000))
    trial.parameters["weights"] = str(damaged)
    trial.run_with_fault()
    del trial.parameters["weights"]


def _weights_not_fetched(trial: Trial) -> None:
    trial.parameters["backbone"] = "enet_b0_8_best_vgaf"
    trial.run_with_fault(AFFWILD2_CACHE=str(trial.folder / "cache"))
    del trial.parameters["backbone"]


def _damaged_cache(trial: Trial) -> None:
    """Truncate every file of the cache, as a crash of the machine may leave it."""
    cache = trial.folder / "cache"
    videos = trial.parameters["videos"]
    trial.parameters["videos"] = [str(trial.videos / "train01.mp4")]
    trial.run_with_fault(to_the_end=True, AFFWILD2_CACHE=str(cache))
    for path in filter(Path.is_file, cache.rglob("*")):
        os.truncate(path, path.stat().st_size // 2)
    trial.parameters["videos"] = videos
    for _ in range(_TRIES):
        trial.run_with_fault(AFFWILD2_CACHE=str(cache))
        if trial.shown and trial.shown.type == "COMPLETED":
            break


@contextlib.contextmanager
def _unmounted(trial: Trial) -> Iterator[None]:
    """Let the folder of videos be empty."""
    away = trial.videos.rename(trial.folder / "away")
    trial.videos.mkdir()
    yield
    trial.videos.rmdir()
    away.rename(trial.videos)


def _no_folder(trial: Trial) -> None:
    away = trial.videos.rename(trial.folder / "away")
    trial.run_with_fault()
    away.rename(trial.videos)


def _unmounted_after_a_run(trial: Trial) -> None:
    trial.start()
    trial.watch()
    with _unmounted(trial):
        trial.run_with_fault()


def _unmounted_during_a_run(trial: Trial) -> None:
    for _ in range(_TRIES):
        with contextlib.ExitStack() as stack, trial.fault_during_a_run(trial.wait_for_list, to_the_end=True):
            stack.enter_context(_unmounted(trial))
        shutil.rmtree(trial.store / "inputs")
    trial.note = f"after {_TRIES} runs like this"


def _clock_set_back(trial: Trial) -> None:
    """Let the videos be from the future, as they seem after the clock is set back by a day."""
    for path in trial.videos.iterdir():
        set_age(path, -86_400)
    trial.run_with_fault()
    time.sleep(61)


def _truncated_video(trial: Trial) -> None:
    video = trial.videos / "train02.avi"
    os.truncate(video, video.stat().st_size // 2)
    set_age(video)
    trial.run_with_fault()


@contextlib.contextmanager
def _restored(video: Path) -> Iterator[None]:
    """Write the content of a video again after the block."""
    content = video.read_bytes()
    yield
    video.write_bytes(content)
    set_age(video)


def _damaged_video(trial: Trial) -> None:
    """A video that fails in three runs is quarantined; a good file of the same name is scored."""
    video = trial.videos / "train01.mp4"
    with _restored(video):
        video.write_bytes(bytes(10_000))
        set_age(video)
        trial.run_with_fault(_TRIES + 1)
    trial.note += ", the file is restored"


def _replaced_video(trial: Trial) -> None:
    """Replace a video while it is read."""
    video, other = trial.videos / "train03.mp4", trial.folder / "other.mp4"
    shutil.copyfile(trial.videos / "train01.mp4", other)
    with _restored(video), trial.fault_during_a_run():
        other.replace(video)


def _deleted_video(trial: Trial) -> None:
    video = trial.videos / "train03.mp4"
    with _restored(video), trial.fault_during_a_run(trial.wait_for_list):
        video.unlink()


CASES = (
    Case("cache disk full", _full_cache, message="disk of the cache", needs=missing_for_mounts, ended_within=300),
    Case("store disk full", _full_store, message="[Nn]o space", needs=missing_for_mounts),
    Case("disk of the predictions full", _full_out, message="[Nn]o space", needs=missing_for_mounts),
    Case("store read-only", _read_only_store, message="[Rr]ead-only", needs=missing_for_mounts),
    Case("temporary folder full", _full_temporary_folder, ("FAILED", "COMPLETED"), needs=missing_for_mounts),
    Case("too little memory", _little_memory, message="[Mm]emory", ended_within=300),
    Case("weights missing", _missing_weights, message="missing.safetensors"),
    Case("weights damaged", _damaged_weights, message="damaged.safetensors"),
    Case("weights not downloaded", _weights_not_fetched, message="affwild2 models fetch enet_b0_8_best_vgaf"),
    Case("cached networks damaged", _damaged_cache, ("COMPLETED", "FAILED")),
    Case("folder of videos missing", _no_folder, message="expected a .*folder"),
    Case("folder of videos unmounted (empty)", _unmounted_after_a_run, ("COMPLETED", "FAILED"), message="3|no video"),
    Case("folder of videos unmounted during a run", _unmounted_during_a_run, message="3 (failed|units)"),
    Case("clock set back (videos of tomorrow)", _clock_set_back, ("COMPLETED",), message="3 waiting"),
    Case("a video is truncated", _truncated_video, message="train02", without=("train02",)),
    Case("a video is damaged", _damaged_video, ("COMPLETED",), message="1 quarantined", next_message="1 scored"),
    Case("a video is replaced while it is read", _replaced_video, message="1 failed"),
    Case("a video is deleted during a run", _deleted_video, message="1 failed|1 skipped"),
)
