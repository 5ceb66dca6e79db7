import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError, validate_call

from data_contracts.errors import InputError
from data_contracts.files.locations import LocationParameter, file_state, forget_listings, is_remote, location


@pytest.mark.parametrize("text", ["/a/b", "a b.mp4", "~/x", "C:x", "ü?#%20"])
def test_paths_stay_paths(text):
    assert location(text) == Path(text) == location(Path(text))
    assert type(location(text)) is type(Path())
    assert location(f"file:///a/{text}") == Path(f"/a/{text}")


@pytest.mark.parametrize("text", ["s3://bucket", "s3://bucket/a b/ü?#%20.mp4", "s3://my.bucket/a/b"])
def test_urls_come_back_as_they_were(text):
    place = location(text)
    assert is_remote(place) and str(place).rstrip("/") == text and location(place) is place
    assert location(str(place)) == place
    assert location(text + "/") == place
    assert (place / "c.mp4").stem == "c" and str(place / "c.mp4") == text + "/c.mp4"


@pytest.mark.parametrize(
    "text", ["s3:/bucket/x", "s3:///x", "s3://", "S3://b/x", "gs://bucket/x", "http://x/y", "file://x"]
)
def test_other_protocols_and_typos_are_one_line(text):
    with pytest.raises(InputError, match="expected a path, file:///FOLDER or s3://BUCKET/FOLDER, got") as caught:
        location(text)
    assert repr(text) in str(caught.value)


def test_as_a_parameter():
    @validate_call
    def flow(data: LocationParameter, more: LocationParameter | None = None) -> tuple:
        return data, more

    assert flow("a/b") == (Path("a/b"), None)
    assert flow(Path("a"), "s3://bucket/x") == (Path("a"), location("s3://bucket/x"))
    with pytest.raises(ValidationError, match="expected a path"):
        flow("s4://bucket/x")
    adapter = TypeAdapter(LocationParameter)
    assert adapter.json_schema()["type"] == "string"
    assert adapter.dump_json(location("s3://bucket/x")) == b'"s3://bucket/x"'


def test_state_of_local_files(tmp_path):
    path = tmp_path / "x"
    assert file_state(path) == [-1, -1]
    path.write_bytes(b"abc")
    assert file_state(path) == [3, path.stat().st_mtime_ns]


def test_local_paths_import_nothing():
    code = "import sys; from data_contracts.files.locations import location; location('/a')\n"
    code += "print(sorted({'upath', 's3fs', 'fsspec', 'pydantic', 'botocore'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_state_of_files_on_s3(s3_bucket):
    folder = location(s3_bucket) / "a"
    path = folder / "x"
    assert file_state(path) == [-1, -1]
    path.write_bytes(b"abc")
    before = file_state(path)
    assert before[0] == 3 and file_state(path, as_listed=True) == before and file_state(folder) == [-1, -1]
    assert [found.name for found in folder.iterdir()] == ["x"]
    other_client = type(path.fs)(skip_instance_cache=True, **path.storage_options)
    other_client.pipe_file(path.path, b"abd")
    assert file_state(path, as_listed=True) == before and file_state(path) != before
    other_client.rm_file(path.path)
    assert file_state(path) == [-1, -1]
    forget_listings(path)
    assert file_state(path, as_listed=True) == [-1, -1]
