import pytest

from data_contracts.files.local import files_at
from data_contracts.files.locations import location


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
