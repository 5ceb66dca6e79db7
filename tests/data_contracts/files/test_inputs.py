import json
import subprocess
import sys

from data_contracts.files.inputs import NO_FILE, file_state, refresh_listings
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
