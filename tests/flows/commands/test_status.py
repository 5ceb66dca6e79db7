import contextlib
import json
import os
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.files.account import InputAccount
from data_contracts.store.input_accounts import write_account
from data_contracts.store.manifest import Failure, UnitKey
from data_contracts.store.store import Store
from flows.commands.exit_codes import guarded
from flows.commands.parameters import ReportParameters, StatusParameters
from flows.commands.status import print_status
from flows.pages.report import write_store_report
from tests.processes import free_port, run_command
from tests.s3_server import s3_environment


@contextlib.contextmanager
def without_rights(folder):
    """Deny this process access to a folder, also if it runs as root."""
    folder.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.fixture
def store():
    # Other users may not enter the folder of tmp_path.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        store = Store(Path(folder, "store"))
        store.note_failure(UnitKey("videos", (("video", "clip"),)), Failure("f", "empty"))
        yield store


@pytest.mark.parametrize("denied", ["", "videos"])
def test_an_unreadable_folder_is_reported_in_one_line(store, capsys, denied):
    folder = Path(store.root, denied)
    print_status(StatusParameters(store.url))
    capsys.readouterr()
    with without_rights(folder):
        assert guarded(lambda: print_status(StatusParameters(store.url))) == 2
        assert guarded(lambda: write_store_report(ReportParameters(store.url))) == 2
    line = f"affwild2: {folder}: expected permission to use it, got: Permission denied; change its permissions"
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2 and all(found.startswith(line) for found in printed), printed


def test_a_file_is_not_a_store(tmp_path, capsys):
    file = tmp_path / "store.txt"
    file.write_text("")
    assert guarded(lambda: print_status(StatusParameters(str(file)))) == 2
    assert (
        capsys.readouterr().err.strip()
        == f"affwild2: {file}: expected the folder of a store, got a file; pass the folder"
    )


def test_settings_of_each_head_are_shown(demo, capsys):
    print_status(StatusParameters(str(demo.store)))
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith("heads: ")}
    for folder in (demo.store / "heads").iterdir():
        details = json.loads((folder / "manifest.json").read_text())["details"]
        written = datetime.fromtimestamp((folder / "manifest.json").stat().st_mtime, UTC)
        line = lines.pop(folder.name)
        for text in (details["backbone"], details["source"], "recipe default", "kind mlp", f"{written:%Y-%m-%d %H:%M}"):
            assert text in line
        part = details["settings"]["parts"][0]
        assert f"features {part['features']}, hidden units {part['hidden_units']}, seeds {part['seeds']}" in line
    assert not lines


def test_files_skipped_in_a_folder_that_is_gone_do_not_count(tmp_path, capsys):
    store = Store(tmp_path / "store")
    (tmp_path / "data").mkdir()
    account = InputAccount("videos", tmp_path / "data")
    account.skip(tmp_path / "data" / "a.zip", "archives")
    write_account(store, account)
    assert print_status(StatusParameters(store.url)) == 1
    (tmp_path / "data").rmdir()
    assert print_status(StatusParameters(store.url)) == 0
    assert f"note: videos: {tmp_path / 'data'} no longer exists" in capsys.readouterr().out


@pytest.mark.service
@pytest.mark.parametrize("server", ["silent", "no server"])
def test_commands_that_only_read_answer_although_s3_does_not(server, tmp_path):
    commands = [
        ("status", "--store", "s3://lab/store"),
        ("report", "--store", "s3://lab/store"),
        ("forget", "clip", "--store", "s3://lab/store", "--dry-run"),
        ("download", "submission", "--store", "s3://lab/store", "--to", tmp_path),
        ("verify", "s3://lab/submission.zip"),
    ]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1] if server == "silent" else free_port()
        variables = s3_environment(f"http://127.0.0.1:{port}")
        started = time.monotonic()
        with ThreadPoolExecutor(len(commands)) as pool:
            ended = list(pool.map(lambda command: run_command(*command, environment=variables), commands))
        # Retrying for two minutes, as a run does, would take longer. All start at the same time here.
        assert time.monotonic() - started < 100
    for command, one in zip(commands, ended, strict=True):
        # The other lines say that the command is working.
        line, *progress = reversed(one.stderr.splitlines())
        assert all(" is working, " in text for text in progress), progress
        assert one.returncode == 2 and f"check AWS_ENDPOINT_URL_S3 (http://127.0.0.1:{port})" in line, (command, line)


def test_status_as_json_is_the_text_and_nothing_else_is_printed(demo):
    ended, quiet, text = (run_command("status", "--store", demo.store, *more) for more in (["--json"], ["--quiet"], []))
    status = json.loads(ended.stdout)
    assert ended.returncode == quiet.returncode == text.returncode == 1 and not ended.stderr
    assert list(status) == [
        *("command", "version", "store", "is_complete", "is_simulated", "simulated", "variants", "bundles"),
        *("reproduced_heads", "damaged", "failures", "problems", "inputs"),
    ]
    assert (status["command"], status["version"], status["is_complete"]) == ("status", 1, False)
    (failed,) = status["failures"]
    assert list(failed) == ["dataset", "unit", "cause", "tries", "since", "is_quarantined"]
    line = f"failed: videos corrupt: {failed['cause']}"
    assert line in text.stdout.splitlines() and quiet.stderr.splitlines() == [line]
    assert quiet.stdout == f"{demo.store}: 1 failed\n" == text.stdout.splitlines(keepends=True)[-1]
    videos = next(one for one in status["variants"] if one["dataset"] == "videos")
    assert list(videos) == [
        *("dataset", "variant", "units", "rows", "size_bytes", "seconds", "failed", "is_simulated"),
    ]
    assert videos["rows"] == videos["units"] and videos["failed"] == 1
    head = next(one for one in status["bundles"] if one["kind"] == "heads")
    assert f"heads: {head['name']} ({head['settings']}, {head['written']})" in text.stdout
    account = next(one["account"] for one in status["inputs"] if one["account"]["kind"] == "videos")
    assert account["found"] == account["used"] + sum(one["count"] for one in account["skipped"])
