import os
from pathlib import Path

import pytest

from data_contracts.files.local import UNFINISHED, files_at
from data_contracts.files.locations import location
from data_contracts.store.store import Store


def check(place):
    files = files_at(location(place))
    with files.replacing_path("a b.mp4") as path, open(path, "wb") as file:
        file.write(b"first")
    assert files.read("a b.mp4") == b"first"
    with pytest.raises(RuntimeError), files.replacing_path("a b.mp4") as path:
        with open(path, "wb") as file:
            file.write(b"second, in part")
        raise RuntimeError("killed")
    assert files.read("a b.mp4") == b"first", "the file is replaced as a whole or not at all"


def test_a_local_file_is_replaced_as_a_whole(tmp_path):
    check(str(tmp_path))
    assert not list((tmp_path / ".unfinished").iterdir())


def test_a_file_on_s3_is_replaced_as_a_whole(s3_bucket):
    check(f"{s3_bucket}/store")


def test_another_process_may_remove_the_folder_of_unfinished_files_while_it_is_empty(tmp_path, monkeypatch):
    """As a command does that records a copy while its workers begin others."""
    files, make_folders, removed = files_at(tmp_path), os.makedirs, []

    def make_folders_and_remove_them_once(path, **options):
        make_folders(path, **options)
        if os.path.basename(path) == UNFINISHED and not removed:
            removed.append(path)
            os.rmdir(path)

    monkeypatch.setattr(os, "makedirs", make_folders_and_remove_them_once)
    with files.replacing_path("a.mp4") as path:
        Store(tmp_path).write_alone("record", b"")
        Path(path).write_bytes(b"copy")
    assert removed and files.read("a.mp4") == b"copy"
