import json
import subprocess
import sys

import pytest

from data_contracts.errors import InputError
from data_contracts.files.inputs import MAX_TEXT_BYTES, NO_FILE, file_state, read_lines, refresh_listings
from data_contracts.files.locations import location


def test_state_of_local_files(tmp_path):
    path = tmp_path / "x"
    assert file_state(path) == NO_FILE == (-1, -1)
    path.write_bytes(b"abc")
    assert json.dumps(file_state(path)) == f"[3, {path.stat().st_mtime_ns}]"


def test_local_inputs_do_not_import_s3fs():
    code = "import sys, data_contracts.files.inputs, data_contracts.files.local; import data_contracts.files.s3_lock\n"
    code += "from data_contracts.files.locations import location; location('/a')\n"
    code += "print(sorted({'upath', 's3fs', 'fsspec', 'pydantic', 'botocore'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_state_of_files_on_s3(s3_bucket):
    folder = location(s3_bucket) / "a"
    path = folder / "x"
    assert file_state(path) == NO_FILE
    path.write_bytes(b"abc")
    before = file_state(path)
    assert before.size_bytes == 3 and file_state(path, as_listed=True) == before and file_state(folder) == NO_FILE
    assert [found.name for found in folder.iterdir()] == ["x"]
    other_client = type(path.fs)(skip_instance_cache=True, **path.storage_options)
    other_client.pipe_file(path.path, b"abd")
    assert file_state(path, as_listed=True) == before and file_state(path) != before
    other_client.rm_file(path.path)
    assert file_state(path) == NO_FILE
    refresh_listings(path)
    assert file_state(path, as_listed=True) == NO_FILE


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa\r\n\r\nb\r\n\r\n", ["a", "", "b"]),
        ("a\x0cb\u2028c\x85d\ne".encode(), ["a\x0cb\u2028c\x85d", "e"]),
    ],
)
def test_only_line_feeds_end_lines(tmp_path, data, lines):
    (tmp_path / "f").write_bytes(data)
    assert read_lines(tmp_path / "f", "labels") == lines


def test_binary_data_is_refused_with_its_line(tmp_path):
    (tmp_path / "f").write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(InputError, match="f: line 3: expected UTF-8 text with labels"):
        read_lines(tmp_path / "f", "labels")
    (tmp_path / "f").write_bytes(b"a\0b")
    with pytest.raises(InputError, match="got binary data"):
        read_lines(tmp_path / "f", "labels")
    with pytest.raises(InputError, match="got: No such file"):
        read_lines(tmp_path / "g", "labels")
    with pytest.raises(InputError, match="got: Is a directory"):
        read_lines(tmp_path, "labels")


def test_too_large_file_is_not_read(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)
    with pytest.raises(InputError, match="got 268,435,457 bytes"):
        read_lines(tmp_path / "f", "labels")
