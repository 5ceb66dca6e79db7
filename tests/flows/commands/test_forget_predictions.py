"""Folders of predictions in affwild2 forget: recorded, moved, away, damaged, or without permission."""

import os
import shutil
import subprocess
import threading
import time

import pytest

from data_contracts.errors import InputError
from data_contracts.files.inputs import file_state
from data_contracts.files.locations import location
from data_contracts.store.lock import lock_folder
from data_contracts.store.store import Store
from flows.commands.forget import forget
from flows.commands.parameters import ForgetParameters
from tasks.results.prediction_folder import (
    RECORD,
    PredictionRecord,
    note_folder,
    noted_folders,
    prediction_files,
    write_record,
)
from tests.flows.commands.conftest import mentions
from tests.processes import program


def forget_clip(store, **options):
    return forget(ForgetParameters(["clip"], str(store), **options))


@pytest.fixture
def scored(generated, tmp_path):
    """The generated store with predictions in two folders."""
    store, _ = generated
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        write_predictions_of(Store(store), folder)
    return store, *folders


def write_predictions_of(store, out):
    """Write predictions of both clips, without a head: their files, record and entry in the list."""
    target = Store(out)
    note_folder(store, target)
    names = ("clip", "clip_left")
    for name in names:
        for file in prediction_files(name):
            target.write_bytes(file, name.encode())
    files = {name: tuple(file_state(location(target.locate(f))) for f in prediction_files(name)) for name in names}
    write_record(target, {name: PredictionRecord(made_from="a" * 64, files=files[name]) for name in names})


def lines_not_removed(capsys):
    return [line.removeprefix("not removed: ") for line in capsys.readouterr().err.splitlines()]


def test_predictions_are_removed_from_recorded_and_named_folders(scored, tmp_path, capsys):
    store, first, second = scored
    moved = first.rename(tmp_path / "moved")
    assert forget_clip(store) == 1
    assert mentions("clip.", second) == [] and (second / "clip_left.csv").exists()
    assert (moved / "clip.csv").exists(), "the new place of the folder is unknown"
    (line,) = lines_not_removed(capsys)
    assert line.startswith(f"{first}: expected a folder of predictions, found nothing there; ")

    assert forget_clip(store, out=moved, drop_folders=[str(first)]) == 0
    assert mentions("clip.", moved) == [] and (moved / "clip_left.csv").exists()
    assert noted_folders(Store(store)) == [str(second), str(moved)], "the next call finds the new place"
    assert f"dropped from the list of folders: {first}; predictions that may be there remain" in capsys.readouterr().out


def test_folders_that_a_run_writes_to_are_waited_for(scored, capsys):
    store, _, second = scored
    command, errors = threading.Thread(target=forget_clip, args=(store,)), ""
    with lock_folder(Store(second), on_wait=pytest.fail):
        command.start()
        while "is using this folder; waiting until it ends" not in errors and command.is_alive():
            time.sleep(0.01)
            errors += capsys.readouterr().err
        assert (second / "clip.csv").exists()
    command.join()
    assert mentions("clip.", second) == []


def make_empty(folder):
    folder.mkdir()


