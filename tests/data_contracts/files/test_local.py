import errno
import os
import subprocess
import sys

import pytest

from data_contracts.errors import InputError, StoreError
from data_contracts.files.local import LocalFiles, check_output_folder, raise_store_error, replacing_file


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target, unfinished = tmp_path / "deep" / "file", tmp_path / "unfinished"
    for text in (b"one", b"two"):
        with replacing_file(str(target), unfinished=str(unfinished)) as file:
            file.write(text)
        assert target.read_bytes() == text
    with pytest.raises(KeyError), replacing_file(str(target), unfinished=str(unfinished)) as file:
        file.write(b"half")
        raise KeyError
    assert target.read_bytes() == b"two" and list(unfinished.iterdir()) == []


def test_a_file_in_place_of_a_folder_is_an_error_with_instructions(tmp_path):
    (tmp_path / "store").write_text("a file")
    target = str(tmp_path / "store" / "faces" / "part")
    unfinished = str(tmp_path / "store" / "unfinished")
    with (
        pytest.raises(StoreError, match="expected a folder that can be written"),
        replacing_file(target, unfinished=unfinished),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, StoreError, "make room"),
        (errno.EDQUOT, StoreError, "make room"),
        (errno.EROFS, StoreError, "choose another folder"),
        (errno.ENAMETOOLONG, InputError, "expected a shorter name"),
    ],
)
def test_failed_writes_are_errors_with_instructions(number, kind, message):
    with pytest.raises(kind, match=message):
        raise_store_error(OSError(number, "reason"), "/store/part")


def test_other_errors_are_not_translated():
    raise_store_error(OSError(errno.EIO, "reason"), "/store/part")
    raise_store_error(PermissionError(errno.EACCES, "reason", "/videos/a.mp4"), "/store/part")


_WRITE = """
import sys
from data_contracts.errors import StoreError
from data_contracts.store.store import Store

try:
    Store(sys.argv[1]).write_bytes("faces/part", b"x" * 400_000)
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [("ro", "expected a folder that can be written, got {store}/"), ("size=100k", "expected space to write {store}/")],
)
def test_read_only_and_full_disks(tmp_path, options, message):
    """Uses a file system in a mount namespace, which ends with the process."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    script = f"mount -t tmpfs -o {options} tmpfs '{tmp_path}' && exec '{sys.executable}' -c '{_WRITE}' '{tmp_path}'"
    finished = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True, check=True)
    assert message.format(store=tmp_path) in finished.stdout and len(finished.stdout.splitlines()) == 1


def test_states_of_all_files_below_a_folder(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a").write_bytes(b"123")
    (tmp_path / "data" / "b").write_bytes(b"")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "gone").symlink_to(tmp_path / "nowhere")
    files = LocalFiles(str(tmp_path))
    before = dict(files.iter_states("data"))
    assert {path: state.size_bytes for path, state in before.items()} == {"data/deep/a": 3, "data/b": 0}
    replacement = tmp_path / "new"
    replacement.write_bytes(b"456")
    replacement.replace(tmp_path / "data" / "deep" / "a")
    after = dict(files.iter_states("data"))
    assert after["data/b"] == before["data/b"] and after["data/deep/a"] != before["data/deep/a"]
    assert list(files.iter_states("typo")) == list(files.iter_states("data/b")) == []


def test_a_folder_for_results_is_checked_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    check_output_folder(tmp_path / "new" / "folder")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"expected a folder for results, got the file .*/file; choose another"):
            check_output_folder(place)
    assert not (tmp_path / "new").exists()