def make_other(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("another disk")


@pytest.mark.parametrize(
    ("replace", "cause"),
    [
        (make_empty, "expected a folder of predictions, found an empty folder"),
        (make_other, "expected a folder of predictions, found a folder without them"),
        (lambda folder: folder.write_text(""), "expected a folder of predictions, found a file"),
        (lambda folder: folder.symlink_to(folder), "expected a folder of predictions, got: Too many levels"),
    ],
)
def test_a_folder_that_is_away_is_listed_and_found_again_later(replace, cause, scored, tmp_path, capsys):
    """An unmounted disk leaves an empty mount point, another disk may be mounted there."""
    store, first, second = scored
    away = first.rename(tmp_path / "away")
    replace(first)
    assert forget_clip(store, dry_run=True) == 1 and mentions("clip.", second)
    lines_not_removed(capsys)
    assert forget_clip(store) == 1
    assert mentions("clip.", second) == [] and not list(store.rglob("*=clip"))
    (line,) = lines_not_removed(capsys)
    assert line.startswith(f"{first}: {cause}") and "--drop-folder" in line
    shutil.rmtree(first) if first.is_dir() and not first.is_symlink() else first.unlink()
    away.rename(first)
    assert forget_clip(store) == 0, "the same command finishes"
    assert mentions("clip.", first) == [] and (first / "clip_left.csv").exists()


def test_without_any_folder_the_store_is_emptied(scored, tmp_path, capsys):
    store, *folders = scored
    for folder in folders:
        folder.rename(tmp_path / f"{folder.name}-away")
    assert forget_clip(store) == 1
    assert len(lines_not_removed(capsys)) == 2 and not list(store.rglob("*=clip"))
    assert forget(ForgetParameters(None, str(store), drop_folders=[str(folder) for folder in folders])) == 0
    assert noted_folders(Store(store)) == []
    with pytest.raises(InputError, match=r"--drop-folder .*first: expected a folder of the list in .*; it has: none"):
        forget(ForgetParameters(None, str(store), drop_folders=[str(folders[0])]))


def test_a_subject_whose_video_is_already_forgotten_is_found_in_a_folder(scored, tmp_path):
    """The predictions of a video with two people are named after them."""
    store, first, _ = scored
    target = Store(first)
    write_record(target, {f"pair{side}": PredictionRecord(made_from="b", files=()) for side in ("_left", "_right")})
    for side in ("_left", "_right"):
        (first / f"pair{side}.csv").write_text("")
    assert forget(ForgetParameters(["pair"], str(store))) == 0
    assert mentions("pair", first) == []


def test_a_dropped_folder_reports_what_remains(scored, capsys):
    store, first, second = scored
    assert forget(ForgetParameters(None, str(store), drop_folders=[f"{first}/"])) == 0
    assert f"dropped from the list of folders: {first}; predictions of 2 subjects remain" in capsys.readouterr().out
    assert forget_clip(store) == 0
    assert (first / "clip.csv").exists() and not (second / "clip.csv").exists()


def test_folders_leave_the_list_only_with_their_last_prediction(scored):
    store, first, second = scored
    (first / RECORD).unlink()
    forget(ForgetParameters(["clip", "clip_left"], str(store)))
    assert noted_folders(Store(store)) == [] and not (second / "clip.csv").exists() and not list(first.glob("clip*"))


def test_a_damaged_record_is_removed_with_the_name_in_it(scored):
    store, first, _ = scored
    (first / RECORD).write_text((first / RECORD).read_text().replace("aaa", "aab"))
    assert forget_clip(store) == 0
    assert mentions('clip"', first) == [] and mentions("clip.", first) == []
    assert (first / "clip_left.csv").exists() and str(first) in noted_folders(Store(store))


def test_a_folder_without_permission_is_listed(scored):
    """Root has every permission, unless it gives this capability up."""
    store, first, second = scored
    away = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    first.chmod(0o000)
    try:
        command = [*away, program("affwild2"), "forget", "clip", "--store", str(store)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finally:
        first.chmod(0o755)
    assert finished.returncode == 1, finished.stderr
    (line,) = finished.stderr.strip().splitlines()
    assert line.startswith(f"not removed: {first}: expected a folder of predictions, got: Permission denied; make it")
    assert (first / "clip.csv").exists() and not (second / "clip.csv").exists()
    assert not list(store.rglob("*=clip"))


def test_files_of_predictions_that_cannot_be_removed_are_listed(scored):
    store, first, second = scored
    away = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    first.chmod(0o555)
    (store / "reports" / "run").mkdir(parents=True)
    (store / "reports" / "run" / "index.html").write_text("<td>clip</td>")
    (store / "reports" / "run").chmod(0o555)
    try:
        command = [*away, program("affwild2"), "forget", "clip", "--store", str(store)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finally:
        first.chmod(0o755)
        (store / "reports" / "run").chmod(0o755)
    assert finished.returncode == 1, finished.stderr
    of_folder, of_report = sorted(finished.stderr.strip().splitlines())
    assert str(first) in of_folder and "Permission denied" in of_folder
    assert f"{store}/reports/run/index.html: expected a file that can be removed" in of_report
    assert not (second / "clip.csv").exists() and not list(store.rglob("*=clip"))
